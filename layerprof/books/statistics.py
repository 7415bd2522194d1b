"""Medians, percentiles and the seeded interval of a median; numpy only, the same figures every time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from layerprof.quality.bootstrap import MEDIANS, SEED, Floats, interval
from layerprof.records import Statistic


def median(values: Sequence[float]) -> float:
    """Return the median; of an even count, the mean of the two in the middle. Raises ValueError on no values."""
    return float(np.median(_some(values)))


def p95(values: Sequence[float]) -> float:
    """Return the 95th percentile, interpolated linearly between order statistics. Raises ValueError on no values."""
    return float(np.percentile(_some(values), 95))


def describe(values: Sequence[float]) -> Statistic | None:
    """Return median, p95 and the median's interval in the values' own unit; None when there are no values."""
    if not len(values):
        return None
    return Statistic(median=median(values), p95=p95(values), ci95=median_ci(values), n=len(values))


def median_ci(values: Sequence[float], drawn: int = MEDIANS) -> tuple[float, float] | None:
    """Return the bootstrap percentile 95 % interval of the median; None for fewer than two values.

    The resampled medians are drawn from their exact distribution instead of from resamples, so a million values cost as
    much as ten: the k-th smallest of n uniform draws is Beta(k, n + 1 - k), and given it, the next one lies a
    Beta(1, n - k) part of the way up to 1 (David and Nagaraja, Order Statistics, 2.5).
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    n = len(ordered)
    if n < 2:
        return None
    random = np.random.default_rng(SEED)
    k = (n + 1) // 2
    lower = random.beta(k, n + 1 - k, drawn)
    upper = lower if n % 2 else lower + (1 - lower) * random.beta(1, n - k, drawn)
    return interval((_at(ordered, lower) + _at(ordered, upper)) / 2)


def _at(ordered: Floats, position: Floats) -> Floats:
    """Values at relative positions 0 <= position <= 1 of a sorted array."""
    return ordered[np.minimum((position * len(ordered)).astype(np.int64), len(ordered) - 1)]


def _some(values: Sequence[float]) -> Floats:
    if not len(values):
        raise ValueError("no values, no statistic")
    return np.asarray(values, dtype=np.float64)
