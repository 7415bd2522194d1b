"""Speculative decoding: the prompt's pass is prefill, every pass that checks drafts after it is decode."""

from __future__ import annotations

import copy
from typing import Any

import odd_layouts
import pytest
import torch

from layerprof import LayerProfiler
from layerprof.records import Phase, Run

IDS = torch.tensor([[3, 4, 5, 6, 3, 4, 5, 6, 3, 4]])
NEW = 8
WEIGHTS = 32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 48


def profiled(model: Any, **how: Any) -> tuple[Run, list[int], int]:
    """Generate; return the run, how many positions each pass was given, and the length of the answered sequence."""
    given: list[int] = []

    def note(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        ids = kwargs.get("decoder_input_ids")
        given.append((kwargs["input_ids"] if ids is None else ids).shape[1])

    handle = model.register_forward_pre_hook(note, with_kwargs=True)
    asked = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False} | how
    with LayerProfiler(model) as prof, torch.no_grad():
        sequences = model.generate(**{"input_ids": IDS} | asked)
    handle.remove()
    return prof.run, given, sequences.shape[1]


def calls(run: Run, kind: str) -> list[dict[Phase, int]]:
    """Return the calls by phase of each layer of a kind."""
    names = dict.fromkeys(row.name for row in run.layers if row.kind == kind)
    return [{row.phase: row.calls for row in run.layers if row.name == name} for name in names]


def repetitive() -> Any:
    """Make a model that answers with one token forever, so that what is looked up in its prompt is right."""
    model = odd_layouts.llama().eval()
    with torch.no_grad():
        model.lm_head.weight.zero_()
    return model


def test_an_equal_draft_model_is_always_right() -> None:
    """It drafts one token a step: the prompt's pass gives two, and so do three of decode; its work is no layer's."""
    model = odd_layouts.llama().eval()
    draft = copy.deepcopy(model)
    draft.generation_config.num_assistant_tokens = 1
    draft.generation_config.num_assistant_tokens_schedule = "constant"
    run, given, length = profiled(model, assistant_model=draft)
    assert (given, length) == ([11, 2, 2, 2], 18)
    for kind in ("embed_tokens", "decoder_layer", "norm", "lm_head"):
        assert all(found == {Phase.PREFILL: 1, Phase.DECODE: 3} for found in calls(run, kind))
    decode = sum(2 * WEIGHTS * 2 + 2 * 2 * 32 * 2 * keys for keys in (13, 15, 17))
    assert [row.flops for row in run.layers if row.kind == "decoder_layer" and row.phase is Phase.DECODE] == [
        decode
    ] * 2
    assert run.totals.accepted_per_step == 2
    assert run.ledger.flops.rest["outside layers: outside the model"] > 0


def test_prompt_lookup_keeps_what_it_looked_up() -> None:
    """An answer of one token forever, looked up once it stands twice in the sequence: what was kept over the steps."""
    run, given, length = profiled(repetitive(), input_ids=torch.tensor([[3, 4, 0, 0]]), prompt_lookup_num_tokens=2)
    assert length == 4 + NEW
    first, *steps = given
    assert max(steps) > 1
    assert all(found == {Phase.PREFILL: 1, Phase.DECODE: len(steps)} for found in calls(run, "decoder_layer"))
    kept_of_prefill = first - 4 + 1  # all drafts are right
    assert run.totals.accepted_per_step == (NEW - kept_of_prefill) / len(steps)


@pytest.mark.parametrize("make", [odd_layouts.bart, odd_layouts.fsmt], ids=["bart", "fsmt"])
def test_an_encoder_decoder_begins_with_its_own_first_token(make: Any) -> None:
    """The decoder's prompt is the token that `generate` makes; steps of several positions after it are decode."""
    run, given, length = profiled(make().eval(), prompt_lookup_num_tokens=3)
    assert given[0] == 1
    decode = len(given) - 1
    decoders = [found for found in calls(run, "decoder_layer") if Phase.DECODE in found]
    assert decoders == [{Phase.PREFILL: 1, Phase.DECODE: decode}] * 2
    assert run.totals.accepted_per_step == (length - 2) / decode


@pytest.mark.parametrize("how", [{}, {"num_beams": 2}, {"prefill_chunk_size": 4}], ids=["plain", "beams", "chunks"])
def test_where_nothing_is_drafted_there_is_no_such_figure(how: dict[str, Any]) -> None:
    """Every step gives a row one token."""
    run, *_ = profiled(odd_layouts.llama().eval(), **how)
    assert run.totals.accepted_per_step is None


def test_a_model_that_drafts_for_itself_has_its_calls_told_in_every_layer() -> None:
    """With early exit the first layer runs for drafts, too: the embedding tells the second prompt as the layers do."""
    run, _, _ = profiled(odd_layouts.llama().eval(), assistant_early_exit=1)
    assert calls(run, "embed_tokens") == calls(run, "decoder_layer")[:1]
    assert run.totals.accepted_per_step is None
