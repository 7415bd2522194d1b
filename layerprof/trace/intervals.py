"""Half-open intervals of whole nanoseconds: which one is innermost at a moment, and how much they cover. Pure numpy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

NOWHERE = -1


def innermost(starts: Ints, ends: Ints, order: Ints) -> tuple[Ints, Ints]:
    """Return a step function: from `times[i]` on, `inside[i]` is the innermost interval, or NOWHERE.

    Innermost of those that contain a moment is the one that comes last in `order` (by start, the longer first), so
    intervals may cross. Empty intervals contain nothing.
    """
    live = order[ends[order] > starts[order]]
    ranks = np.arange(len(live))
    times = np.concatenate([ends[live], starts[live]])
    # At one moment ends come before starts, and outer starts before inner ones.
    sequence = np.lexsort((np.r_[ranks, ranks], np.repeat([0, 1], len(live)), times))
    inside = np.fromiter(_tops(np.r_[~ranks, ranks][sequence].tolist()), np.int64, len(sequence))
    times = times[sequence]
    last = np.r_[times[1:] != times[:-1], True] if len(times) else np.zeros(0, bool)
    inside = inside[last]
    return times[last], np.where(inside >= 0, live[inside], NOWHERE)


def _tops(boundaries: Iterable[int]) -> Iterator[int]:
    """Yield what is on top after each boundary: `n` opens interval n, `~n` closes it."""
    stack: list[int] = []
    for boundary in boundaries:
        if boundary >= 0:
            stack.append(boundary)
        elif stack[-1] == ~boundary:
            stack.pop()
        else:
            stack.remove(~boundary)
        yield stack[-1] if stack else NOWHERE


def at(moments: Ints, times: Ints, inside: Ints) -> Ints:
    """Evaluate the step function of `innermost` at each moment."""
    if not len(times):
        return np.full(len(moments), NOWHERE, np.int64)
    position = np.searchsorted(times, moments, side="right") - 1
    return np.where(position >= 0, inside[np.maximum(position, 0)], NOWHERE)


def merged(starts: Ints, ends: Ints) -> tuple[Ints, Ints]:
    """Return the union of intervals as disjoint ones, in order; those that only touch stay apart."""
    if not len(starts):
        return starts, ends
    order = np.argsort(starts, kind="stable")
    starts, reach = starts[order], np.maximum.accumulate(ends[order])
    fresh = np.r_[True, starts[1:] >= reach[:-1]]
    return starts[fresh], reach[np.r_[np.flatnonzero(fresh)[1:] - 1, len(starts) - 1]]


def covered(starts: Ints, ends: Ints) -> int:
    """Return the length of the union of intervals."""
    first, last = merged(starts, ends)
    return int((last - first).sum())
