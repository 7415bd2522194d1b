"""Phases and FLOPs of `generate` with every kind of cache, rows and turns, counted by hand.

A prompt of 10 tokens and 4 new ones: one pass over the prompt and three of one position each, the keys growing from 11
to 13. A layer's weights take 2 FLOPs a number and position, attention 2 x 2 x 32 a pair of query and key.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import odd_layouts
import pytest
import small_models
import torch
import transformers

from layerprof import LayerProfiler
from layerprof.records import Phase, Run

IDS = torch.tensor([[3, 4, 5, 6, 3, 4, 5, 6, 3, 4]])
WEIGHTS = 32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 48
ASKED: dict[str, Any] = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
SIZES: dict[str, Any] = {"vocab_size": 128, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
HEADS: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 4}


def work(*passes: tuple[int, int], rows: int = 1) -> int:
    """Count a layer's FLOPs in passes of (new positions, keys), alike in every row."""
    return rows * sum(2 * WEIGHTS * new + 2 * 2 * 32 * new * keys for new, keys in passes)


PROMPT = work((10, 10))
STEPS = work((1, 11), (1, 12), (1, 13))


def found(run: Run, kind: str = "decoder_layer") -> list[dict[Phase, tuple[int, int | None]]]:
    """Return (calls, FLOPs) by phase of each layer of a kind."""
    names = dict.fromkeys(row.name for row in run.layers if row.kind == kind)
    return [{row.phase: (row.calls, row.flops) for row in run.layers if row.name == name} for name in names]


@pytest.mark.parametrize(
    ("how", "prefill", "decode"),
    [
        ({}, (1, PROMPT), (3, STEPS)),
        ({"num_beams": 3}, (1, 3 * PROMPT), (3, 3 * STEPS)),
        ({"num_return_sequences": 2, "do_sample": True}, (1, 2 * PROMPT), (3, 2 * STEPS)),
        ({"prefill_chunk_size": 4}, (3, work((4, 4), (4, 8), (2, 10))), (3, STEPS)),
        ({"cache_implementation": "static", "disable_compile": True}, (1, PROMPT), (3, work(*[(1, 13)] * 3))),
    ],
    ids=["growing", "beams", "sequences", "chunks", "static"],
)
def test_a_prompt_is_prefill_and_each_token_after_it_decode(
    how: dict[str, Any], prefill: tuple[int, int], decode: tuple[int, int]
) -> None:
    """Whatever the cache and the rows: as many calls and FLOPs as the passes have positions and keys."""
    model = odd_layouts.llama().eval()
    with LayerProfiler(model) as prof, torch.no_grad():
        model.generate(IDS, **ASKED | how)
    assert found(prof.run) == [{Phase.PREFILL: prefill, Phase.DECODE: decode}] * 2
    assert prof.run.ledger.flops.residual == 0


def test_without_a_cache_all_positions_enter_anew() -> None:
    """Four passes over 10 to 13 positions, and no decode."""
    model = odd_layouts.llama().eval()
    with LayerProfiler(model) as prof, torch.no_grad():
        model.generate(IDS, use_cache=False, **ASKED)
    passes = work(*((n, n) for n in (10, 11, 12, 13)))
    assert found(prof.run) == [{Phase.PREFILL: (4, passes)}] * 2


def test_a_window_bounds_the_keys_of_decode() -> None:
    """Mistral with a window of 4: the prompt attends to itself, a step to 4."""
    model: Any = transformers.MistralForCausalLM(transformers.MistralConfig(**SIZES, **HEADS, eos_token_id=None))
    model.eval()
    with LayerProfiler(model) as prof, torch.no_grad():
        model.generate(IDS, **ASKED)
    assert found(prof.run) == [{Phase.PREFILL: (1, PROMPT), Phase.DECODE: (3, work(*[(1, 4)] * 3))}] * 2


def test_layers_with_and_without_a_window_stand_beside_each_other() -> None:
    """Gemma 3, a layer of each: phases are the same, keys are not."""
    kinds = ["sliding_attention", "full_attention"]
    config = transformers.Gemma3TextConfig(**SIZES, **HEADS, layer_types=kinds, eos_token_id=None)
    model: Any = transformers.Gemma3ForCausalLM(config)
    model.eval()
    with LayerProfiler(model) as prof, torch.no_grad():
        model.generate(IDS, **ASKED)
    near, far = found(prof.run)
    assert near == {Phase.PREFILL: (1, PROMPT), Phase.DECODE: (3, work(*[(1, 4)] * 3))}
    assert far == {Phase.PREFILL: (1, PROMPT), Phase.DECODE: (3, STEPS)}


def test_a_second_turn_prefills_what_is_new() -> None:
    """13 positions are cached of the first turn's 14, 3 more are asked: 4 enter, seeing 17; then three steps."""
    model = odd_layouts.llama().eval()
    cache = transformers.DynamicCache(config=model.config)
    with LayerProfiler(model) as prof, torch.no_grad():
        first = model.generate(IDS, past_key_values=cache, **ASKED)
        model.generate(torch.cat([first, IDS[:, :3]], 1), past_key_values=cache, **ASKED)
    prefill = PROMPT + work((4, 17))
    decode = STEPS + work((1, 18), (1, 19), (1, 20))
    assert found(prof.run) == [{Phase.PREFILL: (2, prefill), Phase.DECODE: (6, decode)}] * 2


@pytest.mark.parametrize("how", [{}, {"prefill_chunk_size": 16}, {"num_beams": 2}], ids=["whole", "chunks", "beams"])
def test_a_vision_language_model_sees_its_image_once(how: dict[str, Any], tmp_path: Path) -> None:
    """One pass of the vision tower; the prompt's positions, 4 of them the image's, in one pass or in chunks of 16."""
    subject = small_models.subject(small_models.checkpoint_folder(tmp_path))
    asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "red or blue?"}]}]
    processor: Any = subject.processor
    text = processor.apply_chat_template(asked, add_generation_prompt=True)
    given = processor(text=[text], images=[small_models.picture()], return_tensors="pt")
    positions = given["input_ids"].shape[1]
    model: Any = subject.model
    with LayerProfiler(model) as prof, torch.no_grad():
        model.generate(**given, **ASKED | how)
    passes = -(-positions // how.get("prefill_chunk_size", positions))
    calls = [{phase: count for phase, (count, _) in layer.items()} for layer in found(prof.run)]
    assert calls == [{Phase.PREFILL: passes, Phase.DECODE: 3}] * 2
    assert [{phase: count for phase, (count, _) in one.items()} for one in found(prof.run, "vision_block")] == [
        {Phase.VISION: 1}
    ] * 2
