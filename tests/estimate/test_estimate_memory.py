"""The memory that an estimate predicts: what the hook reads of a real answer, and the full-size model's by formula."""

from __future__ import annotations

from typing import Any

import families
import pytest
import torch
from families_base import IMAGE, Family
from layerprof.hooks.allocation import LayerMemory

from layerprof.estimate import ghost
from layerprof.estimate.estimate import estimate
from layerprof.estimate.result import Estimate
from layerprof.layers.find import find_layers
from layerprof.readings import MemoryReading
from layerprof.records import Phase

FAMILIES = ("qwen2_5_vl", "llava", "gemma3", "mllama", "llama", "t5", "internvl", "zamba2")
SMALL = 64
"""Elements from which tensors of these small models are ghosts."""
LITTLE = 1024
"""Bytes that the walk may differ by: whole numbers that `generate()` makes and lets go of."""


def like(family: Family, got: Estimate) -> dict[str, Any]:
    """Make real inputs of the estimate's sizes."""
    torch.manual_seed(0)
    image, prompt = got.settings["image_tokens"], got.settings["prompt_tokens"]
    ids = torch.randint(3, 100, (2, prompt))
    ids[:, 1 : 1 + image] = IMAGE
    inputs, types = family.inputs, torch.eq(ids, IMAGE).int()
    made = {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
    made |= {name: types for name in ("mm_token_type_ids", "token_type_ids") if name in inputs}
    if "image_grid_thw" in inputs:
        made["image_grid_thw"] = torch.tensor([[1, 4, 4]] * 2)
        made["pixel_values"] = torch.randn(32, inputs["pixel_values"].shape[1])
    if "cross_attention_mask" in inputs:
        made["cross_attention_mask"] = torch.ones(2, prompt, 1, 2, dtype=torch.long)
    return made


def both(name: str, new_tokens: int) -> tuple[Estimate, MemoryReading]:
    """Return what is predicted of an answer, and what is read of it."""
    family = families.build(name, "sdpa")
    pixels = 56 if name.startswith("qwen") else 28
    got = estimate(
        family.model.config, batch_size=2, image_size=pixels, text_tokens=6, new_tokens=new_tokens, dtype="fp32"
    )
    inputs = like(family, got)
    hook = LayerMemory(family.model, find_layers(family.model))
    with hook, torch.no_grad(), hook.batch(0, given=inputs):
        family.model.generate(**inputs, max_new_tokens=new_tokens, min_new_tokens=new_tokens, do_sample=False)
    return got, hook.reading()


@pytest.mark.parametrize("name", FAMILIES)
def test_rows_are_what_the_hook_reads_of_a_real_answer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Peak, what is kept and the part in the cache of every layer and phase, to the byte; the whole to within 1 kB."""
    monkeypatch.setattr(ghost, "LARGE", SMALL)
    got, real = both(name, 7)
    rows = {(row.name, row.phase): row for row in got.layers}
    for key, calls in real.calls.items():
        row = rows[key]
        assert row.memory_peak_bytes == real.peak[key]
        assert row.memory_kept_bytes == round(real.kept[key] / calls)
        assert row.memory_kept_kv_bytes == round(real.kept_kv[key] / calls)
        assert row.weights_bytes == real.weights[key[0]]
    assert got.memory.peak == pytest.approx(real.total, abs=LITTLE)


def test_the_last_steps_of_a_long_answer_are_those_behind_a_longer_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty tokens, of which the estimate rehearses the first and the last few: the peak is the last step's."""
    monkeypatch.setattr(ghost, "LARGE", SMALL)
    got, real = both("llama", 20)
    for row in got.layers:
        if row.phase is Phase.DECODE:
            assert row.memory_peak_bytes == real.peak[row.name, row.phase]
            assert row.memory_kept_kv_bytes == round(real.kept_kv[row.name, row.phase] / 19)


def test_the_full_size_model_by_formula() -> None:
    """3,754,622,976 parameters of 2 bytes; 36 layers keep 1,024 bytes a position each, the head has none of its own.

    A decoder layer: q, o 2048 x 2048, k, v 2048 x 256, three of 2048 x 11008, biases and norms.
    """
    got = estimate("qwen2.5-vl-3b", text_tokens=66, image_size=448, new_tokens=2)
    parameters = 2 * 2048**2 + 2 * 2048 * 256 + 3 * 2048 * 11008 + (2048 + 2 * 256) + 2 * 2048
    rows = {(row.kind, row.phase): row for row in got.layers if row.index == 0}
    assert rows["decoder_layer", Phase.PREFILL].weights_bytes == 2 * parameters
    assert rows["decoder_layer", Phase.PREFILL].memory_kept_kv_bytes == 322 * 1024
    assert rows["decoder_layer", Phase.DECODE].memory_kept_kv_bytes == 1024
    assert rows["lm_head", Phase.DECODE].weights_bytes == 0
    column, peak = got.ledger["memory_bytes"], got.memory.peak
    assert column.residual == 0
    assert column.total == peak
    assert peak is not None
    assert peak > 2 * 3_754_622_976 + 322 * 36_864


def test_without_addresses_nothing_is_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes of storages say nothing then: no figure, and FLOPs as ever."""
    monkeypatch.setattr(ghost, "_stretch", lambda: None)
    monkeypatch.setattr(ghost, "_start", lambda: 0)
    got = estimate("demo", image_size=112, text_tokens=7, new_tokens=2)
    assert {row.memory_peak_bytes for row in got.layers} == {None}
    assert (got.memory.peak, set(got.ledger)) == (None, {"flops"})
    assert got.totals.flops


def test_ghosts_copy_where_real_tensors_do() -> None:
    """A transposed matrix reshaped is a copy, a sliced one is a view, and storages have their real sizes."""
    with ghost.Ghosts():
        large = torch.zeros(256, 1024)
        turned, part, same = large.T.reshape(-1), large[:, :512], large.contiguous()
        wide = large[:1].expand(64, 1024).reshape(-1)
    assert ghost.is_ghost(turned)
    assert turned.untyped_storage().nbytes() == large.untyped_storage().nbytes() == 256 * 1024 * 4
    assert turned.untyped_storage().data_ptr() == large.untyped_storage().data_ptr()  # neither is ever written
    assert part.stride() == (1024, 1)
    assert same is large
    assert wide.untyped_storage().nbytes() == 64 * 1024 * 4
