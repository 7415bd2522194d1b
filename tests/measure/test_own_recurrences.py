"""Decoders without attention, and hybrids: phases, products by hand, and what of their work has no formula."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from layerprof import LayerProfiler
from layerprof.layers.find import find_layers
from layerprof.records import Phase, Run

ROWS, PROMPT, NEW, WIDTH, STATES = 1, 12, 4, 32, 8
SMALL: dict[str, Any] = {"vocab_size": 99, "hidden_size": WIDTH, "num_hidden_layers": 2}
HEADS: dict[str, Any] = {"intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}


def _made(name: str, **config: Any) -> Any:
    torch.manual_seed(0)
    asked = getattr(transformers, f"{name}Config")(**(SMALL | config))
    return getattr(transformers, f"{name}ForCausalLM")(asked).eval()


def mamba() -> Any:
    """Two blocks of a selective scan."""
    return _made("Mamba", state_size=STATES)


MODELS: dict[str, tuple[Callable[[], Any], list[str], list[int]]] = {
    "mamba": (mamba, ["MambaMixer"], []),
    "falcon_mamba": (lambda: _made("FalconMamba", state_size=STATES), ["FalconMambaMixer"], []),
    "mamba2": (
        lambda: _made("Mamba2", state_size=16, num_heads=4, head_dim=16, n_groups=1, chunk_size=4),
        ["Mamba2Mixer"],
        [],
    ),
    "rwkv": (lambda: _made("Rwkv", attention_hidden_size=WIDTH, context_length=64), ["RwkvSelfAttention"], []),
    "jamba": (
        lambda: _made(
            "Jamba", **HEADS, attn_layer_period=2, attn_layer_offset=1, num_experts=2, use_mamba_kernels=False
        ),
        ["JambaMambaMixer"],
        [1],
    ),
    "bamba": (
        lambda: _made("Bamba", **HEADS, attn_layer_indices=[1], mamba_n_heads=4, mamba_d_head=16, mamba_d_state=16),
        ["BambaMixer"],
        [1],
    ),
    "recurrent_gemma": (
        lambda: _made(
            "RecurrentGemma",
            intermediate_size=48,
            num_attention_heads=4,
            lru_width=WIDTH,
            attention_window_size=64,
            block_types=["recurrent", "attention"],
        ),
        ["RecurrentGemmaRglru"],
        [1],
    ),
    "qwen3_next": (
        lambda: _made(
            "Qwen3Next",
            **HEADS,
            head_dim=8,
            linear_num_key_heads=2,
            linear_num_value_heads=4,
            linear_key_head_dim=8,
            linear_value_head_dim=8,
            num_experts=2,
            num_experts_per_tok=1,
            moe_intermediate_size=16,
            shared_expert_intermediate_size=16,
            layer_types=["linear_attention", "full_attention"],
        ),
        ["Qwen3NextGatedDeltaNet"],
        [1],
    ),
    "lfm2": (lambda: _made("Lfm2", **HEADS, layer_types=["conv", "full_attention"]), [], [1]),
}
"""Name -> builder, the recurrent parts of its layers, the layers that attend."""


def generated(model: Any) -> Run:
    """Profile one `generate()` of a prompt of 12 and 4 new tokens."""
    ids = torch.arange(5, 5 + PROMPT).unsqueeze(0)
    with torch.no_grad(), LayerProfiler(model, flops="together") as prof:
        model.generate(input_ids=ids, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False)
    return prof.run


@pytest.mark.parametrize("name", MODELS)
def test_phases_positions_and_flops_of_models_with_a_state(name: str) -> None:
    """A state has no length: prefill is told all the same, and only what attends reads keys; nothing is missing."""
    build, kinds, attending = MODELS[name]
    model = build()
    assert list(dict.fromkeys(x.recurs for x in find_layers(model) if x.recurs)) == kinds
    run = generated(model)
    rows = [row for row in run.layers if row.kind == "decoder_layer"]
    assert {(row.index, row.phase, row.calls, row.tokens_per_call) for row in rows} == {
        (index, *told) for index in range(2) for told in ((Phase.PREFILL, 1, PROMPT), (Phase.DECODE, NEW - 1, 1))
    }
    assert {row.tower for row in rows} == {"language"}
    assert {row.index for row in rows if row.kv_per_call is not None} == set(attending)
    assert (run.uncounted_ops, run.ledger.flops.residual) == ({}, 0)


@pytest.mark.parametrize("name", MODELS)
def test_a_recurrence_is_told_with_its_layers_and_their_time(name: str) -> None:
    """Steps from position to position are no products: the run says so, of the layers that have them only."""
    build, kinds, attending = MODELS[name]
    told = [warning for warning in generated(build()).warnings if "recurrence" in warning]
    assert len(told) == bool(kinds)
    for warning in told:
        assert all(kind in warning for kind in kinds)
        assert "% of the time" in warning
        assert not any(f"layers.{index}" in warning for index in attending)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("mamba", "backbone.layers.0.mixer"),
        ("falcon_mamba", "backbone.layers.0.mixer"),
        ("mamba2", "backbone.layers.0.mixer"),
        ("rwkv", "rwkv.blocks.0.attention"),
        ("jamba", "model.layers.0.mamba"),
        ("bamba", "model.layers.0.mamba"),
        ("recurrent_gemma", "model.layers.0.temporal_block"),
        ("qwen3_next", "model.layers.0.linear_attn"),
        ("lfm2", "model.layers.0.conv"),
    ],
)
def test_products_of_a_recurrence_are_those_of_torch_s_counter(name: str, part: str) -> None:
    """In matrix form or step by step: whatever products ran are counted, by a peer as by us."""
    model, ids = MODELS[name][0](), torch.arange(5, 5 + PROMPT).unsqueeze(0)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(ids, use_cache=False)
    with torch.no_grad(), LayerProfiler(model, layers=part, flops="together") as prof:
        model(ids, use_cache=False)
    ours = {f"{type(model).__name__}.{row.name}": row.flops for row in prof.run.layers}
    peer = {place: sum(counter.get_flop_counts()[place].values()) for place in ours}
    # In each of four heads 64 rows are solved for 8 + 8 columns by substitution, which the peer does not count.
    solved = 4 * 64 * 63 * (8 + 8) if name == "qwen3_next" else 0
    assert list(ours.values()) == [flops + solved for flops in peer.values()]
    assert len(ours) == 1


def test_a_selective_scan_by_hand() -> None:
    """Mamba's block: four projections, a convolution over four positions, and one product of state and C a position."""
    inner, rank, kernel = 2 * WIDTH, WIDTH // 16, 4
    projections = WIDTH * 2 * inner + inner * (rank + 2 * STATES) + rank * inner + inner * WIDTH
    convolved = (PROMPT + kernel - 1) * inner * kernel
    scanned = PROMPT * inner * STATES
    row = generated(mamba()).layers[1]
    assert (row.kind, row.phase) == ("decoder_layer", Phase.PREFILL)
    assert row.flops == 2 * (PROMPT * projections + convolved + scanned)


def test_a_fused_scan_is_not_counted_and_no_elementwise_steps_are_claimed() -> None:
    """Where an operator without a formula ran in a layer, the run says `at least` of it, and nothing of its steps."""
    library: Any = torch.library.Library("lp_scan", "DEF")  # type: ignore[no-untyped-call]  # untyped there
    library.define("fwd(Tensor x) -> Tensor")
    library.impl("fwd", lambda x: x.clone(), "CPU")
    model = mamba()
    for block in model.backbone.layers:
        block.mixer.forward = lambda hidden, *_args, **_kwargs: torch.ops.lp_scan.fwd(hidden)
    run = generated(model)
    library._destroy()
    assert run.uncounted_ops == {"lp_scan::fwd": 2 * NEW}
    assert any("lp_scan::fwd in backbone.layers.0, backbone.layers.1" in warning for warning in run.warnings)
    assert not any("recurrence" in warning for warning in run.warnings)
