"""Two sequences laid side by side: which element of one is which of the other. Pure numpy.

The shortest way from one to the other by leaving out elements, after E. W. Myers, "An O(ND) Difference Algorithm and
Its Variations" (Algorithmica 1, 1986): what is the same at both ends costs nothing, and the rest grows with the number
of differences, not with the product of the lengths.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from layerprof.trace.intervals import Ints

NOTHING = -1
"""Stands for an element that has no partner."""

MOST_DIFFERENCES = 600
"""Sequences that differ in more elements than this are not the same graph."""


def partners(a: Ints, b: Ints) -> Ints:
    """Return for each element of `a` the position of its partner in `b`, NOTHING for none.

    Partners are equal, and their order is the same in both; sequences that differ too much have none.
    """
    result = np.full(len(a), NOTHING, np.int64)
    at = _place_of(a, b)
    if at >= 0:
        return np.arange(at, at + len(a), dtype=np.int64)
    head = _alike(a, b)
    tail = _alike(a[head:][::-1], b[head:][::-1])
    result[:head] = np.arange(head)
    if tail:
        result[len(a) - tail :] = np.arange(len(b) - tail, len(b))
    between = _shortest(a[head : len(a) - tail].tolist(), b[head : len(b) - tail].tolist())
    if between is None:
        return np.full(len(a), NOTHING, np.int64)
    for here, there in between:
        result[head + here] = head + there
    return result


def exchanged(result: Ints, length: int, fits: Callable[[Ints, Ints], bool]) -> Ints:
    """Lay stretches without partners on each other, where both are as long, between the same partners, and fit.

    `length` is that of the other sequence.
    """
    known = np.flatnonzero(result != NOTHING)
    if not len(known):
        return result
    filled = result.copy()
    edges_a = np.r_[-1, known, len(result)]
    edges_b = np.r_[-1, result[known], length]
    for gap in np.flatnonzero((np.diff(edges_a) > 1) & (np.diff(edges_a) == np.diff(edges_b))).tolist():
        here = np.arange(edges_a[gap] + 1, edges_a[gap + 1])
        there = np.arange(edges_b[gap] + 1, edges_b[gap + 1])
        if fits(here, there):
            filled[here] = there
    return filled


def _place_of(a: Ints, b: Ints) -> int:
    """Return where `a` stands in `b` as it is; -1 where it does not, or not once only."""
    if not len(a) or len(a) > len(b):
        return -1
    here, there = a.astype(np.int64).tobytes(), b.astype(np.int64).tobytes()
    places: list[int] = []
    at = there.find(here)
    while at >= 0 and len(places) < 2:
        if at % 8 == 0:
            places.append(at // 8)
        at = there.find(here, at + 1)
    return places[0] if len(places) == 1 else -1


def _alike(a: Ints, b: Ints) -> int:
    """Return how many elements the two have in common at their beginnings."""
    most = min(len(a), len(b))
    differs = np.flatnonzero(a[:most] != b[:most])
    return int(differs[0]) if len(differs) else most


def _shortest(a: list[int], b: list[int]) -> list[tuple[int, int]] | None:
    """Return the pairs of the shortest way from `a` to `b`; None where it has too many differences."""
    reach = {1: 0}
    trail: list[dict[int, int]] = []
    for differences in range(min(len(a) + len(b), MOST_DIFFERENCES) + 1):
        trail.append(dict(reach))
        for k in range(-differences, differences + 1, 2):
            down = k == -differences or (k != differences and reach[k - 1] < reach[k + 1])
            x = reach[k + 1] if down else reach[k - 1] + 1
            while x < len(a) and x - k < len(b) and a[x] == b[x - k]:
                x += 1
            reach[k] = x
            if x >= len(a) and x - k >= len(b):
                return _walked(trail, len(a), len(b))
    return None


def _walked(trail: list[dict[int, int]], x: int, y: int) -> list[tuple[int, int]]:
    """Return the pairs on the way that led to (x, y), from the farthest points reached with each number of steps."""
    pairs = []
    for differences in range(len(trail) - 1, -1, -1):
        reach, k = trail[differences], x - y
        down = k == -differences or (k != differences and reach[k - 1] < reach[k + 1])
        before = k + 1 if down else k - 1
        start = reach[before]
        while x > (start if down else start + 1):
            pairs.append((x - 1, y - 1))
            x, y = x - 1, y - 1
        if differences:
            x, y = start, start - before
    return pairs[::-1]
