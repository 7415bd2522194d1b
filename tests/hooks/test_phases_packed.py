"""Packed sequences: every hook tells prompts from answers by what the model is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import odd_layouts
import pytest
import torch
import transformers
from layerprof.hooks.energy.capture import CaptureHook
from layerprof.hooks.kernels import KernelsHook
from layerprof.hooks.latency import LatencyHook
from layerprof.hooks.phases import PhaseTracker
from layerprof.hooks.shapes import ShapesHook

from layerprof.layers.find import find_layers
from layerprof.records import Phase

PASSES = (((4, 0), (3, 0)), ((1, 4), (5, 0)), ((1, 5), (1, 5)))
"""(new positions, positions before) of each sequence: two prompts, an answer beside a prompt, two answers."""


def given(sequences: tuple[tuple[int, int], ...]) -> dict[str, Any]:
    """Make what a pass is given: sequences that attend to themselves alone."""
    lengths = [new for new, _ in sequences]
    of = [number for number, length in enumerate(lengths) for _ in range(length)]
    own = torch.tensor([[a == b for b in of] for a in of]).tril()
    return {
        "input_ids": torch.arange(3, 3 + sum(lengths)).unsqueeze(0),
        "position_ids": torch.tensor([[n for new, old in sequences for n in range(old, old + new)]]),
        "attention_mask": own[None, None],
        "cu_seq_lens_q": torch.tensor([0, *lengths]).cumsum(0),
        "cu_seq_lens_k": torch.tensor([0, *(new + old for new, old in sequences)]).cumsum(0),
        "use_cache": False,
    }


def walk(hook: Any, model: Any) -> None:
    """Make the passes inside one batch."""
    with hook, hook.batch(0), torch.no_grad():
        for sequences in PASSES:
            model(**given(sequences))


@pytest.mark.parametrize("name", ["latency", "shapes", "capture", "kernels"])
def test_every_hook_sees_one_pass_of_each_phase(name: str, tmp_path: Path) -> None:
    """The embedding before the first block, the blocks, and what follows them."""
    model = odd_layouts.llama().eval()
    layers = find_layers(model)
    made: dict[str, Any] = {
        "latency": lambda: LatencyHook(model, layers),
        "shapes": lambda: ShapesHook(model, layers),
        "capture": lambda: CaptureHook(model, layers),
        "kernels": lambda: KernelsHook(model, layers, folder=tmp_path),
    }
    hook = made[name]()
    walk(hook, model)
    if name == "capture":
        found = set(hook.calls)
    elif name == "kernels":
        found = {key for key, calls in hook.reading().calls.items() if calls == 1}
    elif name == "latency":
        found = {(span.layer, span.phase) for span in hook.reading().spans}
        assert len(hook.reading().spans) == len(found)
    else:
        found = {key for key, work in hook.reading().layers.items() if work.calls == 1}
    phases = (Phase.PREFILL, Phase.MIXED, Phase.DECODE)
    assert found == {(layer.name, phase) for layer in layers for phase in phases}


def test_mixed_steps_are_counted_as_decode_steps_are_and_say_what_entered() -> None:
    """The first step that answers is mixed, with 5 positions of a prompt and 1 of an answer; the second decodes."""
    model = odd_layouts.llama().eval()
    hook = LatencyHook(model, find_layers(model))
    walk(hook, model)
    reading = hook.reading()
    assert reading.mixed == {(0, 1): (5, 1)}
    steps = {(span.phase, span.step) for span in reading.spans}
    assert steps == {(Phase.PREFILL, 0), (Phase.MIXED, 1), (Phase.DECODE, 2)}


def test_attention_is_useful_within_sequences() -> None:
    """All 6 positions attend to all 6 as executed, 2 x 2 x 32 each pair; of 36 pairs 1 x 1 + 5 x 5 are within."""
    model = odd_layouts.llama().eval()
    hook = ShapesHook(model, find_layers(model))
    with hook, hook.batch(0), torch.no_grad():
        model(**given(((1, 0), (5, 0))))
    works = [work for (name, _), work in hook.reading().layers.items() if name.endswith("layers.0")]
    assert [work.flops - work.flops_useful for work in works] == [2 * 2 * 32 * (36 - 26)]


def test_a_block_tells_where_the_model_was_not_called() -> None:
    """A pass through the decoder alone: its first block is given the same."""
    tracker = PhaseTracker()
    tracker.reset()
    states, told = torch.zeros(1, 6, 8), given(PASSES[1])
    assert tracker.step_begins((states,), told) is Phase.MIXED
    assert tracker.mixed == {1: (5, 1)}


def _unseen(module: Any, query: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, None]:
    """Attend out of sight, as code does that is no operator of torch's."""
    return query.transpose(1, 2).contiguous(), None


@pytest.mark.parametrize(("block_table", "named"), [(torch.zeros(1, 2, 1), 2), (None, 0)])
def test_attention_that_reads_pages_out_of_sight_is_named(block_table: torch.Tensor | None, named: int) -> None:
    """A block table hands attention to code that need be no operator: each layer says that it was not counted."""
    transformers.AttentionInterface.register("out_of_sight", _unseen)
    model = odd_layouts.llama().eval()
    model.set_attn_implementation("out_of_sight")
    hook = ShapesHook(model, find_layers(model))
    with hook, hook.batch(0), torch.no_grad():
        model(**given(PASSES[2]) | {"block_table": block_table})
    assert hook.reading().uncounted_calls() == ({"flash_attn_with_kvcache": named} if named else {})
    assert all(phase is Phase.DECODE for _, phase, _ in hook.reading().uncounted)


def test_attention_that_is_seen_is_not_named_beside_its_count() -> None:
    """The same table beside operators that are counted."""
    model = odd_layouts.llama().eval()
    hook = ShapesHook(model, find_layers(model))
    with hook, hook.batch(0), torch.no_grad():
        model(**given(PASSES[2]) | {"block_table": torch.zeros(1, 2, 1)})
    assert hook.reading().uncounted_calls() == {}
