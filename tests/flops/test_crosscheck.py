"""Other counters beside ours: their figures as they give them, and the reason of each difference."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import families
import pytest
import torch
from rich.console import Console
from torch import nn

from layerprof.flops import crosscheck
from layerprof.flops.crosscheck import CrossCheck, CrossRow, explain
from layerprof.report.crosscheck import render

MAC = "1 per multiply-accumulate"
HEAD = "head on every position"
ATTENTION = "attention missing"


@pytest.fixture(scope="module")
def sdpa() -> CrossCheck:
    """Cross-check a small Qwen2.5-VL with fused attention."""
    family = families.build("qwen2_5_vl", "sdpa")
    return crosscheck.crosscheck(family.model, family.inputs)


def row(check: CrossCheck, kind: str) -> CrossRow:
    """Return the row of a kind of layer."""
    return next(r for r in check.rows if r.kind == kind)


def test_all_peers_count_the_model(sdpa: CrossCheck) -> None:
    """None fails on the architecture that this is for."""
    assert [(peer.name, peer.failure) for peer in sdpa.peers] == [
        ("FlopCounterMode", None),
        ("fvcore", None),
        ("ptflops", None),
    ]


def test_layers_without_attention_agree_but_for_the_convention(sdpa: CrossCheck) -> None:
    """The patch embedding is one convolution: FlopCounterMode counts the same, fvcore and ptflops half."""
    patch = row(sdpa, "patch_embed")
    assert patch.flops == 2 * 48 * 1176 * 32
    assert patch.peers == {"FlopCounterMode": patch.flops, "fvcore": patch.flops / 2, "ptflops": patch.flops / 2}
    assert patch.reasons == {"FlopCounterMode": "equal", "fvcore": MAC, "ptflops": MAC}


def test_fused_attention_is_what_all_peers_miss(sdpa: CrossCheck) -> None:
    """On a CPU none knows the flash kernel; what is missing is exactly the attention part of ours."""
    layer = row(sdpa, "decoder_layer")
    rows, prompt = 2, 13
    assert layer.attention_flops == 2 * 4 * rows * prompt**2 * 32
    assert layer.peers["FlopCounterMode"] == (layer.flops or 0) - layer.attention_flops
    assert layer.reasons["FlopCounterMode"] == ATTENTION
    assert layer.reasons["fvcore"] == f"{MAC}, {ATTENTION}"
    assert layer.reasons["ptflops"].startswith(f"{MAC}, {ATTENTION}")


def test_the_head_is_scored_once_by_us(sdpa: CrossCheck) -> None:
    """`model(**inputs)` scores all 13 positions, `generate()` one."""
    head = row(sdpa, "lm_head")
    assert sdpa.positions == 13
    assert head.flops == 2 * 2 * 32 * 128
    assert head.peers["FlopCounterMode"] == 13 * head.flops
    assert head.reasons == {"FlopCounterMode": HEAD, "fvcore": f"{MAC}, {HEAD}", "ptflops": f"{MAC}, {HEAD}"}


def test_the_total_has_all_reasons_together(sdpa: CrossCheck) -> None:
    """Rows add up to the total, ours and theirs."""
    total = row(sdpa, "total")
    parts = [r for r in sdpa.rows if r.kind != "total"]
    assert sum(r.flops or 0 for r in parts) == total.flops
    for name in ("FlopCounterMode", "fvcore"):
        assert sum(r.peers[name] or 0 for r in parts) == total.peers[name]
    assert total.reasons["FlopCounterMode"] == f"{HEAD}, {ATTENTION}"


def test_under_eager_attention_the_oracle_agrees_everywhere() -> None:
    """Only the head differs; ptflops counts attention as well, but gives it to no module."""
    family = families.build("qwen2_5_vl", "eager")
    check = crosscheck.crosscheck(family.model, family.inputs)
    reasons = {r.kind: r.reasons["FlopCounterMode"] for r in check.rows if r.flops}
    assert {kind for kind, reason in reasons.items() if reason != "equal"} == {"lm_head", "total"}
    assert row(check, "total").reasons["FlopCounterMode"] == HEAD
    assert row(check, "outside layers").reasons["ptflops"] == "counted, but for no module"


def test_a_peer_that_fails_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its column is empty and its error is kept; the others are not disturbed."""

    def broken(model: Any, inputs: Mapping[str, Any]) -> Any:
        raise TypeError("cannot trace this\nsecond line")

    monkeypatch.setattr(crosscheck, "PEERS", (crosscheck.PEERS[0], ("fvcore", "flop", True, broken)))
    family = families.build("llama", "sdpa")
    check = crosscheck.crosscheck(family.model, family.inputs)
    assert check.peers[1].failure == "TypeError: cannot trace this"
    assert all(r.peers["fvcore"] is None for r in check.rows)
    assert row(check, "decoder_layer").reasons == {"FlopCounterMode": ATTENTION}
    assert "failed: TypeError: cannot trace this" in rendered(check, 80)


