"""Bytes of what ran: weights once a call, what crosses a layer's boundary, the KV cache read and written."""

from __future__ import annotations

from typing import Any

import families
import pytest
import torch
from families_base import Family
from layerprof.hooks.shapes import ShapesHook
from torch import nn

from layerprof.layers.find import find_layers
from layerprof.readings import Work, WorkReading
from layerprof.records import Phase


def read(family: Family, new_tokens: int = 3, **more: Any) -> WorkReading:
    """Count one answer."""
    hook = ShapesHook(family.model, find_layers(family.model))
    with hook, hook.batch(0), torch.no_grad():
        family.model.generate(
            **family.inputs, max_new_tokens=new_tokens, min_new_tokens=new_tokens, do_sample=False, **more
        )
    return hook.reading()  # type: ignore[no-any-return]  # mypy knows hooks/ by another name


def weights(module: nn.Module) -> int:
    """Count the bytes of a module's parameters."""
    return sum(p.numel() * p.element_size() for p in module.parameters())


def test_a_block_reads_each_weight_once_a_call() -> None:
    """All parameters of a decoder layer per call, however many operators use them."""
    family = families.build("llama")
    reading = read(family)
    own = weights(family.model.model.layers[0])
    assert reading.layers["model.layers.0", Phase.PREFILL].bytes_weights == own
    assert reading.layers["model.layers.0", Phase.DECODE].bytes_weights == 2 * own


def test_an_embedding_reads_the_rows_it_gathers() -> None:
    """One row of 32 floats per token, not the table."""
    family = families.build("llama")
    reading = read(family)
    tokens = family.inputs["input_ids"].numel()
    assert reading.layers["model.embed_tokens", Phase.PREFILL].bytes_weights == tokens * 32 * 4
    assert reading.layers["model.embed_tokens", Phase.DECODE].bytes_weights == 2 * 2 * 32 * 4


def test_a_tied_head_reads_its_table_all_the_same() -> None:
    """The head multiplies by the whole table that the embedding only gathers from."""
    family = families.build("qwen2_5_vl")
    reading = read(family, 1)
    assert family.model.lm_head.weight is family.model.model.language_model.embed_tokens.weight
    assert reading.layers["lm_head", Phase.PREFILL].bytes_weights == 128 * 32 * 4


def test_a_gathered_table_is_read_at_most_whole() -> None:
    """More gathered rows than the table has do not exceed the table."""
    model = nn.Sequential(nn.Embedding(3, 4))
    hook = ShapesHook(model, find_layers(model))
    with hook, hook.batch(0):
        model(torch.zeros(1, 50, dtype=torch.long))
    assert sum(w.bytes_weights for w in hook.reading().layers.values()) == 3 * 4 * 4


@pytest.mark.parametrize("implementation", ["eager", "batched_mm", "grouped_mm"])
def test_only_the_experts_that_ran_are_read(implementation: str) -> None:
    """One decode step of one row reads two of four experts, with router, attention and norms."""
    family = families.build("mixtral")
    family.model.set_experts_implementation(implementation)
    prompt = {name: value[:1] for name, value in family.inputs.items()}
    reading = read(Family(family.model, prompt, (0, 2)), 2)
    layer = family.model.model.layers[0]
    expert = 3 * 32 * 48 * 4
    assert reading.layers["model.layers.0", Phase.DECODE].bytes_weights == weights(layer) - 2 * expert


def test_activations_cross_the_boundary_once() -> None:
    """A linear layer in a list: its input and its output, in float32."""
    model = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 4))
    hook = ShapesHook(model, find_layers(model))
    with hook, hook.batch(0), torch.no_grad():
        model(torch.ones(2, 5, 8))
    moved = {name: w.bytes_activations for (name, _), w in hook.reading().layers.items()}
    assert moved == {"0": 10 * (8 + 16) * 4, "1": 10 * (16 + 4) * 4}


