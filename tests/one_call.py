"""What one call of anything is counted as: its FLOPs, and which operators of it were not counted in full."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from layerprof.hooks.shapes import ShapesHook
from torch import nn

from layerprof.layers.find import find_layers


class Calls(nn.Module):
    """One layer, whose forward is any function."""

    def __init__(self, function: Callable[[], Any]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)) for _ in range(2))
        self._function = function

    def forward(self) -> Any:
        """Call the function."""
        return self._function()


def counted(function: Callable[[], Any], *, grad: bool = False, inference: bool = False) -> tuple[int, set[str]]:
    """Count a call in the forward of a model; gradients are recorded with `grad`, views kept with `inference`."""
    model = Calls(function)
    hook = ShapesHook(model, find_layers(model))
    with torch.inference_mode(inference), torch.set_grad_enabled(grad and not inference), hook, hook.batch(0):
        model()
    reading = hook.reading()
    return reading.total_flops, {operator for *_, operator in reading.uncounted}


def flops(function: Callable[[], Any], *, grad: bool = False, inference: bool = False) -> int:
    """Count a call of which everything is known."""
    total, missed = counted(function, grad=grad, inference=inference)
    assert missed == set()
    return total
