"""From reads of an energy counter to its ticks: wraps, resets and failed reads told apart.

A counter gives joules since some moment and changes in steps ("ticks") that are rarer than the reads. What is known
about a tick is the bracket in which it fell: after the last read that gave the old value, by the first that gave the
new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Event = Literal["wrap", "reset", "failed"]

JUMP_SLACK_S = 1.0
"""A counter that updates every 0.1 s may show that much energy between two reads 1 ms apart; seconds of slack."""


@dataclass(frozen=True, slots=True)
class CounterRead:
    """One read: host seconds (monotonic), joules since the first read, and the power the sensor itself states.

    `joules` is None for a failed read, never 0. `event` marks a read at which the counter wrapped (already undone in
    `joules`), was reset (joules start anew), or failed.
    """

    t_s: float
    joules: float | None
    power_w: float | None = None
    event: Event | None = None


@dataclass(frozen=True, slots=True)
class Unwrapped:
    """What one raw value comes to: joules since the first one (None when the read failed), and what happened."""

    joules: float | None
    event: Event | None = None


class Unwrapper:
    """Turns a raw counter into joules that only grow.

    `wrap_j` is the counter's range in joules (None: it does not wrap), `max_power_w` what the device could never
    exceed. A fall is a wrap only where the energy it implies was possible in the time that passed. A fall to exactly 0
    is a failed read (drivers answer 0 for "try again"; taken for a wrap it would become 262 kJ). Any other fall is
    held back as failed until the next read confirms that the counter was reset.
    """

    def __init__(self, wrap_j: float | None = None, max_power_w: float = 3000.0) -> None:
        self.wrap_j = wrap_j
        self.max_power_w = max_power_w
        self._raw: float | None = None
        self._t_s = 0.0
        self._total = 0.0
        self._suspect = False

    def feed(self, t_s: float, raw: float | None) -> Unwrapped:
        """Take one raw value in joules, read at `t_s` seconds; None is a failed read."""
        if raw is None or (raw == 0 and self._raw):
            return Unwrapped(None, "failed")
        if self._raw is None:
            return self._accept(t_s, raw, 0.0, None)
        possible = self.max_power_w * (t_s - self._t_s + JUMP_SLACK_S)
        delta = raw - self._raw
        if 0 <= delta <= possible:
            return self._accept(t_s, raw, delta, None)
        if delta < 0 and self.wrap_j is not None and delta + self.wrap_j <= possible:
            return self._accept(t_s, raw, delta + self.wrap_j, "wrap")
        if self._suspect:
            return self._accept(t_s, raw, 0.0, "reset")
        self._suspect = True
        return Unwrapped(None, "failed")

    def _accept(self, t_s: float, raw: float, delta: float, event: Event | None) -> Unwrapped:
        self._raw, self._t_s, self._suspect = raw, t_s, False
        self._total += delta
        return Unwrapped(self._total, event)


@dataclass(frozen=True, slots=True)
class Ticks:
    """The changes of one counter, in time order.

    `t_s[k]` (seconds) is the middle of the bracket in which change k fell, `width_s[k]` the bracket's width,
    `joules[k]` the counter after it. `period_s` is the median spacing, None below three ticks. `resets_s` and
    `failed_s` are when the counter was reset and when reads failed.
    """

    t_s: Floats
    joules: Floats
    width_s: Floats
    period_s: float | None
    resets_s: tuple[float, ...] = ()
    failed_s: tuple[float, ...] = ()

    def between(self, start_s: float, end_s: float) -> tuple[Floats, Floats]:
        """Return times and joules of the ticks in [start_s, end_s], each of shape (ticks,)."""
        low, high = np.searchsorted(self.t_s, [start_s, end_s + 1e-9])
        return self.t_s[low:high], self.joules[low:high]

    def lateness(self, start_s: float, end_s: float) -> float:
        """Return the variance (s²) of the moments given to the ticks in [start_s, end_s]: mean width² / 12."""
        low, high = np.searchsorted(self.t_s, [start_s, end_s])
        return float(np.mean(self.width_s[low:high] ** 2)) / 12 if high > low else 0.0

    def width_near(self, t_s: float) -> float:
        """Return the bracket width (seconds) of the tick nearest to `t_s`; 0 where there is none."""
        return float(self.width_s[np.argmin(np.abs(self.t_s - t_s))]) if len(self.t_s) else 0.0


def find_ticks(reads: Sequence[CounterRead], update_s: float | None = None) -> Ticks:
    """Return the ticks in `reads` (time order).

    `update_s` is how often the counter is known to update, in seconds; it narrows the bracket where the counter is
    read more rarely than it changes. The first good read opens the record and is no tick.
    """
    times: list[float] = []
    joules: list[float] = []
    widths: list[float] = []
    last: CounterRead | None = None
    for read in reads:
        if read.joules is None:
            continue
        if last is not None and last.joules is not None and read.joules > last.joules:
            width = read.t_s - last.t_s
            width = width if update_s is None else min(width, update_s)
            times.append(read.t_s - width / 2)
            joules.append(read.joules)
            widths.append(width)
        last = read
    t_s = np.asarray(times)
    return Ticks(
        t_s=t_s,
        joules=np.asarray(joules),
        width_s=np.asarray(widths),
        period_s=float(np.median(np.diff(t_s))) if len(t_s) > 2 else None,
        resets_s=tuple(read.t_s for read in reads if read.event == "reset"),
        failed_s=tuple(read.t_s for read in reads if read.event == "failed"),
    )
