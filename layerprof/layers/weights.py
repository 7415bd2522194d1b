"""A live model's layers -> what their weights are stored as."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from layerprof.layers.nesting import innermost
from layerprof.machine import stored
from layerprof.machine.modules import named
from layerprof.readings import Layer, WeightReading

if TYPE_CHECKING:
    from torch import nn


def read(model: nn.Module, layers: Sequence[Layer]) -> WeightReading:
    """Return the formats of each layer's weights, and which weights cannot be looked into."""
    modules = named(model)
    held = {layer.name: modules[layer.name] for layer in layers if layer.name in modules}
    formats = {name: stored.format_of(module) for name, module in held.items()}
    inside = {name: stored.unseen(module) for name, module in held.items()}
    return WeightReading(
        formats={name: found for name, found in formats.items() if found},
        unseen=_unseen(model, {layer.name for layer in layers if layer.found}),
        unseen_inside={name: found for name, found in inside.items() if found},
        parameters=stored.size(model),
    )


def _unseen(model: nn.Module, located: set[str]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for path, module in model.named_modules():
        for weight in stored.of_module(module):
            if weight.unseen:
                places = found.setdefault(weight.unseen, {})
                place = innermost(path, located) or path
                places[place] = places.get(place, 0) + weight.numbers
    return found
