"""The estimate of a model whose weights are stored in another format: by hand, and against models that really are."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from importlib.resources import files
from typing import Any

import pytest
import torch
from layerprof.hooks.shapes import ShapesHook
from rich.console import Console

from layerprof.demo import MODEL_FOLDER
from layerprof.errors import RequestError, SelectorError
from layerprof.estimate.estimate import estimate
from layerprof.estimate.result import Estimate, EstimateRow
from layerprof.layers.find import find_layers
from layerprof.machine import stored
from layerprof.records import Phase
from layerprof.report.estimate import render

CONFIG: dict[str, Any] = json.loads((files("layerprof.models") / "qwen2_5_vl_3b.json").read_text())
HIDDEN, WIDE, KEYS = 2048, 11008, 256
"""Sizes of the 3B's decoder: width, that of its MLP, that of its keys and of its values."""
MATRICES = (
    *((HIDDEN, HIDDEN), (KEYS, HIDDEN), (KEYS, HIDDEN), (HIDDEN, HIDDEN)),
    *((WIDE, HIDDEN), (WIDE, HIDDEN), (HIDDEN, WIDE)),
)
"""(rows, columns) of a decoder layer's q, k, v, o, gate, up and down."""
REST = 2 * (HIDDEN + KEYS + KEYS) + 2 * 2 * HIDDEN
"""Bytes of its biases of q, k and v and of its two norms, in fp16."""
ELEMENTS = sum(rows * columns for rows, columns in MATRICES)
ROWS = sum(rows for rows, _ in MATRICES)
BY_HAND = {
    "int8": ELEMENTS + 5 * ROWS,
    "fp8": ELEMENTS + 4 * ROWS,
    "nf4": ELEMENTS // 2 + 4 * ELEMENTS // 64 + 7 * 64,
    # Groups of 128 columns, padded for the kernel: 11,008 columns to 11,264.
    "int4": sum(r * c // 2 + 4 * r * c // 128 for r, c in [*MATRICES[:6], (HIDDEN, 11264)]),
}


def layer(of: Estimate, kind: str, phase: Phase) -> EstimateRow:
    """Return the first row of a kind in a phase."""
    return next(row for row in of.layers if (row.kind, row.phase) == (kind, phase))


def small(**given: Any) -> Estimate:
    """Estimate the bundled model on a short prompt."""
    return estimate("demo", image_size=112, text_tokens=9, **({"new_tokens": 3} | given))


@pytest.mark.parametrize("name", BY_HAND)
def test_a_decoder_layers_bytes_are_those_of_its_layout(name: str) -> None:
    """One decode step of the 3B: codes and what stands beside them, biases and norms as they are; FLOPs stay."""
    got = estimate(CONFIG, image_size=56, text_tokens=3, new_tokens=2, quantization=name)
    row = layer(got, "decoder_layer", Phase.DECODE)
    assert row.bytes_weights == BY_HAND[name] + REST
    assert row.bytes_unquantized is not None
    assert row.bytes_unquantized - row.bytes == 2 * ELEMENTS - BY_HAND[name]
    assert row.weights_dtype == f"{name} + fp16"
    assert row.flops == estimate(CONFIG, image_size=56, text_tokens=3, new_tokens=2).layers[got.layers.index(row)].flops


def test_what_gains_and_what_does_not() -> None:
    """On an H200, decode is bound by memory and the vision blocks by arithmetic: one takes half, the other as long."""
    got = estimate(CONFIG, image_size=448, text_tokens=66, new_tokens=2, gpu="H200", quantization="int8")
    decode, vision = layer(got, "decoder_layer", Phase.DECODE), layer(got, "vision_block", Phase.VISION)
    assert decode.bytes_unquantized is not None
    assert decode.time_bound_s == pytest.approx(decode.bytes / 4.8e12)
    assert decode.time_bound_unquantized_s == pytest.approx(decode.bytes_unquantized / 4.8e12)
    assert 1.9 < decode.bytes_unquantized / decode.bytes < 2
    assert (vision.bound, vision.time_bound_s) == ("compute", vision.time_bound_unquantized_s)
    head = layer(got, "lm_head", Phase.DECODE)
    assert (head.bytes, head.weights_dtype) == (head.bytes_unquantized, "fp16")


def test_sums_of_the_model_as_it_is_stand_beside() -> None:
    """They are those of an estimate without a format, memory and phases included."""
    plain, got = small(gpu="H100"), small(gpu="H100", quantization="nf4")
    assert got.unquantized is not None
    assert (got.unquantized.totals, got.unquantized.phases) == (plain.totals, plain.phases)
    assert got.unquantized.memory == plain.memory
    assert got.totals.flops == plain.totals.flops
    assert plain.memory.peak is not None
    assert got.memory.peak is not None
    assert plain.memory.weights - got.memory.weights == plain.memory.peak - got.memory.peak > 0
    assert got.ledger["memory_bytes"].residual == 0
    assert plain.quantization is None
    assert plain.unquantized is None


def test_layers_that_are_skipped_stay() -> None:
    """A tower is left out by a selector, and named among what is left."""
    got = small(quantization="int8", quantization_skip="vision")
    assert layer(got, "vision_block", Phase.VISION).bytes == layer(got, "vision_block", Phase.VISION).bytes_unquantized
    assert layer(got, "decoder_layer", Phase.DECODE).weights_dtype == "int8 + fp16"
    assert got.quantization is not None
    assert "model.visual.blocks.0.attn.qkv" in got.quantization["left"]


@pytest.mark.parametrize(("name", "width"), [("int8", 80), ("int8", 120), ("nf4", 80)])
def test_the_report_has_both_and_fits(name: str, width: int) -> None:
    """What was, and how many times as much it was."""
    out = io.StringIO()
    render(small(quantization=name, gpu="H200"), Console(file=out, width=width))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert f"weights as {name}" in text
    assert "(was " in text
    assert " was " in text.split("Phases")[1].splitlines()[1]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"quantization": "int9"}, "no format 'int9'"),
        ({"quantization_skip": "vision"}, "none is asked for"),
        ({"quantization": "int8", "quantization_skip": "all"}, "would store no layer"),
        ({"quantization": "int8", "quantization_skip": "norm"}, "in which no linear layer is"),
    ],
)
def test_what_means_nothing_is_refused(given: dict[str, Any], told: str) -> None:
    """One message with its remedy."""
    with pytest.raises(RequestError, match=told):
        small(**given)


