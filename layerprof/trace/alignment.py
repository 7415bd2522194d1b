"""Two sequences of kernels laid side by side, gaps and substitutions allowed. Pure, numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]

SAME, LIKE, OTHER, UNLIKE, GAP = 2.0, 0.5, -1.0, -3.0, -1.0
"""What a pair is worth: one kernel, one kind of work, of unknown kinds, of different kinds; and a kernel left alone."""


def _worth(a: Numbers, b: Numbers, kind_a: Numbers, kind_b: Numbers) -> NDArray[np.float64]:
    """Return what it is worth to pair each of `a` (rows) with each of `b` (columns)."""
    known = (kind_a[:, None] > 0) & (kind_b[None, :] > 0)
    same_kind = kind_a[:, None] == kind_b[None, :]
    kinds = np.where(known, np.where(same_kind, LIKE, UNLIKE), OTHER)
    return np.where(a[:, None] == b[None, :], SAME, kinds)


def _table(pairs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the best sums of a global alignment's beginnings, shape (rows + 1, columns + 1) (Needleman and Wunsch)."""
    rows, columns = pairs.shape
    steps = GAP * np.arange(columns + 1)
    table = np.empty((rows + 1, columns + 1))
    table[0] = steps
    for row in range(rows):
        above = table[row]
        best = above + GAP
        best[1:] = np.maximum(best[1:], above[:-1] + pairs[row])
        table[row + 1] = np.maximum.accumulate(best - steps) + steps
    return table


def reach(a: Numbers, b: Numbers, kind_a: Numbers, kind_b: Numbers) -> tuple[int, int]:
    """Return how far `a` and `b`, laid side by side from their start, are alike: how many of each belong together."""
    table = _table(_worth(a, b, kind_a, kind_b))
    i, j = divmod(int(table.argmax()), table.shape[1])
    return i, j


def fit(a: Numbers, b: Numbers, kind_a: Numbers, kind_b: Numbers, longest: bool) -> tuple[int, float]:
    """Return how many of `b`, from its start, the whole of `a` covers, and the share of `a` that it matches (-1 to 1).

    Of several that are as good, the longest or the shortest.
    """
    if not len(a):
        return 0, 0.0
    last = _table(_worth(a, b, kind_a, kind_b))[-1]
    best = np.flatnonzero(last >= last.max() - 1e-9)
    return int(best[-1] if longest else best[0]), float(last.max()) / (SAME * len(a))
