"""Where one pass over a stack of layers ends and the next begins, when nothing else breaks the chain. Pure, numpy.

A diffusion model runs its layers once a step, and between steps hardly more than a norm, two projections and a
scheduler. What merges features between some layers, or a layer of another kind, looks alike. Work is that between
passes when it stands periodically in more than a layer's segment, begins as what follows the last layer and ends as
what precedes the first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from layerprof.trace.inference.kernel_sequence import NUMBERLESS, Kernels, Numbers
from layerprof.trace.kernel_names import Does

LEAST_LAYERS = 3
"""Layers of a pass: pairs of them are rather a layer of two parts."""
_ONE_SIDED = 4
"""Passes that must end where the sequence shows only what precedes the layers, or only what follows them."""
_OFTENER = 2
"""How much oftener than the work between passes a layer's own segment comes."""
_DISTINCT = 64
"""Different segments between anchors that are looked at."""
_MATRIX = (Does.GEMM, Does.EXPERTS, Does.CONVOLUTION, Does.EMBEDDING)


def passes(kernels: Kernels, anchors: Numbers, low: int, high: int) -> list[Numbers]:
    """Return the anchors of each pass; all of them together where nothing tells that there are several.

    `low` and `high` are the places between which nothing is known but the anchors.
    """
    if len(anchors) >= 2 * LEAST_LAYERS:
        for ends in _ends(kernels, anchors, low, high):
            if _periodic(ends, len(anchors)):
                return [part for part in np.split(anchors, ends + 1) if len(part) >= LEAST_LAYERS]
    return [anchors]


def _periodic(ends: Numbers, layers: int) -> bool:
    """Return whether passes have as many layers; the first and last may have fewer where others show how many."""
    bounds = np.diff(np.r_[-1, ends, layers - 1])
    most = int(bounds.max())
    whole = bounds[1:-1] if len(ends) > 1 else bounds
    return len(ends) > 0 and most >= LEAST_LAYERS and bool((whole == most).all())


def _ends(kernels: Kernels, anchors: Numbers, low: int, high: int) -> Iterator[Numbers]:
    """Yield the segments, from one anchor to the next, in which a pass may end: all such, then those that are equal."""
    symbols = kernels.symbols[NUMBERLESS]
    lasting = ~kernels.are(Does.COPY, Does.FILL)

    def between(start: int, end: int) -> Numbers:
        return symbols[start:end][lasting[start:end]]

    texts = [between(a + 1, b + 1).tobytes() for a, b in pairwise(anchors.tolist())]
    often = Counter(texts)
    if len(often) == 1:
        return
    longest = 2 * max(map(len, texts)) // symbols.itemsize
    first, last = int(anchors[0]), int(anchors[-1])
    before, after = between(max(low, first + 1 - longest), first + 1), between(last + 1, min(high, last + longest))
    matrix = set(np.unique(symbols[kernels.are(*_MATRIX)]).tolist())
    segments = {text: np.frombuffer(text, symbols.dtype) for text, _ in often.most_common(_DISTINCT)}
    ending = []
    for text, segment in segments.items():
        own = [other for key, other in segments.items() if often[key] >= _OFTENER * often[text]]
        if _joins(segment, own, (before, after), matrix, often[text]):
            ending.append(text)
    for together in [ending, *([text] for text in ending)]:
        yield np.array([number for number, text in enumerate(texts) if text in together], np.int64)


def _joins(
    segment: Numbers, own: Sequence[Numbers], beside: tuple[Numbers, Numbers], matrix: set[int], times: int
) -> bool:
    """Return whether a segment holds the end of a pass and the beginning of the next, and not just a layer's own.

    `own` are segments of layers, `beside` what precedes the first anchor, with it, and what follows the last. What a
    layer has at its begin and end explains some of the segment; the rest does matrix work, and what follows the last
    anchor and what precedes the first explain half of that together, and neither alone: all of it where it stands there
    once, and matrix work of it where one of them is not in the sequence.
    """
    if not own:
        return False
    start = max(_common(segment, other) for other in own)
    stop = len(segment) - max(_common(segment[::-1], other[::-1]) for other in own)
    if start >= stop or not matrix.intersection(segment[start:stop].tolist()):
        return False
    till = _common(segment, beside[1])
    since = len(segment) - _common(segment[::-1], beside[0][::-1])
    if start < till < stop and start < since < stop:
        return since <= till if times == 1 else (till - start) + (stop - since) >= (stop - start) / 2
    shown = segment[start:till] if till > start else segment[since:stop]
    return times >= _ONE_SIDED and 2 <= len(shown) < stop - start and bool(matrix.intersection(shown.tolist()))


def _common(one: Numbers, other: Numbers) -> int:
    """Return how many kernels two sequences have in common from their start."""
    length = min(len(one), len(other))
    unlike = np.flatnonzero(one[:length] != other[:length])
    return int(unlike[0]) if len(unlike) else length
