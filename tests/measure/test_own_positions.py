"""Tokens and keys of a user's own calls, of which most are taken for known."""

from __future__ import annotations

from typing import Any

import families
import torch
from own_models import TOKENS, Tower
from pruned_vlm import PATCH, PrunedVlm, block_flops

from layerprof import LayerProfiler
from layerprof.records import LayerRow, Phase, Run

Shown = tuple[int, float | None, float | None]


def shown(run: Run, phase: Phase) -> dict[str, Shown]:
    """Return calls, tokens and keys of a call of each layer."""
    return {row.name: (row.calls, row.tokens_per_call, row.kv_per_call) for row in run.layers if row.phase is phase}


def rows(run: Run, name: str) -> dict[Phase, LayerRow]:
    """Return a layer's rows."""
    return {row.phase: row for row in run.layers if row.name == name}


def test_calls_that_are_taken_for_known_count_like_those_that_were_watched() -> None:
    """Twenty calls of 5 positions in 3 rows, of which few are watched: 15 a call, and no attention."""
    model = Tower().eval()
    with torch.no_grad(), LayerProfiler(model) as prof:
        for _ in range(20):
            model(torch.ones(3, TOKENS, 8))
    assert {name: how for name, how in shown(prof.run, Phase.PREFILL).items() if "blocks" in name} == {
        f"blocks.{i}": (20, 3 * TOKENS, None) for i in range(3)
    }


def test_answers_that_are_taken_for_known_count_like_those_that_were_watched() -> None:
    """Ten equal answers of two prompts of 7 positions, three tokens each: steps read 8 and 9 keys a row."""
    family: Any = families.build("llama", "sdpa")
    with torch.no_grad(), LayerProfiler(family.model) as prof:
        for _ in range(10):
            family.model.generate(**family.inputs, max_new_tokens=3, min_new_tokens=3, do_sample=False)
    layer = "model.layers.1"
    assert shown(prof.run, Phase.PREFILL)[layer] == (10, 14, 14)
    assert shown(prof.run, Phase.DECODE)[layer] == (20, 2, 17)
    assert shown(prof.run, Phase.DECODE)["lm_head"] == (20, 2, None)


def test_a_pruning_model_in_a_loop_of_one_s_own() -> None:
    """Two prompts of 16 image tokens and 5 words in a row; later layers keep 13 of the 21 positions."""
    model = PrunedVlm().eval()
    pixels, words = torch.randn(1, 3, 8 * PATCH, 4 * PATCH), torch.ones(1, 5, dtype=torch.long)
    with LayerProfiler(model) as prof:
        for _ in range(2):
            model.generate(pixels, words, 4)
    assert shown(prof.run, Phase.VISION)["visual.blocks.2"] == (2, 16, 16)
    for number, positions in enumerate((21, 21, 13, 13)):
        found = rows(prof.run, f"layers.{number}")
        assert (found[Phase.PREFILL].tokens_per_call, found[Phase.PREFILL].kv_per_call) == (positions, positions)
        assert found[Phase.PREFILL].flops == 2 * block_flops(positions, positions**2)
        assert (found[Phase.DECODE].tokens_per_call, found[Phase.DECODE].kv_per_call) == (1, positions + 2)
