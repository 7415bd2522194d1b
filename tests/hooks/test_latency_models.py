"""The latency hook on live models: compiled regions stay as they are, and books close on every family."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import families
import pytest
import torch
from families_base import Family
from hooks_left import hooks_on
from layerprof.hooks.latency import LatencyHook
from torch import nn
from torch._dynamo.utils import counters
from toy_vlm import total

from layerprof.layers.find import find_layers
from layerprof.readings import Layer, SpanReading
from layerprof.records import Phase


class Stack(nn.Module):
    """Two blocks in a row."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Call one after the other."""
        for block in self.blocks:
            hidden_states = block(hidden_states)
        return hidden_states


class TestCompiledRegions:
    """Timing neither breaks a user's graphs nor makes torch compile them anew."""

    @pytest.fixture(autouse=True)
    def _fresh(self) -> Iterator[None]:
        torch._dynamo.reset()
        counters.clear()
        yield
        torch._dynamo.reset()

    @staticmethod
    def layers(prefix: str = "") -> list[Layer]:
        """Return the two blocks of `Stack`."""
        return [Layer(f"{prefix}blocks.{i}", "language", "decoder_layer", i) for i in range(2)]

    @staticmethod
    def timed(model: Any, layers: list[Layer], inputs: torch.Tensor) -> tuple[SpanReading, torch.Tensor]:
        """Call the model once in a batch."""
        hook = LatencyHook(model, layers)
        with torch.no_grad(), hook, hook.batch(0):
            output = model(inputs)
        return hook.reading(), output

    @pytest.mark.parametrize("how", ["module.compile()", "torch.compile(module)", "torch.compile(module.forward)"])
    def test_a_region_that_is_compiled_already_stays_as_it_is(self, how: str) -> None:
        """One graph before, one after, and the same answer; the layers in it are not called, so they have no span."""
        model: Any = Stack()
        inputs = torch.ones(1, 3, 4)
        with torch.no_grad():
            expected = model(inputs)
        if how == "module.compile()":
            model.compile(backend="eager", fullgraph=True)
        elif how == "torch.compile(module)":
            model = torch.compile(model, backend="eager", fullgraph=True)
        else:
            model.forward = torch.compile(model.forward, backend="eager", fullgraph=True)
        with torch.no_grad():
            model(inputs)
        assert counters["stats"]["unique_graphs"] == 1
        prefix = "_orig_mod." if how == "torch.compile(module)" else ""
        reading, output = self.timed(model, self.layers(prefix), inputs)
        assert counters["stats"]["unique_graphs"] == 1
        assert torch.equal(output, expected)
        assert reading.spans == ()

    def test_a_region_compiled_while_it_is_timed_has_no_break(self) -> None:
        """A model that compiles itself at its first call inside the block (a static cache) still gives one graph."""
        model = Stack()
        inputs = torch.ones(1, 3, 4)
        hook = LatencyHook(model, self.layers())
        with torch.no_grad(), hook, hook.batch(0):
            output = torch.compile(model, backend="eager", fullgraph=True)(inputs)
        assert counters["stats"]["unique_graphs"] == 1
        assert torch.equal(output, model(inputs))

    def test_a_layer_compiled_on_its_own_has_its_row(self) -> None:
        """What is compiled inside a layer's `forward` is timed from outside, and what runs in it is not."""
        model = Stack()
        model.blocks[0].forward = torch.compile(model.blocks[0].forward, backend="eager")
        reading, _ = self.timed(model, self.layers(), torch.ones(1, 3, 4))
        assert [span.layer for span in reading.spans] == ["blocks.0", "blocks.1"]


@pytest.fixture(scope="module")
def tiny() -> tuple[Family, tuple[Layer, ...]]:
    """Return a tiny Qwen2.5-VL and its layers."""
    family = families.build("qwen2_5_vl")
    return family, find_layers(family.model)


class TestRealModels:
    """On live models of transformers, with the real clock."""

    def test_every_block_has_a_span_in_each_of_its_phases(self, tiny: tuple[Family, tuple[Layer, ...]]) -> None:
        """Vision blocks once per batch, decoder layers once in prefill and once per decode step."""
        family, layers = tiny
        hook = LatencyHook(family.model, layers)
        with hook:
            for number in range(2):
                with hook.batch(number):
                    families.run(family, new_tokens=5)
        counts = Counter((s.layer, s.phase) for s in hook.reading().spans)
        for layer in layers:
            if layer.kind == "vision_block":
                assert counts[layer.name, Phase.VISION] == 2
            if layer.kind == "decoder_layer":
                assert (counts[layer.name, Phase.PREFILL], counts[layer.name, Phase.DECODE]) == (2, 8)

    def test_answers_do_not_change(self, tiny: tuple[Family, tuple[Layer, ...]]) -> None:
        """The model answers the same with hooks as without."""
        family, layers = tiny
        bare = families.run(family, new_tokens=6)
        hook = LatencyHook(family.model, layers)
        with hook, hook.batch(0):
            hooked = families.run(family, new_tokens=6)
        assert torch.equal(bare, hooked)
        assert hooks_on(family.model) == 0

    @pytest.mark.parametrize("name", sorted(families.FAMILIES))
    def test_books_close_on_every_family(self, name: str) -> None:
        """Self times and named gaps are the window, whatever the model's structure; nothing is dropped."""
        family = families.build(name)
        hook = LatencyHook(family.model, find_layers(family.model))
        with hook, hook.batch(0):
            families.run(family)
        reading = hook.reading()
        assert reading.dropped == 0
        assert total(reading) == pytest.approx(reading.windows_s[0], rel=1e-9)
        assert {s.layer for s in reading.spans}, "something must have been timed"
