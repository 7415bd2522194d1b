"""Memory of layers in models of transformers: the KV cache told apart, by phase, and books that close."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import families
import pytest
import torch
from families_base import Family
from layerprof.hooks.allocation import LayerMemory

from layerprof.layers.find import find_layers
from layerprof.readings import MemoryReading
from layerprof.records import Phase


def read(family: Family, new_tokens: int = 4, **more: Any) -> MemoryReading:
    """Follow one answer; of a model that writes none, a call."""
    given = {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens, "do_sample": False, **more}
    work, given = (family.model.generate, given) if hasattr(family.model, "generate") else (family.model, {})
    hook = LayerMemory(family.model, find_layers(family.model))
    with hook, hook.batch(0, given=family.inputs), torch.no_grad():
        work(**family.inputs, **given)
    assert hook.failure is None
    return hook.reading()  # type: ignore[no-any-return]  # mypy knows hooks/ by another name


def per_position(config: Any, rows: int) -> int:
    """Bytes that a position of all rows takes in a layer's cache: keys and values of every head, in floats of 4."""
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * int(config.num_key_value_heads) * int(dim) * rows * 4


def test_a_decoder_layer_keeps_its_positions_in_the_cache_and_nothing_else() -> None:
    """The prompt's in prefill, one more in each of three decode steps: 2 x heads x dim x 4 bytes x rows each."""
    family = families.build("llama")
    rows, length = family.inputs["input_ids"].shape
    each = per_position(family.model.config, rows)
    reading = read(family)
    for name in ("model.layers.0", "model.layers.1"):
        assert reading.kept_kv[name, Phase.PREFILL] == length * each
        assert reading.calls[name, Phase.DECODE] == 3
        assert reading.kept_kv[name, Phase.DECODE] == 3 * each
        assert reading.kept[name, Phase.PREFILL] == reading.kept_kv[name, Phase.PREFILL]
        assert reading.kept[name, Phase.DECODE] == reading.kept_kv[name, Phase.DECODE]


def test_a_static_cache_is_made_with_the_prompt_and_decode_keeps_nothing() -> None:
    """All its positions (the prompt's and three written ones) in prefill; nothing is made after that."""
    family = families.build("llama")
    rows, length = family.inputs["input_ids"].shape
    whole = (length + 3) * per_position(family.model.config, rows)
    reading = read(family, cache_implementation="static", disable_compile=True)
    kept = reading.kept_kv["model.layers.0", Phase.PREFILL]
    assert kept - whole in range(64)  # beside keys and values a count of the filled positions
    assert reading.kept_kv["model.layers.0", Phase.DECODE] == 0
    assert reading.kept["model.layers.0", Phase.DECODE] == 0


@pytest.mark.parametrize("name", sorted(families.FAMILIES))
def test_books_of_the_peak_close_and_no_layer_but_blocks_keeps_anything(name: str) -> None:
    """Who held what comes to the total, in every family; norms, heads and embeddings leave nothing behind."""
    family = families.build(name)
    layers = find_layers(family.model)
    reading = read(family)
    held = sum(reading.weights.values()) + reading.weights_elsewhere + sum(reading.at_peak.values())
    rest = reading.kv_cache + reading.inputs + reading.before + sum(reading.outside.values())
    assert held + rest == reading.total
    weights = {id(t.untyped_storage()): t.untyped_storage().nbytes() for t in family.model.parameters()}
    buffers = {id(t.untyped_storage()): t.untyped_storage().nbytes() for t in family.model.buffers()}
    assert sum(reading.weights.values()) + reading.weights_elsewhere == sum((weights | buffers).values())
    small = {layer.name for layer in layers if layer.kind in ("norm", "lm_head", "embed_tokens")}
    assert {key: kept for key, kept in reading.kept.items() if key[0] in small and kept} == {}


def test_the_peak_is_that_of_torchs_own_count_of_its_allocator(tmp_path: Path) -> None:
    """The profiler's events of the CPU allocator know nothing of tensors, and have the same high water to the byte.

    The model's kernels are products and sums, which need no room of their own.
    """
    family = families.build("llama", "eager")

    def work() -> None:
        with torch.no_grad():
            family.model(**family.inputs)

    work()
    kinds = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=kinds, profile_memory=True, acc_events=True) as recorded:
        work()
    recorded.export_chrome_trace(str(tmp_path / "trace.json"))
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    live = high = 0
    for event in sorted((e for e in events if e.get("name") == "[memory]"), key=lambda e: e["ts"]):
        live += event["args"]["Bytes"]
        high = max(high, live)
    hook = LayerMemory(family.model, find_layers(family.model))
    with hook, hook.batch(0, given=family.inputs):
        work()
    reading = hook.reading()
    there = sum(reading.weights.values()) + reading.weights_elsewhere + reading.inputs + reading.before
    assert reading.total - there == high