def test_a_decoder_layer_moves_hidden_states_and_rotary_tables() -> None:
    """In and out (rows, positions, 32), with cosines and sines of 8 per position; the mask is not counted."""
    family = families.build("llama", "eager")
    rows, positions = family.inputs["input_ids"].shape
    work = read(family, 1).layers["model.layers.0", Phase.PREFILL]
    ids = rows * positions * 8  # position_ids are passed on as int64
    tables = 2 * rows * positions * 8 * 4
    assert work.bytes_activations - 2 * rows * positions * 32 * 4 in (
        tables,
        tables + ids,
        tables // rows + ids // rows,
    )


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_cache_is_written_once_and_read_before_each_step(attention: str) -> None:
    """Keys and values of 2 heads x 8 in float32 for each of two rows: 256 bytes a position and layer."""
    family = families.build("llama", attention)
    prompt = family.inputs["input_ids"].shape[1]
    reading = read(family, 4)
    position = 2 * (2 * 2 * 8) * 4
    assert reading.layers["model.layers.1", Phase.PREFILL].bytes_kv == position * prompt
    steps = sum(prompt + step - 1 + 1 for step in (1, 2, 3))  # what is cached before, and the new position
    assert reading.layers["model.layers.1", Phase.DECODE].bytes_kv == position * steps


def test_a_full_sliding_window_reads_no_more_than_it_holds() -> None:
    """Gemma 3's windowed layer keeps the last 5 positions of a window of 6."""
    family = families.build("gemma3")
    reading = read(family, 4)
    layers = "model.language_model.layers"
    position = 2 * (2 * 2 * 8) * 4
    assert reading.layers[f"{layers}.0", Phase.DECODE].bytes_kv == 3 * position * (5 + 1)
    prompt = family.inputs["input_ids"].shape[1]
    assert reading.layers[f"{layers}.1", Phase.DECODE].bytes_kv == position * sum(prompt + s for s in (1, 2, 3))


def test_cross_attention_reads_its_keys_and_writes_them_once() -> None:
    """Mllama caches the image's keys in the prefill; a decode step of that layer only reads them."""
    family = families.build("mllama")
    reading = read(family, 3)
    name = "model.language_model.layers.1"
    image = 2 * 5  # two tiles of 2 x 2 patches and a class token, padded below
    prefill = reading.layers[name, Phase.PREFILL].bytes_kv
    assert prefill % (2 * (2 * 2 * 8) * 4) == 0
    assert prefill >= image * 2 * (2 * 2 * 8) * 4
    assert reading.layers[name, Phase.DECODE].bytes_kv == 2 * prefill


def test_an_encoder_decoder_caches_both_attentions() -> None:
    """T5's decoder layer keeps its own positions, and the encoder's from the first step on."""
    family = families.build("t5")
    reading = read(family, 3)
    position = 2 * (2 * 4 * 8) * 4
    encoded = family.inputs["input_ids"].shape[1]
    assert reading.layers["decoder.block.0", Phase.PREFILL].bytes_kv == position * (1 + encoded)
    own = (1 + 1) + (2 + 1)
    assert reading.layers["decoder.block.0", Phase.DECODE].bytes_kv == position * (own + 2 * encoded)


def test_models_without_a_cache_move_none() -> None:
    """Vision blocks and plain calls have no KV traffic."""
    reading = read(families.build("qwen2_5_vl"), 1, use_cache=False)
    assert sum((w for w in reading.layers.values()), Work()).bytes_kv == 0


def test_quantised_weights_count_as_they_are_stored() -> None:
    """A weight kept in int8 and multiplied after a cast is read in int8."""

    class Eight(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weight", torch.ones(16, 8, dtype=torch.int8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            weight: Any = self.weight
            return torch.nn.functional.linear(x, weight.float())

    model = nn.Sequential(nn.Linear(8, 8), nn.Sequential(nn.Linear(8, 8), Eight()))
    hook = ShapesHook(model, find_layers(model))
    with hook, hook.batch(0), torch.no_grad():
        model(torch.ones(2, 8))
    assert hook.reading().layers["1", Phase.PREFILL].bytes_weights == 16 * 8 + (8 * 8 + 8) * 4
