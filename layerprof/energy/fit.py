"""From ticks to joules with a 95 % interval.

Three estimators, each for one situation:

`steady_window`  a constant load that began before the window and outlasts it (replay): the power is the slope of the
                 counter, by least squares over its ticks.
`pulse_window`   anything that stands between two quiet stretches: what the counter gained from one to the other. Free
                 of the sensor's lag, because all of the load has arrived when the second stretch is over.
`edge_window`    neither: the counter between the window's edges. Its interval holds what the lag could hide.

The intervals are statistical: a sensor's own gain error (some per cent, the same for all windows of a card) is in none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import scipy.special

from layerprof.energy.amount import NORMAL_95, Amount, around
from layerprof.energy.counter import Floats, Ticks

LAG_MAX_S = 0.15
"""Longest delay allowed for between a load and its trace in a card's counter, seconds; about 0.1 was published."""

ENOUGH_TICKS = 20
"""A window with fewer counter updates is flagged as too short."""

Method = Literal["steady", "pulse", "edges"]
_Part = tuple[float, int | None]  # a variance and its degrees of freedom (None: known, not estimated)


@dataclass(frozen=True, slots=True)
class Fit:
    """Joules of one window; None where the ticks do not carry a figure, and then `reason` says why.

    `baseline_w` is the quiet power around the window (pulse only), `ticks` how many fell inside it. `steady` is False
    where a window that was said to be steady clearly was not.
    """

    energy: Amount | None
    mean_power_w: float | None
    ticks: int
    method: Method
    baseline_w: float | None = None
    steady: bool = True
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Slope:
    """Slope of a counter in watts, its standard error, the residuals' Durbin-Watson ratio, each of shape (...).

    `df` is the number of ticks less two.
    """

    power_w: Floats
    se_w: Floats
    durbin_watson: Floats
    df: int


def line(t_s: Floats, joules: Floats) -> Slope:
    """Fit joules over time by ordinary least squares; both of shape (..., n), n >= 3.

    `P = sum((t - mean t)(C - mean C)) / sum((t - mean t)^2)`, `se = sqrt(sum(r^2) / (n - 2) / sum((t - mean t)^2))`.
    """
    n = t_s.shape[-1]
    t = t_s - t_s.mean(-1, keepdims=True)
    c = joules - joules.mean(-1, keepdims=True)
    power = (t * c).sum(-1) / (t * t).sum(-1)
    residual = c - power[..., None] * t
    squares = (residual**2).sum(-1)
    # A counter without any error has no residuals: neither a division by zero nor a verdict on their order.
    exact = squares <= 1e-18 * (c * c).sum(-1)
    ratio = (np.diff(residual) ** 2).sum(-1) / np.where(exact, 1.0, squares)
    return Slope(power, np.sqrt(squares / (n - 2) / (t * t).sum(-1)), np.where(exact, 2.0, ratio), n - 2)


def is_steady(fitted: Slope, sigma: float = 1.3) -> bool:
    """Whether the ticks scatter about the line instead of wandering around it (Durbin-Watson, one-sided).

    A wandering power makes the error of a fitted line too small. One that just escapes this test (3-10 % from tick to
    tick) leaves intervals that cover 83-91 % instead of 95 %, when they are below 1 % of the joules.
    """
    return bool(fitted.durbin_watson > 2 - sigma * 2 / np.sqrt(fitted.df + 2))


def student(df: float, level: float = 0.975) -> float:
    """Return the quantile of Student's t with `df` degrees of freedom."""
    return float(scipy.special.stdtrit(df, level))


