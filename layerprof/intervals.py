"""Half-open intervals of whole nanoseconds: which one is innermost at a moment, and how much they cover. Pure numpy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

NOWHERE = -1


def innermost(starts: Ints, ends: Ints, order: Sequence[int]) -> tuple[Ints, Ints]:
    """Return a step function: from `times[i]` on, `inside[i]` is the innermost interval, or NOWHERE.

    Innermost of those that contain a moment is the one that comes last in `order` (by start, the longer first), so
    intervals may cross. Empty intervals contain nothing.
    """
    live = [i for i in order if ends[i] > starts[i]]
    rank = {i: position for position, i in enumerate(live)}
    boundaries = sorted([(int(starts[i]), 1, rank[i], i) for i in live] + [(int(ends[i]), 0, rank[i], i) for i in live])
    times: list[int] = []
    inside: list[int] = []
    stack: list[int] = []
    for time, opens, _, i in boundaries:
        if opens:
            stack.append(i)
        elif stack[-1] == i:
            stack.pop()
        else:
            stack.remove(i)
        top = stack[-1] if stack else NOWHERE
        if times and times[-1] == time:
            inside[-1] = top
        else:
            times.append(time)
            inside.append(top)
    return np.array(times, np.int64), np.array(inside, np.int64)


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
