"""The bootstrap: percentile intervals of sums over sums, from seeded resamples that several quantities can share.

A resample of n rows draws n of them with replacement; all that sums need of it is how often each row was drawn. So a
resample is a row of counts, and the sums of all resamples are one matrix product.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

SEED = 0
PERCENTILES = (2.5, 97.5)
"""The ends of a 95 % interval."""
RESAMPLES = 10_000
MEDIANS = 2_000
"""Resampled medians that are drawn for an interval: each wants its rows in order."""
FEWEST = 200
PART = 4_000_000
"""Random numbers drawn at once: 32 MB."""
HELD = 10_000_000
"""Counts held for further quantities: 80 MB."""

Floats = NDArray[np.float64]
Column = Sequence[float]
Rate = tuple[Column, Column]
"""What stands above and below the line, row by row: a rate is sum over sum."""


class Draws:
    """Resamples of n rows, the same for every quantity: so that their intervals belong together.

    Without `times` there are `RESAMPLES` of them, or as many as can be held; with it just so many, drawn anew for each
    quantity where they cannot be held.
    """

    def __init__(self, n: int, times: int | None = None, seed: int = SEED) -> None:
        self.n = n
        self.times = times or default_times(n)
        self.seed = seed
        self._held: tuple[Floats, ...] | None = None

    def ratio(self, over: Column, under: Column) -> tuple[float, float] | None:
        """Return the 95 % interval of sum(over) / sum(under); None for fewer than two rows.

        Resamples whose denominator is 0 have no ratio and are left out; None where none is left.
        """
        return interval(self.ratios(over, under)) if self.n > 1 else None

    def ratios(self, over: Column, under: Column) -> Floats:
        """Return sum(over) / sum(under) of each resample, to be joined with other quantities; not finite over 0."""
        above, below = self._sums(over, under)
        return _divided(above, below)

    def difference_of_rates(self, after: Rate, before: Rate) -> tuple[float, float] | None:
        """Return the 95 % interval of sum/sum of the one minus sum/sum of the other, as `ratio` does."""
        return _difference(self, after, before)

    def ratio_of_rates(self, after: Rate, before: Rate) -> tuple[float, float] | None:
        """Return the 95 % interval of sum/sum of the one over sum/sum of the other, as `ratio` does."""
        return _ratio(self, after, before)

    def rates(self, after: Rate, before: Rate) -> tuple[Floats, Floats] | None:
        """Return both rates of each resample; None for fewer than two rows."""
        if self.n < 2:
            return None
        sums = self._sums(*after, *before)
        return _divided(sums[0], sums[1]), _divided(sums[2], sums[3])

    def _sums(self, *columns: Column) -> Floats:
        """Sum columns of n values over each resample, shape (columns, times)."""
        table = np.asarray(columns, dtype=np.float64)
        return np.concatenate([part @ table.T for part in self._parts()]).T

    def _parts(self) -> Iterator[Floats]:
        if self._held is None and self.n * self.times <= HELD:
            self._held = tuple(_drawn(self.n, self.times, self.seed))
        yield from _drawn(self.n, self.times, self.seed) if self._held is None else self._held


class Apart:
    """Resamples of two sets of rows that have nothing to do with each other: each is drawn on its own.

    It answers as `Draws` does, where the rows of the two sides are no pairs.
    """

    def __init__(self, before: int, after: int) -> None:
        times = min(default_times(before), default_times(after))
        self.before, self.after = Draws(before, times), Draws(after, times, SEED + 1)

    def difference_of_rates(self, after: Rate, before: Rate) -> tuple[float, float] | None:
        """Return the 95 % interval of the one rate minus the other; None for fewer than two rows on a side."""
        return _difference(self, after, before)

    def ratio_of_rates(self, after: Rate, before: Rate) -> tuple[float, float] | None:
        """Return the 95 % interval of the one rate over the other; None for fewer than two rows on a side."""
        return _ratio(self, after, before)

    def rates(self, after: Rate, before: Rate) -> tuple[Floats, Floats] | None:
        """Return both rates of each resample; None for fewer than two rows on a side."""
        if min(self.before.n, self.after.n) < 2:
            return None
        return self.after.ratios(*after), self.before.ratios(*before)


def ratio_of_medians(after: Column, before: Column, *, paired: bool) -> tuple[float, float] | None:
    """Return the 95 % interval of one median over another, of rows drawn in pairs or each side on its own.

    None for fewer than two rows on a side.
    """
    x, y = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    most = max(len(x), len(y))
    if min(len(x), len(y)) < 2:
        return None
    random = np.random.default_rng(SEED)
    times = max(FEWEST, min(MEDIANS, HELD // most))
    rows = random.integers(0, len(x), (times, len(x)))
    others = rows if paired else random.integers(0, len(y), (times, len(y)))
    return interval(_divided(np.median(y[others], axis=1), np.median(x[rows], axis=1)))


def default_times(n: int) -> int:
    """Return how many resamples of n rows there are where nobody asks for a number."""
    return max(FEWEST, min(RESAMPLES, HELD // max(n, 1)))


def _difference(draws: Draws | Apart, after: Rate, before: Rate) -> tuple[float, float] | None:
    rates = draws.rates(after, before)
    return interval(rates[0] - rates[1]) if rates else None


def _ratio(draws: Draws | Apart, after: Rate, before: Rate) -> tuple[float, float] | None:
    rates = draws.rates(after, before)
    return interval(_divided(*rates)) if rates else None


def _drawn(n: int, times: int, seed: int) -> Iterator[Floats]:
    """Yield how often each row was drawn, shape (resamples, n), in parts that fit the memory."""
    random = np.random.default_rng(seed)
    part = max(1, min(times, PART // n))
    for start in range(0, times, part):
        size = min(part, times - start)
        rows = random.integers(0, n, (size, n))
        # All resamples are counted at once: each has a range of numbers of its own.
        rows += n * np.arange(size)[:, None]
        yield np.bincount(rows.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)


def _divided(above: Floats, below: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return above / below


def interval(values: Floats) -> tuple[float, float] | None:
    """Return the percentile 95 % interval of resampled figures; what is not finite is left out, None if that is all."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return None
    low, high = np.percentile(finite, PERCENTILES)
    return float(low), float(high)