def steady_window(ticks: Ticks, start_s: float, end_s: float, duty: float = 1.0, lag_s: float = LAG_MAX_S) -> Fit:
    """Joules of [start_s, end_s] (seconds) inside a constant load: fitted slope x duration.

    The load must have run for `lag_s` before `start_s`. Fewer than four ticks give a reason instead; a load that
    turns out not to be constant is read by its edges.
    """
    t_s, joules = ticks.between(start_s, end_s)
    if len(t_s) < 4:
        return _nothing("steady", len(t_s), start_s, end_s, ticks.period_s)
    fitted = line(t_s, joules)
    if not is_steady(fitted):
        edges = edge_window(ticks, start_s, end_s, duty, lag_s)
        # The test fails one steady load in ten, which costs precision only; three sigma are worth telling.
        return replace(edges, steady=is_steady(fitted, 3.0))
    duration = end_s - start_s
    unseen, looks = _unseen(ticks, start_s, end_s, duty, lag_s)
    # Increments that are off at random weigh 6/5 in a fitted slope.
    parts = [((float(fitted.se_w) * duration) ** 2, fitted.df), (1.2 * unseen, looks)]
    return _ranged(float(fitted.power_w) * duration, parts, end_s - start_s, len(t_s), "steady")


def pulse_window(
    ticks: Ticks, start_s: float, end_s: float, *, quiet_s: float, duty: float = 1.0, lag_s: float = LAG_MAX_S
) -> Fit:
    """Joules of [start_s, end_s] (seconds) with `quiet_s` of nothing on both sides.

    A line through the ticks of each quiet stretch; the joules are the height between the two, read at `start + lag` and
    `end + lag`. The lag may be anything in [0, lag_s]: where the quiet power is the same on both sides it falls
    out, else it widens the interval. `duty` is the share of the time at which the sensor looks (0.25 on A100 and
    H100); what it misses of a changing load is in the interval, judged by how much the power differs from one tick to
    the next.
    """
    inside = len(ticks.between(start_s, end_s)[0])
    middle = lag_s / 2
    before = _height(ticks, start_s - quiet_s + lag_s, start_s, start_s + middle)
    after = _height(ticks, end_s + lag_s, end_s + quiet_s, end_s + middle)
    if before is None or after is None or inside < 2:
        return _nothing("pulse", inside, start_s, end_s, ticks.period_s)
    joules = after.joules - before.joules
    quiet_w = (before.power_w + after.power_w) / 2
    step_w = joules / (end_s - start_s) - quiet_w
    unseen, looks = _unseen(ticks, start_s, end_s, duty, lag_s)
    parts = [
        (before.variance, before.df),
        (after.variance, after.df),
        (((after.power_w - before.power_w) * lag_s) ** 2 / 12, None),
        (unseen, looks),
        (_unseen_edges(ticks, step_w, duty), None),
    ]
    return replace(_ranged(joules, parts, end_s - start_s, inside, "pulse"), baseline_w=quiet_w)


def edge_window(ticks: Ticks, start_s: float, end_s: float, duty: float = 1.0, lag_s: float = LAG_MAX_S) -> Fit:
    """Joules between the window's edges (seconds), the counter interpolated between its ticks.

    Exact inside a constant load; where the load differs at the two edges, the interval holds what a lag of up to
    `lag_s` and the step of the counter may have moved across them.
    """
    inside = len(ticks.between(start_s, end_s)[0])
    if inside < 2:
        return _nothing("edges", inside, start_s, end_s, ticks.period_s)
    before, first = _local_power(ticks, start_s)
    last, following = _local_power(ticks, end_s)
    moved = lag_s + ticks.width_near(start_s) + (ticks.period_s or 0.0) * (lag_s > 0)
    parts = [
        ((first * ticks.width_near(start_s)) ** 2 / 12, None),
        ((last * ticks.width_near(end_s)) ** 2 / 12, None),
        (((first - before) * moved) ** 2 / 12, None),
        (((following - last) * moved) ** 2 / 12, None),
        _unseen(ticks, start_s, end_s, duty, lag_s),
    ]
    joules = _counter_at(ticks, end_s, last) - _counter_at(ticks, start_s, first)
    return _ranged(joules, parts, end_s - start_s, inside, "edges")


def _counter_at(ticks: Ticks, t_s: float, power_w: float) -> float:
    """Counter at `t_s`: between two ticks by interpolation, beyond the first or last one carried on at `power_w`."""
    for edge, outside in ((0, t_s < ticks.t_s[0]), (-1, t_s > ticks.t_s[-1])):
        if outside:
            return float(ticks.joules[edge] + power_w * (t_s - ticks.t_s[edge]))
    return float(np.interp(t_s, ticks.t_s, ticks.joules))


