"""`generate_batch`: continuous batching on a thread of its own, whose steps mix prompts and answers.

Three prompts of 7, 3 and 12 tokens, at most 8 positions a step, five new tokens each. The scheduler of transformers
takes the longest first, so that its steps are, as (new positions, positions before) of each sequence:

    (8, 0)                        prefill   8 positions of prompts
    (4, 8) (3, 0) (1, 0)          prefill   8
    (1, 12) (1, 3) (6, 1)         mixed     6 and 2 of answers
    (1, 13) (1, 4) (1, 7)         decode, and so on: three steps of 3, one of 1
"""

from __future__ import annotations

from typing import Any

import odd_layouts
import pytest
import torch
import transformers
from page_sizes import page_size
from transformers import ContinuousBatchingConfig, GenerationConfig

from layerprof import LayerProfiler
from layerprof.measure.outer_calls import Calls
from layerprof.records import LayerRow, Phase, Run

PROMPTS = [[3, 4, 5, 6, 7, 8, 9], [5, 6, 7], [9] * 12]
NEW = 5
CONFIG: Any = GenerationConfig(max_new_tokens=NEW, do_sample=False, eos_token_id=-1)  # type: ignore[no-untyped-call]  # untyped there
STEPS = [[(8, 0)], [(4, 8), (3, 0), (1, 0)], [(1, 12), (1, 3), (6, 1)]]
STEPS += [[(1, 12 + n), (1, 3 + n), (1, 6 + n)] for n in (1, 2, 3)] + [[(1, 10)]]
WEIGHTS = 32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 48


def batched(model: Any, prompts: list[list[int]] | None = None, **more: Any) -> dict[str, Any]:
    """Generate with continuous batching, greedily, without an end mark."""
    made: dict[str, Any] = model.generate_batch(
        PROMPTS if prompts is None else prompts,
        generation_config=CONFIG,
        continuous_batching_config=ContinuousBatchingConfig(max_batch_tokens=8, num_blocks=32, **page_size(16)),
        **more,
    )
    return made


def model(attention: str = "sdpa") -> Any:
    """Make a model of two decoder layers."""
    found = odd_layouts.llama().eval()
    found.set_attn_implementation(attention)
    return found


def row(run: Run, name: str, phase: Phase) -> LayerRow:
    """Return one row."""
    (found,) = (row for row in run.layers if row.name == name and row.phase is phase)
    return found


def flops(steps: list[list[tuple[int, int]]]) -> int:
    """Count a layer's products, and attention as it is executed: all positions of a step by all keys of it."""
    total = 0
    for step in steps:
        new, keys = sum(n for n, _ in step), sum(n + before for n, before in step)
        total += 2 * WEIGHTS * new + 2 * 2 * 32 * new * keys
    return total


def useful(steps: list[list[tuple[int, int]]]) -> int:
    """Count the same, with attention within sequences alone."""
    return sum(2 * WEIGHTS * n + 2 * 2 * 32 * n * (n + before) for step in steps for n, before in step)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_prompts_and_answers_are_told_apart_with_their_flops(attention: str) -> None:
    """Seven steps of one call: two prefill, one mixed, four decode, in every layer; answers are those without us.

    Keys and values of 2 heads x 8 numbers of 4 bytes are read of all positions before, and written of the new ones.
    """
    batch = model(attention)
    expected = {name: output.generated_tokens for name, output in batched(batch).items()}
    with LayerProfiler(batch) as prof:
        found = batched(batch)
    assert {name: output.generated_tokens for name, output in found.items()} == expected
    run = prof.run
    parts = {Phase.PREFILL: STEPS[:2], Phase.MIXED: STEPS[2:3], Phase.DECODE: STEPS[3:]}
    for name in ("model.layers.0", "model.layers.1"):
        for phase, steps in parts.items():
            line = row(run, name, phase)
            assert (line.calls, line.flops, line.flops_useful) == (len(steps), flops(steps), useful(steps))
            assert line.bytes_kv == 2 * 2 * 8 * 4 * sum(new + before for step in steps for new, before in step)
    for name in ("model.embed_tokens", "model.norm", "lm_head"):
        assert [row(run, name, phase).calls for phase in parts] == [2, 1, 4]
    assert run.samples == 3
    assert run.ledger.flops.residual == 0
    assert run.ledger.flops.not_counted == {}
    assert len(prof.run.passes["decode_by_step"]) == 4