def test_a_selector_that_takes_nothing_is_refused() -> None:
    """As with --layers."""
    with pytest.raises(SelectorError):
        small(quantization="int8", quantization_skip="nothing")


@pytest.mark.parametrize("name", ["int8", "nf4", "fp8"])
def test_a_model_that_is_really_stored_so_has_the_same_bytes(name: str) -> None:
    """The bundled model, quantised by torchao or bitsandbytes: as many bytes by layer, and a step reads them all."""
    transformers = pytest.importorskip("transformers")
    if name == "nf4":
        pytest.importorskip("bitsandbytes")
        told: Any = transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    else:
        torchao = pytest.importorskip("torchao.quantization")
        told = transformers.TorchAoConfig(
            {"int8": torchao.Int8WeightOnlyConfig, "fp8": torchao.Float8WeightOnlyConfig}[name](
                set_inductor_config=False
            )
        )
    model = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(
        str(MODEL_FOLDER), dtype=torch.float32, quantization_config=told
    ).eval()
    got = {row.name: row for row in small(dtype="fp32", quantization=name).layers if row.phase is Phase.DECODE}
    layers = [layer for layer in find_layers(model) if layer.kind == "decoder_layer"]
    assert len(layers) == 6
    for one in layers:
        assert _bytes(model, one.name) == got[one.name].bytes_weights / got[one.name].calls
    hook = ShapesHook(model, layers)
    ids = torch.full((1, 9), 9)
    with torch.no_grad(), hook, hook.batch(0):
        model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=3, min_new_tokens=3)
    for one in layers:
        # On some processors bitsandbytes stores its scales in half as many bytes from the first call on.
        assert hook.reading().layers[one.name, Phase.DECODE].bytes_weights == 2 * _bytes(model, one.name)


def _bytes(model: Any, name: str) -> int:
    return sum(one.bytes for one in stored.weights(model.get_submodule(name)))


def test_the_report_is_all_that_the_command_prints() -> None:
    """What torch logs of torchao's enumerations, while transformers imports it, is nobody's business here."""
    command = [sys.executable, "-m", "layerprof", "estimate", "--model", "demo", "--quantization", "int8"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.lstrip().startswith("layerprof estimate demo")