@dataclass(frozen=True, slots=True)
class _Height:
    joules: float
    variance: float
    df: int
    power_w: float


def _height(ticks: Ticks, start_s: float, end_s: float, at_s: float) -> _Height | None:
    """Value at `at_s` of the line through the ticks in [start_s, end_s]; None below four ticks.

    Its variance is that of a fitted line, `s^2 (1/n + (t - mean t)^2 / sum((t_k - mean t)^2))`.
    """
    t_s, joules = ticks.between(start_s, end_s)
    if len(t_s) < 4:
        return None
    fitted = line(t_s, joules)
    away = at_s - float(t_s.mean())
    level = float(np.sum((t_s - t_s.mean()) ** 2)) / len(t_s)
    power, se = float(fitted.power_w), float(fitted.se_w)
    return _Height(float(joules.mean()) + power * away, se**2 * (level + away**2), fitted.df, power)


def _local_power(ticks: Ticks, t_s: float) -> tuple[float, float]:
    """Power (watts) over the two ticks before `t_s` and the two after it; the same twice where one side is bare."""
    k = int(np.searchsorted(ticks.t_s, t_s))
    sides = [(max(0, k - 3), k - 1), (k, min(len(ticks.t_s) - 1, k + 2))]
    found = [
        float((ticks.joules[b] - ticks.joules[a]) / (ticks.t_s[b] - ticks.t_s[a])) if b > a else None for a, b in sides
    ]
    before, after = found
    return (after if before is None else before) or 0.0, (before if after is None else after) or 0.0


def _unseen(ticks: Ticks, start_s: float, end_s: float, duty: float, lag_s: float) -> _Part:
    """Variance (J²) of the energy that a sensor with this duty did not look at, and its degrees of freedom.

    The scatter of neighbouring increments (von Neumann: half the mean squared difference), less what late ticks put
    into it; each increment stands for `1 / duty` looks of which one was taken.
    """
    # The first ticks still hold what was before the window.
    t_s, joules = ticks.between(start_s + lag_s + (ticks.period_s or 0.0), end_s)
    if duty >= 1 or len(t_s) < 4:
        return 0.0, None
    steps, spacing = np.diff(joules), np.diff(t_s)
    power = float(steps.sum() / spacing.sum())
    even = steps - power * (spacing - spacing.mean())
    scatter = float(np.mean(np.diff(even) ** 2)) / 2
    late = 3 * power**2 * ticks.lateness(start_s, end_s)
    count = (end_s - start_s) / float(spacing.mean())
    # Overlapping neighbours and the subtraction cost degrees of freedom; a third makes simulated windows cover.
    return (1 - duty) * count * max(0.0, scatter - late), max(1, len(steps) // 3)


def _unseen_edges(ticks: Ticks, step_w: float, duty: float) -> float:
    """Variance (J²) from a load of `step_w` watts that starts and ends between two looks.

    A look over the last `duty` of each tick takes the tick for loaded wholly or not at all: the error of one edge,
    uniform over its place in the tick, has the variance `(step * period * (1 - duty))^2 / 12`.
    """
    return (step_w * (ticks.period_s or 0.0) * (1 - min(1.0, duty))) ** 2 / 6


def _ranged(joules: float, parts: Sequence[_Part], seconds: float, inside: int, method: Method) -> Fit:
    """Joules with an interval from the parts of its variance (Welch-Satterthwaite degrees of freedom)."""
    variance = sum(part for part, _ in parts)
    doubt = sum(part**2 / df for part, df in parts if df)
    df = variance**2 / doubt if doubt > 0 else np.inf
    half = float(np.sqrt(variance)) * (NORMAL_95 if df > 1e6 else student(max(1.0, df)))
    return Fit(around(joules, half), joules / seconds, inside, method)


def _nothing(method: Method, inside: int, start_s: float, end_s: float, period_s: float | None) -> Fit:
    step = "its counter did not move" if period_s is None else f"its counter steps every {period_s:.3g} s"
    reason = f"a window of {end_s - start_s:.3g} s with {inside} counter updates is too short for this sensor: {step}"
    return Fit(None, None, inside, method, reason=reason)