def test_mixed_rows_say_what_entered() -> None:
    """Six positions of prompts and two of answers, in every layer's row; rows of other phases have no such figure."""
    batch = model()
    with LayerProfiler(batch, flops="off") as prof:
        batched(batch)
    mixed = [row for row in prof.run.layers if row.phase is Phase.MIXED]
    others = [row for row in prof.run.layers if row.phase is not Phase.MIXED]
    assert {(row.mixed_prefill_tokens, row.mixed_decode_tokens) for row in mixed} == {(6, 2)}
    assert {(row.mixed_prefill_tokens, row.mixed_decode_tokens) for row in others} == {(None, None)}
    assert {row.name for row in mixed} == {row.name for row in others}


def test_a_second_batch_is_known_by_its_lengths() -> None:
    """The same prompts again do the same, checked on the way; twice the calls and twice the FLOPs."""
    batch = model()
    with LayerProfiler(batch) as prof:
        for _ in range(3):
            batched(batch)
    assert row(prof.run, "model.layers.0", Phase.MIXED).flops == 3 * flops(STEPS[2:3])
    assert prof.run.ledger.flops.residual == 0
    counted = prof.run.passes["counting"]
    assert (counted["steps"], counted["missed"]) == (21, 0)
    assert counted["known"] > 0


def test_a_prompt_s_last_chunk_of_one_is_prefill() -> None:
    """9 tokens in steps of 8: a chunk of 8 and one of 1; then four steps of decode."""
    batch = model()
    with LayerProfiler(batch, flops="off") as prof:
        batched(batch, [list(range(3, 12))])
    found = {row.phase: row.calls for row in prof.run.layers if row.name == "lm_head"}
    assert found == {Phase.PREFILL: 2, Phase.DECODE: 4}


def test_a_window_is_counted_as_executed() -> None:
    """A window of 4: each sequence reads at most 3 positions before its new ones. Prompts come in the order given."""
    torch.manual_seed(0)
    config = transformers.MistralConfig(
        vocab_size=128, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=4, eos_token_id=None,
    )  # fmt: skip
    batch: Any = transformers.MistralForCausalLM(config)
    batch.eval()
    with LayerProfiler(batch) as prof:
        batched(batch)
    steps = [[(7, 0), (1, 0)], [(1, 7), (2, 1), (5, 0)], [(1, 8), (1, 3), (6, 5)]]
    steps += [[(1, 9), (1, 4), (1, 11)], [(1, 10), (1, 5), (1, 12)], [(1, 6), (1, 13)], [(1, 14)], [(1, 15)]]
    assert row(prof.run, "model.layers.0", Phase.MIXED).bytes_kv == 2 * 2 * 8 * 4 * (12 + 17)
    near = [[(new, min(before, 3)) for new, before in step] for step in steps]
    line = row(prof.run, "model.layers.0", Phase.MIXED)
    assert (line.flops, line.flops_useful) == (flops(near[1:3]), useful(near[1:3]))
    assert (line.mixed_prefill_tokens, line.mixed_decode_tokens) == (2 + 5 + 6, 1 + 2)
    assert row(prof.run, "model.layers.0", Phase.DECODE).flops == flops(near[3:])


def test_a_repeat_is_not_made_of_it() -> None:
    """A repeat would not see the thread that it works on; the reason says so, and times are there."""
    batch = model()
    with LayerProfiler(batch, flops="rerun") as prof:
        batched(batch)
    assert prof.run.totals.flops is None
    assert "thread of its own" in str(prof.run.ledger.flops.reason)
    assert row(prof.run, "model.layers.0", Phase.MIXED).span_s is not None


def test_no_prompts_are_no_rows() -> None:
    """An empty batch is answered with nothing, and is a call of no samples."""
    batch = model()
    with LayerProfiler(batch) as prof:
        assert batched(batch, []) == {}
    assert prof.run.samples == 0
    assert prof.run.warnings == ()


def test_other_threads_are_still_others() -> None:
    """Passes of a thread without the batch's cache are no steps of it."""
    batch = model()

    class Observer:
        """Measures nothing."""

        steps = 0

    calls = Calls(batch, Observer())  # type: ignore[arg-type]  # it is never told of anything
    calls._batching, calls._thread = True, -1
    assert not calls._own_thread({"input_ids": torch.ones(1, 2)})
    assert calls._own_thread({"cache": type("PagedAttentionCache", (), {})()})
