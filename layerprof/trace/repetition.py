"""Layers in a sequence of kernels that carry no module names: what repeats N times is N layers. Pure, numpy.

A CUDA graph or compiled code runs kernels without a range around them. Their names still say much: `find` looks for one
kernel a layer (layer_anchors.py), then for the place where each layer begins (layer_cuts.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from layerprof.trace.kernel_sequence import Kernels
from layerprof.trace.layer_anchors import Chains, best
from layerprof.trace.layer_cuts import Cuts, cut
from layerprof.trace.layer_kinds import kinds, spread

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
        layers = _layers(part, chains, cut(part, anchors, max(edge + 1, place), limit))
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


def _layers(kernels: Kernels, chains: Chains, cuts: Cuts) -> Layers:
    """Return a stack with its kinds, its spread and its evidence."""
    bounds = np.append(cuts.starts, cuts.end)
    kind = kinds(kernels, bounds)
    return Layers(tuple(cuts.starts.tolist()), cuts.end, kind, spread(kernels.ns, bounds, kind), (chains.why, cuts.why))
