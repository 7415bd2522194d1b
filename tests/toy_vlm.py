"""A vision-language model whose every part takes a time that the test says, on a fake clock or a fake GPU."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from layerprof.hooks.latency import LatencyHook
from torch import Tensor, nn

from layerprof.readings import Layer, SpanReading

Spend = Callable[[str], None]
"""Lets the time of a part pass: called with `vision`, `embed`, `block`, `head` or what runs between."""


class Part(nn.Module):
    """A layer that spends its time and gives back what it got; `inner` runs inside it."""

    def __init__(self, spend: Spend, what: str, inner: nn.Module | None = None) -> None:
        super().__init__()
        self.spend, self.what, self.inner = spend, what, inner

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Spend, then run what is inside."""
        self.spend(self.what)
        return hidden_states if self.inner is None else self.inner(hidden_states)


class ToyVlm(nn.Module):
    """`visual` blocks, then `embed`, `layers`, `head`; generate() runs them as transformers 5 does."""

    def __init__(self, spend: Spend, *, vision: int = 2, blocks: int = 3, inner: bool = False) -> None:
        super().__init__()
        self.spend = spend
        self.visual = nn.ModuleList(Part(spend, "vision") for _ in range(vision))
        self.embed = Part(spend, "embed")
        self.layers = nn.ModuleList(
            Part(spend, "block", Part(spend, "inner") if inner else None) for _ in range(blocks)
        )
        self.head = Part(spend, "head")

    def located(self) -> tuple[Layer, ...]:
        """Return its layers as find_layers would."""
        names = [("visual", "vision", "vision_block"), ("layers", "language", "decoder_layer")]
        vision, blocks = (
            [Layer(f"{name}.{i}", tower, kind, i) for i in range(len(getattr(self, name)))]  # type: ignore[arg-type]
            for name, tower, kind in names
        )
        inner = [
            Layer(f"layers.{i}.inner", "language", "module", i)
            for i, block in enumerate(self.layers)
            if block.inner is not None
        ]
        embed, head = (
            Layer(name, "language", kind, 0) for name, kind in (("embed", "embed_tokens"), ("head", "lm_head"))
        )
        return (*vision, embed, *blocks, *inner, head)

    def replace(self, block: int, spend: Spend) -> None:
        """Make one decoder block spend otherwise."""
        part = self.layers[block]
        assert isinstance(part, Part)
        part.spend = spend

    def step(self, positions: int) -> None:
        """One forward of the language model over `positions` new positions."""
        hidden: Any = self.embed(torch.zeros(1, positions, 1))
        self.spend("rotary")
        for layer in self.layers:
            hidden = layer(hidden)
        self.head(hidden)

    def generate(self, new_tokens: int, prompt: int = 5) -> None:
        """Encode, prefill, and decode `new_tokens - 1` steps."""
        self.spend("before")
        pixels = torch.zeros(4, 1)
        for block in self.visual:
            block(pixels)
        self.spend("merge")
        self.step(prompt)
        for _ in range(new_tokens - 1):
            self.spend("sample")
            self.step(1)
        self.spend("after")


def measured(hook: LatencyHook, model: ToyVlm, batches: int = 1, new_tokens: int = 3) -> SpanReading:
    """Run some batches under the hook and return its reading."""
    with hook:
        for number in range(batches):
            with hook.batch(number):
                model.generate(new_tokens)
    reading: SpanReading = hook.reading()
    return reading


def total(reading: SpanReading) -> float:
    """Everything that the reading accounts for."""
    return math.fsum([*(s.self_s for s in reading.spans), *reading.gaps_s.values()])
