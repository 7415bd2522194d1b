"""Where each layer begins, given one kernel of each. Pure, numpy."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from layerprof.trace.inference.alignment import LONGEST, Side, fit, reach
from layerprof.trace.inference.kernel_sequence import COARSE, Kernels, Numbers
from layerprof.trace.kernel_names import Does

_FEED_FORWARD = (Does.ACTIVATION, Does.EXPERTS)
_NORMS = (Does.NORM, Does.NORM_PART)
_BEFORE_RSQRT = (Does.REDUCE, Does.ELEMENTWISE, Does.COPY)
"""Steps of a norm that runs as several kernels, ahead of its `rsqrt`: to float, square, mean, add epsilon."""

_MAY_BE_NORM = (Does.OTHER, Does.NORM, Does.NORM_PART, Does.REDUCE, Does.COMMUNICATION)

LEAST = 3
"""Layers that are left whatever the first and last one are like."""
_STRANGE = 0.3
NORM_AHEAD = "cut before the norm ahead of attention"
EARLIEST = "cut where the first layer begins earliest"

_ALIGNED = 512
"""Different segments that are laid beside a typical one; where there are more, cuts keep its distance."""


@dataclass(frozen=True, slots=True)
class Cuts:
    """Layer i is kernels starts[i] .. starts[i+1]-1, the last ends before `end`."""

    starts: Numbers
    end: int
    why: str


def cut(
    kernels: Kernels, anchors: Numbers, low: int, high: int, named: bool = True, rotation: int | None = None
) -> Cuts:
    """Return the layers around the anchors, between `low` and `high`.

    `named`: the anchors are each layer's attention. `rotation`: layers are known to begin that far ahead of an anchor.
    """
    back, why = _distances(kernels, anchors, named), NORM_AHEAD
    edges = _edges(kernels, anchors, low, high)
    if rotation is not None:
        back, why = _only(len(back), rotation), ""
    elif (back >= 0).mean() < 0.6 or edges.contradict(int(np.median(back[back >= 0]))):
        back, why = _only(len(back), edges.earliest()), EARLIEST
    back = _same_place(kernels, anchors, back)
    starts = anchors[1:] - back
    first, end = _first(kernels, anchors, starts, low), _end(kernels, anchors, starts, high)
    return Cuts(*_trimmed(kernels, np.append(first, starts), end), why)


def _trimmed(kernels: Kernels, starts: Numbers, end: int) -> tuple[Numbers, int]:
    """Return the layers without a first or last one that has hardly anything in common with the two beside it."""
    bounds = np.append(starts, end)
    if len(starts) > LEAST and _strange(kernels, bounds[-2:], bounds[-4:-2], bounds[-3:-1]):
        bounds = bounds[:-1]
    if len(bounds) - 1 > LEAST and _strange(kernels, bounds[:2], bounds[1:3], bounds[2:4]):
        bounds = bounds[1:]
    return bounds[:-1], int(bounds[-1])


def _strange(kernels: Kernels, one: Numbers, *others: Numbers) -> bool:
    counts = [Counter(kernels.symbols[COARSE][start:end].tolist()) for start, end in (one, *others)]
    return all((counts[0] & count).total() < _STRANGE * count.total() for count in counts[1:])


def _only(count: int, first: int) -> Numbers:
    back = np.full(count, -1)
    back[0] = first
    return back


@dataclass(frozen=True, slots=True)
class _Edges:
    """How many kernels up to the first anchor, and from the last one on, are like those of a layer in the middle.

    `period` is how far anchors are apart. `cut_off`: the sequence ends before they differ. `before` is what the kernel
    does that is the last to differ ahead of the first layer.
    """

    period: int
    ahead: int
    behind: int
    cut_off: bool
    before: int

    def earliest(self) -> int:
        """Return how far ahead of its anchor a layer begins if the first one begins as early as it can.

        Where first and last layer together are then short of a few kernels, the first lacks them or has others there.
        """
        short = self.period - self.ahead - self.behind
        ahead = self.ahead + (short if 0 < short <= max(1, self.period // 8) else 0)
        return min(max(ahead - 1, 0), self.period - 1)

    def contradict(self, back: int) -> bool:
        """Return whether layers that begin at the norm would leave the first or last one short, and others would not.

        So it is with a norm after attention and feed-forward part, and with work ahead of the first norm. A first norm
        that is another kernel than the rest, by its name possibly a norm, contradicts nothing.
        """
        if self.cut_off or self.before in _MAY_BE_NORM:
            return False
        short = max(0, back + 1 - self.ahead) + max(0, self.period - back - 1 - self.behind)
        return short > 0 and self.ahead + self.behind >= self.period


def _edges(kernels: Kernels, anchors: Numbers, low: int, high: int) -> _Edges:
    first, second, last, next_to_last = (int(anchors[place]) for place in (0, 1, -1, -2))
    ahead, used = _reach(kernels, range(second, first, -1), range(first, low - 1, -1))
    behind, used_behind = _reach(kernels, range(next_to_last + 1, last + 1), range(last + 1, high))
    cut_off = used > first - low or used_behind >= high - last - 1
    return _Edges(second - first, ahead, behind, cut_off, int(kernels.kinds[first - used]) if used <= first else 0)


def _distances(kernels: Kernels, anchors: Numbers, named: bool) -> Numbers:
    """Return how far ahead of each anchor but the first the norm of its layer stands, -1 where no name tells."""
    seen: dict[bytes, int] = {}
    back = np.empty(len(anchors) - 1, np.int64)
    begin = int(anchors[0])
    kinds = kernels.kinds[begin : int(anchors[-1]) + 1].astype(np.int8).tobytes()
    for place, (before, anchor) in enumerate(zip(anchors.tolist(), anchors[1:].tolist(), strict=False)):
        gap = kinds[before + 1 - begin : anchor + 1 - begin]
        if gap not in seen:
            seen[gap] = _norm_ahead(gap, named)
        back[place] = seen[gap]
    return back


def _norm_ahead(kinds: bytes, named: bool) -> int:
    """Return how far ahead of its end a layer's first norm stands, -1 for none.

    `kinds` run from after one layer's attention to the next one's. The feed-forward part ends with its last activation
    or expert kernel; of the norms behind it, the last that no projection separates from the first.
    """
    fed = max((place for place, kind in enumerate(kinds) if kind in _FEED_FORWARD), default=-1)
    norms = [place for place in range(fed + 1, len(kinds)) if kinds[place] in _NORMS]
    if fed < 0 and not named:
        return -1
    if fed < 0:
        last_projection = max((place for place, kind in enumerate(kinds) if kind == Does.GEMM), default=-1)
        norms = [place for place in norms if place < last_projection][-1:]
    if not norms:
        return -1
    found = norms[0]
    for norm in norms[1:]:
        if Does.GEMM in kinds[found:norm]:
            break
        found = norm
    if kinds[found] == Does.NORM_PART:
        while found > 0 and kinds[found - 1] in _BEFORE_RSQRT:
            found -= 1
    return len(kinds) - 1 - found


def _reach(kernels: Kernels, typical: range, actual: range) -> tuple[int, int]:
    return reach(Side.of(kernels, typical), Side.of(kernels, actual, 2 * LONGEST))


def _fit(kernels: Kernels, typical: range, actual: range, longest: bool) -> tuple[int, float]:
    return fit(Side.of(kernels, typical), Side.of(kernels, actual, 2 * LONGEST), longest)


def _same_place(kernels: Kernels, anchors: Numbers, back: Numbers) -> Numbers:
    """Return the distances with those that are unknown (-1) put where the commonest known one stands in its segment."""
    known = np.flatnonzero(back >= 0)
    usual = int(np.bincount(back[known]).argmax())
    model = int(known[back[known] == usual][0])
    typical = range(int(anchors[model + 1]), int(anchors[model + 1]) - usual - 1, -1)
    seen: dict[bytes, int] = {}
    symbols = kernels.symbols[COARSE]
    back = back.copy()
    for place in np.flatnonzero(back < 0).tolist():
        before, anchor = int(anchors[place]), int(anchors[place + 1])
        gap = symbols[before + 1 : anchor + 1].tobytes()
        if gap not in seen and len(seen) < _ALIGNED:
            seen[gap] = _fit(kernels, typical, range(anchor, before, -1), longest=True)[0] - 1
        back[place] = min(max(seen.get(gap, usual), 0), anchor - before - 1)
    return back


def _first(kernels: Kernels, anchors: Numbers, starts: Numbers, low: int) -> int:
    """Return where the first layer begins: as much ahead of its anchor as is like the beginning of one that follows."""
    anchor, found = int(anchors[0]), []
    for place in range(min(3, len(starts))):
        typical = range(int(anchors[place + 1]), int(starts[place]) - 1, -1)
        taken, alike = _fit(
            kernels, typical, range(anchor, max(low, anchor - 2 * len(typical) - 16) - 1, -1), longest=True
        )
        found.append((alike, -place, anchor + 1 - max(taken, 1)))
    return max(found)[2]


def _end(kernels: Kernels, anchors: Numbers, starts: Numbers, high: int) -> int:
    """Return where the last layer ends: as much behind its anchor as is like the end of one ahead of it."""
    anchor, found = int(anchors[-1]), []
    for place in range(1, min(3, len(starts)) + 1):
        typical = range(int(anchors[-1 - place]) + 1, int(starts[-place]))
        taken, alike = _fit(
            kernels, typical, range(anchor + 1, min(high, anchor + 2 * len(typical) + 17)), longest=False
        )
        found.append((alike, -place, anchor + 1 + taken))
    return max(found)[2]
