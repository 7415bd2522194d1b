"""How much of the machine's processors other programs took while something was timed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

STAT = Path("/proc/stat")
TICK_S = 0.01
"""The kernel counts in hundredths of a second (USER_HZ), whatever its own timer."""
SHORTEST_S = 0.3
"""Of shorter stretches the ticks are too coarse to tell."""
MUCH = 0.15
"""From this share on, what was timed is not of this work alone."""


@dataclass(frozen=True, slots=True)
class Moment:
    """Seconds since boot that all processors together were busy, that this process was, and the clock."""

    busy_s: float
    own_s: float
    at_s: float
    processors: int


def busy_seconds(stat: str) -> tuple[float, int]:
    """Return from the text of /proc/stat the seconds in which processors were busy, and how many processors there are.

    Busy is all but idle and waiting for a disk; what a hypervisor gave to others (steal) counts, guests are in `user`.
    Source: proc(5). Raises ValueError for text without the line.
    """
    lines = [line.split() for line in stat.splitlines() if line.startswith("cpu")]
    whole = next((fields for fields in lines if fields[0] == "cpu"), None)
    if whole is None or len(whole) < 9:
        raise ValueError("no line 'cpu' with its counters")
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(field) for field in whole[1:9])
    return (user + nice + system + irq + softirq + steal) * TICK_S, len(lines) - 1


def now() -> Moment | None:
    """Return this moment; None where the system does not tell."""
    try:
        busy, processors = busy_seconds(STAT.read_text())
    except (OSError, ValueError):
        return None
    own = os.times()
    return Moment(busy, own.user + own.system, time.monotonic(), processors)


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