def test_nothing_of_the_peers_stays_on_the_model() -> None:
    """Afterwards the model answers as before, without a hook or a patched function."""
    family = families.build("qwen2_5_vl", "sdpa")
    before = families.run(family), set(vars(family.model)), torch.nn.functional.linear
    crosscheck.crosscheck(family.model, family.inputs)
    assert torch.equal(families.run(family), before[0])
    assert set(vars(family.model)) == before[1]
    assert torch.nn.functional.linear is before[2]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in family.model.modules())


@pytest.mark.parametrize("name", ["llava", "mllama", "t5", "vit", "qwen3_vl_moe"])
def test_other_families_have_a_table_too(name: str) -> None:
    """Encoders, encoder-decoders, cross-attention, experts: each kind has a row, and our total is the layers'."""
    family = families.build(name, "eager")
    check = crosscheck.crosscheck(family.model, family.inputs)
    assert sum(r.flops or 0 for r in check.rows if r.kind != "total") == row(check, "total").flops
    assert check.peers[0].failure is None


@pytest.mark.parametrize(
    ("value", "flops", "attention", "more_head", "macs", "misses", "expected"),
    [
        (100, 100, 0, 0, False, False, "equal"),
        (50, 100, 0, 0, True, False, MAC),
        (80, 100, 20, 0, False, False, ATTENTION),
        (40, 100, 20, 0, True, True, f"{MAC}, {ATTENTION}"),
        (700, 100, 0, 600, False, False, HEAD),
        (51, 100, 0, 0, True, False, f"{MAC}, plus 2.00% elementwise and bias"),
        (120, 100, 0, 0, False, False, "+20.0% unexplained"),
        (60, 100, 0, 0, False, False, "-40.0% unexplained"),
        (0, 100, 0, 0, False, False, "not counted"),
        (0, 0, 0, 0, False, False, ""),
        (5, 0, 0, 0, True, False, "elementwise"),
    ],
)
def test_each_difference_has_its_words(
    value: float, flops: int, attention: int, more_head: int, macs: bool, misses: bool, expected: str
) -> None:
    """The known differences, alone and together, and honesty about the rest."""
    own = crosscheck.OwnCount("decoder_layer", flops, attention)
    assert explain(value, own, more_head=more_head, macs=macs, misses_attention=misses) == expected


def rendered(check: CrossCheck, width: int) -> str:
    """Render to text of a width."""
    out = io.StringIO()
    render(check, Console(file=out, width=width))
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_its_width(sdpa: CrossCheck, width: int) -> None:
    """All counters stand side by side, each reason is given once per peer."""
    text = rendered(sdpa, width)
    assert max(map(len, text.splitlines())) <= width
    for word in ("layerprof", "FlopCounterMode", "fvcore", "ptflops", "decoder_layer", HEAD, ATTENTION, MAC):
        assert word in text


def test_own_models_can_be_checked() -> None:
    """A plain module with one tensor input, without `generate`."""

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Sequential(nn.Linear(8, 8)) for _ in range(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                x = layer(x)
            return x

    check = crosscheck.crosscheck(Own(), {"x": torch.ones(3, 8)})
    assert row(check, "total").flops == row(check, "total").peers["FlopCounterMode"] == 2 * 2 * 3 * 64
    assert [peer.failure for peer in check.peers] == [None, None, None]
