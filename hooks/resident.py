"""Which layer has which weights: each storage once, under the innermost located layer that owns it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from layerprof.layers.nesting import innermost
from layerprof.machine import stored
from layerprof.machine.internals import storage_key
from layerprof.machine.modules import named
from layerprof.machine.tensors import has_storage
from layerprof.readings import Layer

ELSEWHERE = ""
"""Stands for the owner of weights that no located layer has."""


def by_layer(model: nn.Module, layers: Sequence[Layer]) -> tuple[dict[str, list[Tensor]], dict[str, str]]:
    """Return what the weights of each located layer, and of `ELSEWHERE`, are stored as; and what is tied to what.

    A storage that several have is the first's, in the order of the model's tree; the others are tied to that one. A
    quantised weight is given as the tensors that it lies in: codes, scales, zero points.
    """
    located = {layer.name for layer in layers}
    owned: dict[str, list[Tensor]] = {name: [] for name in (*(layer.name for layer in layers), ELSEWHERE)}
    owners: dict[int, str] = {}
    tied: dict[str, str] = {}
    for path, module in named(model).items():
        owner = innermost(path, located)
        held = [tensor for weight in stored.of_module(module) for tensor in weight.tensors]
        for part in filter(has_storage, held):
            first = owners.setdefault(storage_key(part), owner)
            if first == owner:
                owned[owner].append(part)
            elif owner != ELSEWHERE:
                tied.setdefault(owner, first)
    return owned, tied


def packed_by_layer(model: nn.Module, layers: Sequence[Layer]) -> dict[str, int]:
    """Return the bytes of matrices in objects of C++, which are no tensors, by located layer and `ELSEWHERE`."""
    located = {layer.name for layer in layers}
    found: dict[str, int] = {}
    for path, module in model.named_modules():
        size = sum(weight.packed for weight in stored.of_module(module))
        if size:
            owner = innermost(path, located)
            found[owner] = found.get(owner, 0) + size
    return found
