"""Where each layer begins, given one kernel of each. Pure, numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from layerprof.trace.alignment import fit, reach
from layerprof.trace.kernel_names import Does
from layerprof.trace.kernel_sequence import COARSE, Kernels, Numbers
from layerprof.trace.layer_anchors import LONGEST

_FEED_FORWARD = (Does.ACTIVATION, Does.EXPERTS)
_NORMS = (Does.NORM, Does.NORM_PART)
_BEFORE_RSQRT = (Does.REDUCE, Does.ELEMENTWISE, Does.COPY)
"""Steps of a norm that runs as several kernels, ahead of its `rsqrt`: to float, square, mean, add epsilon."""

_ALIGNED = 512
"""Different segments that are laid beside a typical one; where there are more, cuts keep its distance."""


@dataclass(frozen=True, slots=True)
class Cuts:
    """Layer i is kernels starts[i] .. starts[i+1]-1, the last ends before `end`."""

    starts: Numbers
    end: int
    why: str


def cut(kernels: Kernels, anchors: Numbers, low: int, high: int, rotation: int | None = None) -> Cuts:
    """Return the layers around the anchors, between `low` and `high`. `rotation`: cut that far ahead of each anchor."""
    back, why = _distances(kernels, anchors)
    if rotation is not None:
        back, why = np.full(len(anchors) - 1, rotation), "template"
    elif (back >= 0).mean() < 0.6:
        back = np.full(len(anchors) - 1, -1)
        back[0], why = _earliest(kernels, anchors, low, high), "earliest start"
    back = _same_place(kernels, anchors, back)
    starts = anchors[1:] - back
    return Cuts(np.append(_first(kernels, anchors, starts, low), starts), _end(kernels, anchors, starts, high), why)


def _distances(kernels: Kernels, anchors: Numbers) -> tuple[Numbers, str]:
    """Return how far ahead of each anchor but the first the norm of its layer stands, -1 where no name tells."""
    seen: dict[bytes, int] = {}
    back = np.empty(len(anchors) - 1, np.int64)
    begin = int(anchors[0])
    kinds = kernels.kinds[begin : int(anchors[-1]) + 1].astype(np.int8).tobytes()
    for place, (before, anchor) in enumerate(zip(anchors.tolist(), anchors[1:].tolist(), strict=False)):
        gap = kinds[before + 1 - begin : anchor + 1 - begin]
        if gap not in seen:
            seen[gap] = _norm_ahead(gap)
        back[place] = seen[gap]
    return back, "cut before the norm ahead of attention"


def _norm_ahead(kinds: bytes) -> int:
    """Return how far ahead of its end a layer's first norm stands, -1 for none.

    `kinds` run from after one layer's attention to the next one's. The feed-forward part ends with its last activation
    or expert kernel; of the norms behind it, the last that no projection separates from the first.
    """
    fed = max((place for place, kind in enumerate(kinds) if kind in _FEED_FORWARD), default=-1)
    norms = [place for place in range(fed + 1, len(kinds)) if kinds[place] in _NORMS]
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


def _earliest(kernels: Kernels, anchors: Numbers, low: int, high: int) -> int:
    """Return how far ahead of its anchor a layer begins if the first layer begins as early as it can.

    As far as what precedes the first anchor is like what precedes the second; where first and last layer together are
    then short of a few kernels, the first layer lacks them or has others in their place.
    """
    period = int(anchors[1] - anchors[0])
    ahead = _reach(kernels, range(int(anchors[1]), int(anchors[0]), -1), range(int(anchors[0]), low - 1, -1))
    behind = _reach(kernels, range(int(anchors[-2]) + 1, int(anchors[-1]) + 1), range(int(anchors[-1]) + 1, high))
    short = period - ahead - behind
    if 0 < short <= max(1, period // 8):
        ahead += short
    return min(max(ahead - 1, 0), period - 1)


def _reach(kernels: Kernels, typical: range, actual: range) -> int:
    a, b = np.array(typical[:LONGEST], np.int64), np.array(actual[: 2 * LONGEST], np.int64)
    symbols = kernels.symbols[COARSE]
    return reach(symbols[a], symbols[b], kernels.kinds[a], kernels.kinds[b])[0]


def _fit(kernels: Kernels, typical: range, actual: range, longest: bool) -> tuple[int, float]:
    a, b = np.array(typical[:LONGEST], np.int64), np.array(actual[: 2 * LONGEST], np.int64)
    symbols = kernels.symbols[COARSE]
    return fit(symbols[a], symbols[b], kernels.kinds[a], kernels.kinds[b], longest)


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
