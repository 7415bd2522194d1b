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
FEWEST = 200
PART = 4_000_000
"""Random numbers drawn at once: 32 MB."""
HELD = 10_000_000
"""Counts held for further quantities: 80 MB."""

Floats = NDArray[np.float64]


class Draws:
    """Resamples of n rows, the same for every quantity: so that their intervals belong together.

    Without `times` there are `RESAMPLES` of them, or as many as can be held; with it just so many, drawn anew for each
    quantity where they cannot be held.
    """

    def __init__(self, n: int, times: int | None = None) -> None:
        self.n = n
        self.times = times or max(FEWEST, min(RESAMPLES, HELD // max(n, 1)))
        self._held: tuple[Floats, ...] | None = None

    def ratio(self, over: Sequence[float], under: Sequence[float]) -> tuple[float, float] | None:
        """Return the 95 % interval of sum(over) / sum(under); None for fewer than two rows.

        Resamples whose denominator is 0 have no ratio and are left out; None where none is left.
        """
        return interval(self.ratios(over, under)) if self.n > 1 else None

    def ratios(self, over: Sequence[float], under: Sequence[float]) -> Floats:
        """Return sum(over) / sum(under) of each resample, to be joined with other quantities; not finite over 0."""
        above, below = self._sums(over, under)
        return _divided(above, below)

    def difference_of_rates(
        self, after: tuple[Sequence[float], Sequence[float]], before: tuple[Sequence[float], Sequence[float]]
    ) -> tuple[float, float] | None:
        """Return the 95 % interval of sum/sum of the one minus sum/sum of the other, as `ratio` does."""
        if self.n < 2:
            return None
        sums = self._sums(*after, *before)
        return interval(_divided(sums[0], sums[1]) - _divided(sums[2], sums[3]))

    def _sums(self, *columns: Sequence[float]) -> Floats:
        """Sum columns of n values over each resample, shape (columns, times)."""
        table = np.asarray(columns, dtype=np.float64)
        return np.concatenate([part @ table.T for part in self._parts()]).T

    def _parts(self) -> Iterator[Floats]:
        if self._held is None and self.n * self.times <= HELD:
            self._held = tuple(_drawn(self.n, self.times))
        yield from _drawn(self.n, self.times) if self._held is None else self._held


def _drawn(n: int, times: int) -> Iterator[Floats]:
    """Yield how often each row was drawn, shape (resamples, n), in parts that fit the memory."""
    random = np.random.default_rng(SEED)
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
