"""Layers in a sequence of kernels that carry no module names: what repeats N times is N layers. Pure, numpy.

A CUDA graph or compiled code runs kernels without a range around them. Their names still say much: `find` looks for one
kernel a layer (layer_anchors.py), then for the place where each layer begins (layer_cuts.py), which a layer that ran
with a range elsewhere may tell (layer_templates.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from layerprof.trace.inference.kernel_sequence import Kernels, Numbers
from layerprof.trace.inference.layer_anchors import Chains, best, mixer
from layerprof.trace.inference.layer_cuts import cut
from layerprof.trace.inference.layer_doubts import certain, is_flushed, is_loop
from layerprof.trace.inference.layer_kinds import kinds, spread
from layerprof.trace.inference.layer_passes import passes
from layerprof.trace.inference.layer_templates import Template, match
from layerprof.trace.kernel_names import Does

__all__ = ["Layers", "Template", "find"]

BACKWARD = "of the backward pass, which begins with the last layer"
"""Evidence of a stack that goes from its last layer to its first."""
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


def find(
    names: Sequence[str], ns: Sequence[int], templates: Sequence[Template] = (), *, in_graph: bool = False
) -> tuple[Layers, ...]:
    """Return the stacks of layers among kernels in the order in which they ran, () where nothing repeats like layers.

    Stacks are disjoint and in order: a vision tower's and a decoder's, or one a step where several steps are given.
    `in_graph`: a replay ran the kernels, so they are a model's or a part of one even where all rounds are the same and
    nothing stands beside them; otherwise that is a benchmark, which has no layers.
    """
    kernels = Kernels.of(names, ns)
    found = _certain(kernels, _search(kernels, (0, len(kernels)), templates, 0), in_graph)
    inside = sum(layers.end - layers.starts[0] for layers in found)
    took = sum(int(kernels.ns[layers.starts[0] : layers.end].sum()) for layers in found)
    enough = inside >= _LEAST_SHARE * len(kernels) or took > _LEAST_SHARE * int(kernels.ns.sum())
    return tuple(found) if enough else ()


def _certain(kernels: Kernels, found: list[Layers], in_graph: bool) -> list[Layers]:
    """Return the stacks of which nothing speaks against their being a model's layers, each counted right."""
    bounds = [np.array([*layers.starts, layers.end]) for layers in found]
    if not found or (not in_graph and is_loop(kernels, bounds, not any(found[0].kinds))):
        return []
    kept = certain(kernels, bounds)
    return [
        layers for layers, ends, keep in zip(found, bounds, kept, strict=True) if keep and not is_flushed(kernels, ends)
    ]


def _search(kernels: Kernels, ends: tuple[int, int], templates: Sequence[Template], depth: int) -> list[Layers]:
    """Return the stacks between two places: those that explain most, then what stands beside them."""
    low, high = ends
    if depth > _DEEPEST or high - low < _WORTH_ANOTHER_LOOK * bool(depth):
        return []
    part = kernels.part(low, high)
    chains = best(part) if len(part) else None
    if chains is None:
        return []
    found: list[Layers] = []
    place = low
    limits = [*(int(anchors[0]) + low for anchors in chains.anchors[1:]), high]
    for chain, end in zip(chains.anchors, limits, strict=True):
        each = passes(kernels, chain + low, place, end)
        for number, anchors in enumerate(each):
            limit = int(each[number + 1][0]) if number + 1 < len(each) else end
            layers = _layers(kernels, chains, anchors, (place, limit), templates)
            found += _search(kernels, (place, layers.starts[0]), templates, depth + 1)
            found.append(layers)
            place = layers.end
    return found + _search(kernels, (place, high), templates, depth + 1)


def _layers(
    kernels: Kernels, chains: Chains, anchors: Numbers, ends: tuple[int, int], templates: Sequence[Template]
) -> Layers:
    """Return the stack around anchors, between two places, with its kinds, its spread and its evidence."""
    like = match(kernels, anchors, templates)
    cuts = cut(kernels, anchors, *ends, chains.named, like and like[1])
    bounds = np.append(cuts.starts, cuts.end)
    kind = kinds(kernels, bounds)
    evidence = [
        chains.why.format(mixer(kernels, anchors)),
        cuts.why if like is None else f"cut as the eager layer {templates[like[0]].name}",
    ]
    if kernels.part(int(bounds[0]), int(bounds[-1])).are(Does.BACKWARD).any():
        evidence.append(BACKWARD)
    took = spread(kernels.ns, bounds, kind)
    return Layers(tuple(cuts.starts.tolist()), cuts.end, kind, took, tuple(evidence), like and like[0])
