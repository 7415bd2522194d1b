"""How much of the machine's processors other programs took while something was timed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import fsum
from typing import Any

import psutil

BUSY = ("user", "nice", "system", "irq", "softirq", "steal")
SHORTEST_S = 0.3
"""Systems count in hundredths of a second, which is too coarse for shorter stretches."""
MUCH = 0.15
"""From this share on, what was timed is not of this work alone."""


@dataclass(frozen=True, slots=True)
class Moment:
    """Seconds since boot that all processors together were busy, that this process was, and the clock."""

    busy_s: float
    own_s: float
    at_s: float
    processors: int


def busy_seconds(times: Any) -> float:
    """Return the seconds in which processors were busy, of what `psutil.cpu_times()` gives.

    Busy is all but idle and waiting for a disk; what a hypervisor gave to others (steal) counts, guests are in `user`.
    Source: proc(5). A system that tells fewer kinds of time has them in those that it tells.
    """
    return fsum(getattr(times, kind, 0.0) for kind in BUSY)


def now() -> Moment | None:
    """Return this moment; None where the system does not tell."""
    try:
        busy, processors = busy_seconds(psutil.cpu_times()), psutil.cpu_count()
    except (OSError, ValueError, psutil.Error):
        return None
    own = os.times()
    return Moment(busy, own.user + own.system, time.monotonic(), processors) if processors else None


def others(before: Moment | None, after: Moment | None) -> float | None:
    """Return the share of all processors' time that other programs took between two moments.

    Between 0 and 1; None where it was not told, or the stretch was too short to tell.
    """
    if before is None or after is None or after.at_s - before.at_s < SHORTEST_S or after.processors < 1:
        return None
    theirs = (after.busy_s - before.busy_s) - (after.own_s - before.own_s)
    return min(1.0, max(0.0, theirs / ((after.at_s - before.at_s) * after.processors)))


@contextmanager
def watched(found: dict[str, float], name: str, moment: Callable[[], Moment | None] = now) -> Iterator[None]:
    """Put the others' share during the block into `found[name]`, where it could be told."""
    before = moment()
    try:
        yield
    finally:
        share = others(before, moment())
        if share is not None:
            found[name] = share


def remark(found: dict[str, float]) -> str | None:
    """Return in one sentence that the machine was busy, None when it was not."""
    worst = max(found.values(), default=0.0)
    if worst < MUCH:
        return None
    return (
        f"Other programs took {100 * worst:.0f} % of the processors while times were taken, which are then longer than "
        "they need be; measure again on a quiet machine."
    )
