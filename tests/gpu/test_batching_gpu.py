"""On a CUDA device: continuous batching inside `LayerProfiler`, with its streams, its thread and its graphs."""

from __future__ import annotations

from typing import Any

import odd_layouts
import pytest
from page_sizes import page_size

from layerprof import LayerProfiler
from layerprof.records import Phase

pytestmark = pytest.mark.gpu
torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)

PROMPTS = [[3, 4, 5, 6, 7, 8, 9], [5, 6, 7], [9] * 12]


def batched(model: Any, **how: Any) -> dict[str, list[int]]:
    """Generate five new tokens for each prompt, at most 8 positions a step."""
    from transformers import ContinuousBatchingConfig, GenerationConfig

    sizes = {"max_batch_tokens": 8, "num_blocks": 32, "auto_switch_to_flash": False} | page_size(16) | how
    config: Any = GenerationConfig(max_new_tokens=5, do_sample=False, eos_token_id=-1)  # type: ignore[no-untyped-call]  # untyped there
    made = model.generate_batch(
        PROMPTS, generation_config=config, continuous_batching_config=ContinuousBatchingConfig(**sizes)
    )
    return {name: output.generated_tokens for name, output in made.items()}


@pytest.fixture
def model() -> Any:
    """Return a decoder of two layers."""
    return odd_layouts.llama().eval().cuda()


@pytest.mark.parametrize("flops", ["once", "off"])
def test_steps_are_told_apart_and_timed_by_events(model: Any, flops: Any) -> None:
    """Two steps on prompts, a mixed one of 6 and 2 positions, four on answers; answers are those without us."""
    expected = batched(model)
    with LayerProfiler(model, flops=flops) as prof:
        assert batched(model) == expected
    rows = {row.phase: row for row in prof.run.layers if row.name == "model.layers.0"}
    assert {phase: row.calls for phase, row in rows.items()} == {Phase.PREFILL: 2, Phase.MIXED: 1, Phase.DECODE: 4}
    assert (rows[Phase.MIXED].mixed_prefill_tokens, rows[Phase.MIXED].mixed_decode_tokens) == (6, 2)
    assert all(row.span_s is not None and row.span_s.total > 0 for row in rows.values())
    if flops == "once":
        assert prof.run.ledger.flops.residual == 0


def test_steps_that_are_replayed_are_said_to_be_in_no_layer(model: Any) -> None:
    """With CUDA graphs the answers are the same, and the run says where the steps went."""
    expected = batched(model, use_cuda_graph=True)
    with LayerProfiler(model) as prof:
        assert batched(model, use_cuda_graph=True) == expected
    assert any("captured into CUDA graphs" in warning for warning in prof.run.warnings)
