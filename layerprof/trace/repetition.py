"""Layers in a sequence of kernels that carry no module names: what repeats N times is N layers. Pure, numpy.

A CUDA graph or compiled code runs kernels without a range around them. Their names still say much: `find` looks for one
kernel a layer (layer_anchors.py), then for the place where each layer begins (layer_cuts.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from layerprof.trace.kernel_names import Does
from layerprof.trace.kernel_sequence import COARSE, Kernels, Numbers
from layerprof.trace.layer_anchors import Chains, best
from layerprof.trace.layer_cuts import Cuts, cut

_WORTH_ANOTHER_LOOK = 24
"""Kernels beside a stack that may hold another one."""
_DEEPEST = 4
_LEAST_SHARE = 0.1
"""Share of the sequence's time, or of its kernels, that layers must have together."""


@dataclass(frozen=True, slots=True)
class Layers:
    """One stack of layers in a sequence: layer i is kernels starts[i] .. starts[i+1]-1, the last ends before `end`.

    `kinds` numbers layers that run the same kernels, 0 for the first seen. `spread` is the median of |t - median of its
    kind| / median of its kind, None where no kernel took time. `evidence` says what the boundaries rest on, `template`
    which template the layers are like.
    """

    starts: tuple[int, ...]
    end: int
    kinds: tuple[int, ...]
    spread: float | None
    evidence: tuple[str, ...]
    template: int | None = None


@dataclass(frozen=True, slots=True)
class Template:
    """Kernels of one layer that ran elsewhere with a module's range around it.

    `name` is its class, `instances` how many distinct instances of it ran in a row.
    """

    name: str
    kernels: tuple[str, ...]
    instances: int


def find(names: Sequence[str], ns: Sequence[int], templates: Sequence[Template] = ()) -> tuple[Layers, ...]:
    """Return the stacks of layers among kernels in the order in which they ran, () where nothing repeats like layers.

    Stacks are disjoint and in order: a vision tower's and a decoder's, or one a step where several steps are given.
    """
    kernels = Kernels.of(names, ns)
    found = _search(kernels, 0, len(kernels), 0)
    inside = sum(layers.end - layers.starts[0] for layers in found)
    took = sum(int(kernels.ns[layers.starts[0] : layers.end].sum()) for layers in found)
    enough = inside >= _LEAST_SHARE * len(kernels) or took > _LEAST_SHARE * int(kernels.ns.sum())
    return tuple(found) if enough else ()


def _search(kernels: Kernels, low: int, high: int, depth: int) -> list[Layers]:
    """Return the stacks between two places: those that explain most, then what stands beside them."""
    part = kernels.part(low, high)
    chains = best(part) if len(part) else None
    if chains is None:
        return []
    found: list[Layers] = []
    edges = [-1, *(int(anchors[-1]) for anchors in chains.anchors)]
    after = [*(int(anchors[0]) for anchors in chains.anchors[1:]), len(part)]
    place = 0
    for anchors, edge, limit in zip(chains.anchors, edges, after, strict=False):
        layers = _layers(part, chains, anchors, cut(part, anchors, max(edge + 1, place), limit))
        if depth < _DEEPEST and layers.starts[0] - place >= _WORTH_ANOTHER_LOOK:
            found += [_moved(other, low) for other in _search(part, place, layers.starts[0], depth + 1)]
        found.append(_moved(layers, low))
        place = layers.end
    if depth < _DEEPEST and len(part) - place >= _WORTH_ANOTHER_LOOK:
        found += [_moved(other, low) for other in _search(part, place, len(part), depth + 1)]
    return found


def _moved(layers: Layers, by: int) -> Layers:
    starts = tuple(start + by for start in layers.starts)
    return Layers(starts, layers.end + by, layers.kinds, layers.spread, layers.evidence, layers.template)


def _layers(kernels: Kernels, chains: Chains, anchors: Numbers, cuts: Cuts) -> Layers:
    """Return a stack with its kinds, its spread and its evidence."""
    bounds = np.append(cuts.starts, cuts.end)
    kinds = _kinds(kernels, bounds)
    return Layers(tuple(cuts.starts.tolist()), cuts.end, kinds, _spread(kernels, bounds, kinds), (chains.why, cuts.why))


def _kinds(kernels: Kernels, bounds: Numbers) -> tuple[int, ...]:
    """Return numbers of layers by what they run, apart from copies, fills, and kernels that hardly any layer has."""
    start, end = int(bounds[0]), int(bounds[-1])
    symbols = kernels.symbols[COARSE][start:end]
    lengths = np.diff(bounds)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    counted = ~kernels.are(Does.COPY, Does.FILL)[start:end]
    pairs = np.unique(owner[counted] * (int(symbols.max()) + 1) + symbols[counted], return_counts=True)
    layer, symbol = np.divmod(pairs[0], int(symbols.max()) + 1)
    usual = np.bincount(symbol)[symbol] >= max(2, len(lengths) // 10)
    signs: list[list[tuple[int, int]]] = [[] for _ in lengths]
    for which, what, amount in zip(
        layer[usual].tolist(), symbol[usual].tolist(), pairs[1][usual].tolist(), strict=True
    ):
        signs[which].append((what, amount))
    return _grouped([tuple(sign) for sign in signs])


def _grouped(signs: list[tuple[tuple[int, int], ...]]) -> tuple[int, ...]:
    """Return numbers of signs by first appearance; one that a single layer has joins its like if it hardly differs."""
    often = Counter(signs)
    if len(signs) > 2:
        for sign in [sign for sign, count in often.items() if count == 1]:
            like = max((other for other in often if other != sign), key=lambda other: _alike(sign, other), default=sign)
            if often[like] > 1 and _alike(sign, like) > 0.8:
                signs = [like if one == sign else one for one in signs]
    numbers: dict[tuple[tuple[int, int], ...], int] = {}
    return tuple(numbers.setdefault(sign, len(numbers)) for sign in signs)


def _alike(a: tuple[tuple[int, int], ...], b: tuple[tuple[int, int], ...]) -> float:
    one, other = Counter(dict(a)), Counter(dict(b))
    return (one & other).total() / max(one.total(), other.total(), 1)


def _spread(kernels: Kernels, bounds: Numbers, kinds: tuple[int, ...]) -> float | None:
    """Return the median deviation of a layer's time from the median of its kind, as a share of it."""
    sums = np.append(0, np.cumsum(kernels.ns))
    took = (sums[bounds[1:]] - sums[bounds[:-1]]).astype(np.float64)
    kind = np.array(kinds)
    medians = np.array([np.median(took[kind == number]) for number in range(int(kind.max()) + 1)])[kind]
    if not medians.all():
        return None
    return float(np.median(np.abs(took - medians) / medians))
