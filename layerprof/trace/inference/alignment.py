"""Two sequences of kernels laid side by side, gaps and substitutions allowed. Pure, numpy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from layerprof.trace.inference.kernel_sequence import COARSE, EXACT, Kernels, Numbers
from layerprof.trace.kernel_names import Does

SAME, FAMILY, KIND, UNKNOWN, UNLIKE, GAP = 2.0, 1.25, 0.25, -1.0, -3.0, -1.0
"""What a pair is worth: one name, one family, one kind of work, of unknown kinds, of different kinds; a lone kernel."""
FAR_GAP = -2.0
"""A lone kernel where it is asked how far two sequences are alike: beyond it, one name in common is chance."""

LONGEST = 320
"""Kernels of a layer that are laid beside those of another, which may be twice as long."""

Floats = NDArray[np.float64]


class Side(NamedTuple):
    """Kernels to lay beside others: numbers of their names, of their families, and what they do."""

    names: Numbers
    families: Numbers
    kinds: Numbers

    @classmethod
    def of(cls, kernels: Kernels, places: range, longest: int = LONGEST) -> Side:
        """Return the kernels at these places, in this order."""
        at = np.array(places[:longest], np.int64)
        return cls(kernels.symbols[EXACT][at], kernels.symbols[COARSE][at], kernels.kinds[at])


def _worth(a: Side, b: Side) -> Floats:
    """Return what it is worth to pair each of `a` (rows) with each of `b` (columns)."""
    known = (a.kinds[:, None] != Does.OTHER) & (b.kinds[None, :] != Does.OTHER)
    same_kind = a.kinds[:, None] == b.kinds[None, :]
    kinds = np.where(known, np.where(same_kind, KIND, UNLIKE), UNKNOWN)
    families = np.where(a.families[:, None] == b.families[None, :], FAMILY, kinds)
    return np.where(a.names[:, None] == b.names[None, :], SAME, families)


def _table(pairs: Floats, gap: float, free: bool = False) -> Floats:
    """Return the best sums of a global alignment's beginnings, shape (rows + 1, columns + 1) (Needleman and Wunsch).

    `free`: columns ahead of the first pair cost nothing.
    """
    rows, columns = pairs.shape
    steps = gap * np.arange(columns + 1)
    table = np.empty((rows + 1, columns + 1))
    table[0] = 0.0 if free else steps
    for row in range(rows):
        above = table[row]
        best = above + gap
        best[1:] = np.maximum(best[1:], above[:-1] + pairs[row])
        table[row + 1] = np.maximum.accumulate(best - steps) + steps
    return table


def reach(a: Side, b: Side) -> tuple[int, int]:
    """Return how far `a` and `b`, laid side by side from their start, are alike: how many of each belong together."""
    table = _table(_worth(a, b), FAR_GAP)
    i, j = divmod(int(table.argmax()), table.shape[1])
    return i, j


def fit(a: Side, b: Side, longest: bool, free: bool = False) -> tuple[int, float]:
    """Return how many of `b`, from its start, the whole of `a` covers, and the share of `a` that it matches (-1 to 1).

    Of several that are as good, the longest or the shortest. `free`: `a` may begin anywhere in `b`.
    """
    if not len(a.names):
        return 0, 0.0
    last = _table(_worth(a, b), GAP, free)[-1]
    best = np.flatnonzero(last >= last.max() - 1e-9)
    return int(best[-1] if longest else best[0]), float(last.max()) / (SAME * len(a.names))
