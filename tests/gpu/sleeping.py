"""Layers that keep a GPU busy for a known number of its cycles."""

from __future__ import annotations

from typing import Any

import torch

from layerprof.readings import Layer


class Sleep(torch.nn.Module):
    """A layer that keeps the GPU busy for some cycles, and the host not at all."""

    def __init__(self, cycles: int) -> None:
        super().__init__()
        self.cycles = cycles
        self.weight = torch.nn.Parameter(torch.zeros(8, device="cuda"))

    def forward(self, hidden_states: Any) -> Any:
        """Spin, then pass on."""
        torch.cuda._sleep(self.cycles)  # type: ignore[no-untyped-call]  # untyped there
        return hidden_states + self.weight


AWAKE = 500_000_000
"""Cycles that bring an idle GPU's clock up, a quarter of a second: while it climbs, equal cycles take unequal time."""


def sleepers(*cycles: int) -> tuple[Any, list[Layer]]:
    """Return a model of sleeping layers, and its layers, on a GPU that is awake."""
    torch.cuda._sleep(AWAKE)  # type: ignore[no-untyped-call]  # untyped there
    torch.cuda.synchronize()
    model = torch.nn.Sequential(*(Sleep(n) for n in cycles))
    return model, [Layer(str(i), "language", "decoder_layer", i) for i in range(len(cycles))]
