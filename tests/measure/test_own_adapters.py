"""LoRA adapters in `LayerProfiler`: seen inside the layers that they are in, to the FLOP and to the byte."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from layerprof import LayerProfiler
from layerprof.models.load import load_model
from layerprof.models.source import resolve
from layerprof.records import Run

peft: Any = pytest.importorskip("peft", reason="peft is not installed")

RANK, PROMPT, NEW = 4, 12, 3
WIDTH, KEPT = 192, 64
"""Query and value of the bundled model: 192 to 192, and 192 to 64."""
INSIDE = "base_model.model."


def _bundled() -> Any:
    return load_model(resolve("demo", device="cpu", dtype="fp32")).model


def _profiled(model: Any, layers: str = "all") -> Run:
    ids = torch.arange(5, 5 + PROMPT).unsqueeze(0)
    with torch.no_grad(), LayerProfiler(model.eval(), layers=layers, flops="together") as prof:
        model.generate(input_ids=ids, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False)
    return prof.run


def _adapted() -> Any:
    targets = r".*language_model.*\.(q_proj|v_proj)"
    return peft.get_peft_model(_bundled(), peft.LoraConfig(r=RANK, target_modules=targets))


@pytest.fixture(scope="module")
def adapted() -> Any:
    """Give the bundled model, with an adapter on query and value of every decoder layer."""
    return _adapted()


def test_layers_are_those_of_the_base_and_hold_the_adapter(adapted: Any) -> None:
    """2 * r * (in + out) FLOPs a position and matrix, and as many numbers of A and B, are added to a decoder layer."""
    base, run = _profiled(_bundled()), _profiled(adapted)
    rows = {(row.name.removeprefix(INSIDE), row.phase): row for row in run.layers}
    without = {(row.name, row.phase): row for row in base.layers}
    assert rows.keys() == without.keys()
    numbers = RANK * (WIDTH + WIDTH) + RANK * (WIDTH + KEPT)
    for place, row in rows.items():
        plain, is_block = without[place], row.kind == "decoder_layer"
        assert (row.tower, row.kind, row.index, row.calls) == (plain.tower, plain.kind, plain.index, plain.calls)
        positions = PROMPT if row.phase == "prefill" else NEW - 1
        assert (row.flops or 0) - (plain.flops or 0) == is_block * 2 * numbers * positions
        assert (row.bytes_weights or 0) - (plain.bytes_weights or 0) == is_block * 4 * numbers * row.calls
    assert (run.ledger.flops.residual, run.uncounted_ops) == (0, {})


@pytest.mark.parametrize(
    "selector",
    ["language[0].self_attn.q_proj.lora_A", f"{INSIDE}model.language_model.layers.0.self_attn.q_proj.lora_A"],
)
def test_a_selector_reaches_the_adapter(adapted: Any, selector: str) -> None:
    """A dictionary of adapters is never called: the row is that of the one in it."""
    (prefill, _) = _profiled(adapted, selector).layers
    assert prefill.name.endswith("layers.0.self_attn.q_proj.lora_A.default")
    assert (prefill.flops, prefill.bytes_weights) == (2 * PROMPT * WIDTH * RANK, 4 * WIDTH * RANK)


def test_an_adapter_on_quantised_weights_is_seen_as_well() -> None:
    """NF4 of bitsandbytes below, ordinary matrices of the adapter above: its FLOPs are the same."""
    from peft.tuners.lora.bnb import Linear4bit

    source = resolve("demo", device="cpu", dtype="fp32", quantization="nf4")
    model = load_model(source).model
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=RANK, target_modules=r".*language_model.*\.q_proj"))
    assert any(isinstance(module, Linear4bit) for module in adapted.modules())
    row = _profiled(adapted, "language[0].self_attn.q_proj.lora_A").layers[0]
    assert row.flops == 2 * PROMPT * WIDTH * RANK
