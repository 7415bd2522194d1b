"""What a square wave of load shows about an energy counter: its step, its lag, its gain against the instant power."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from layerprof.energy.amount import TOLERANCE
from layerprof.energy.counter import CounterRead, Floats, find_ticks
from layerprof.energy.fit import LAG_MAX_S

LAGS_S = np.arange(0.0, 0.5, 0.005)


@dataclass(frozen=True, slots=True)
class SelfTest:
    """What was found; None where the reads do not show it.

    `period_s` is the median time between counter updates, `lag_s` how late the load shows, `idle_w` and `load_w` the
    two levels as the counter saw them, `gain` joules of the counter over the integral of the instant power, `read_s`
    how long one read takes.
    """

    period_s: float | None
    lag_s: float | None
    idle_w: float | None
    load_w: float | None
    gain: float | None
    read_s: float | None
    ticks: int
    failed_reads: int

    @property
    def verdict(self) -> str:
        """Return `good`, or what is wrong with the counter."""
        if self.period_s is None or self.load_w is None or self.idle_w is None:
            return "the counter did not move: do not trust its joules"
        if self.load_w < (1 + TOLERANCE) * self.idle_w:
            return "the counter did not follow the load: does it belong to this device?"
        if self.gain is not None and abs(self.gain - 1) > TOLERANCE:
            return f"suspect: the counter gives {self.gain:.2f} times the integrated power"
        if self.lag_s is not None and self.lag_s > LAG_MAX_S:
            return f"suspect: the counter lags by {self.lag_s:.2f} s, more than windows allow for"
        return "good"

    def facts(self) -> dict[str, float | int | None]:
        """Return the fields by name."""
        return asdict(self)


def analyse(
    reads: Sequence[CounterRead], loaded: Sequence[tuple[float, float]], read_s: float | None = None
) -> SelfTest:
    """Evaluate the reads of a test in which the device was loaded in `loaded` [(from_s, to_s), ...] and idle else.

    The counter is fitted by `C(t) = c + P_idle t + (P_load - P_idle) loaded_time(t - lag)` for each lag on a grid.
    """
    ticks = find_ticks(reads)
    failed = len(ticks.failed_s)
    if len(ticks.t_s) < 10:
        return SelfTest(ticks.period_s, None, None, None, None, read_s, len(ticks.t_s), failed)
    fits = [_fit(ticks.t_s, ticks.joules, loaded, float(lag)) for lag in LAGS_S]
    best = int(np.argmin([error for error, _, _ in fits]))
    _, idle, step = fits[best]
    return SelfTest(
        period_s=ticks.period_s,
        lag_s=float(LAGS_S[best]),
        idle_w=idle,
        load_w=idle + step,
        gain=_gain(reads),
        read_s=read_s,
        ticks=len(ticks.t_s),
        failed_reads=failed,
    )


def _fit(
    t_s: Floats, joules: Floats, loaded: Sequence[tuple[float, float]], lag_s: float
) -> tuple[float, float, float]:
    """Squared error, idle watts and the step to the load in watts, for one lag."""
    under_load = sum((np.clip(t_s - lag_s - start, 0, end - start) for start, end in loaded), start=np.zeros_like(t_s))
    design = np.stack([np.ones_like(t_s), t_s - t_s[0], under_load], axis=1)
    solution, *_ = np.linalg.lstsq(design, joules - joules[0], rcond=None)
    error = float(np.sum((design @ solution - joules + joules[0]) ** 2))
    return error, float(solution[1]), float(solution[2])


def _gain(reads: Sequence[CounterRead]) -> float | None:
    """Joules of the counter over the trapezoids of the stated power, between the first and the last good read."""
    good = [read for read in reads if read.joules is not None and read.power_w is not None]
    if len(good) < 10:
        return None
    power = np.array([read.power_w for read in good])
    integral = float(np.trapezoid(power, [read.t_s for read in good]))
    return (good[-1].joules or 0.0) / integral - (good[0].joules or 0.0) / integral if integral > 0 else None
