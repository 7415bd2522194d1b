"""The bundled model in each package's quantised form: bytes, formats, parameters and FLOPs by hand counts."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

import layerprof
from layerprof.demo import MODEL_FOLDER
from layerprof.records import LayerRow, Phase, Run

SIDES = ((192, 192), (64, 192), (64, 192), (192, 192), (384, 192), (384, 192), (192, 384))
"""Rows and columns of a decoder layer's matrices: q, k, v, o, gate, up, down of 192 features, 32 a head, 384 inside."""
CODES = sum(rows * columns for rows, columns in SIDES)
ROWS = sum(rows for rows, _ in SIDES)
BIASES = 192 + 64 + 64
NORMS = 2 * 192
LAYER = "model.language_model.layers.0"
IDS = torch.full((1, 8), 9)


# --- the model in each form -----------------------------------------------------------------------------------------


def _load(**kwargs: Any) -> Any:
    from transformers import Qwen2_5_VLForConditionalGeneration as Model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Model.from_pretrained(str(MODEL_FOLDER), dtype=torch.bfloat16, **kwargs)


@cache
def _plain() -> Any:
    return _load()


def _torchao(name: str) -> Any:
    quantization = pytest.importorskip("torchao.quantization", reason="torchao is not installed")
    from transformers import TorchAoConfig

    return _load(quantization_config=TorchAoConfig(getattr(quantization, name)()))


def _bitsandbytes(**kwargs: Any) -> Any:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    pytest.importorskip("accelerate", reason="accelerate is not installed, which bitsandbytes needs")
    import transformers

    config: Any = transformers.BitsAndBytesConfig
    return _load(quantization_config=config(**kwargs))


def _quanto(weights: str) -> Any:
    pytest.importorskip("optimum.quanto", reason="optimum-quanto is not installed")
    from transformers import QuantoConfig

    return _load(quantization_config=QuantoConfig(weights=weights))


def _hqq() -> Any:
    """Replace the decoder layers' matrices by hand: transformers refuses its HqqConfig."""
    core = pytest.importorskip("hqq.core.quantize", reason="hqq is not installed")
    model = copy.deepcopy(_plain())
    for layer in model.model.language_model.layers:
        for name, linear in list(layer.named_modules()):
            if isinstance(linear, nn.Linear):
                own = core.BaseQuantizeConfig(nbits=4, group_size=64, axis=1)
                quantised = core.HQQLinear(linear, own, compute_dtype=torch.bfloat16, device="cpu")
                holder, _, last = name.rpartition(".")
                setattr(layer.get_submodule(holder), last, quantised)
    return model


def _dynamic() -> Any:
    quantise: Any = torch.ao.quantization.quantize_dynamic
    return quantise(copy.deepcopy(_plain()).float(), {nn.Linear}, torch.qint8)


def _compressed(bits: int) -> Any:
    """Quantise and compress by the package's own API: W8A8 with a scale a row, W4A16 with one for each 64 numbers."""
    quantization = pytest.importorskip("compressed_tensors.quantization", reason="compressed-tensors is not installed")
    from compressed_tensors.compressors import ModelCompressor

    scheme = quantization.preset_name_to_scheme("W8A8" if bits == 8 else "W4A16", ["Linear"])
    if bits == 4:  # its own group of 128 divides no row of 192
        scheme.weights.group_size = 64
    form = "int-quantized" if bits == 8 else "pack-quantized"
    config = quantization.QuantizationConfig(config_groups={"all": scheme}, ignore=["lm_head"], format=form)
    model = copy.deepcopy(_plain())
    quantization.apply_quantization_config(model, config)
    for module in model.modules():
        if hasattr(module, "weight_scale"):
            module.weight_scale.data.fill_(0.01)
    compressor = ModelCompressor(quantization_config=config)
    compressor.compress_model(model)
    compressor.add_decompress_hook(model)
    return model


# --- what is expected -----------------------------------------------------------------------------------------------


def _four_bits(model: Any, *, nested: bool = False) -> int:
    """Return the bytes of bitsandbytes' 4-bit layer: codes, a size for each 64 numbers, the table of 16 codes.

    Processors with AVX512-BF16 get another layout in the first call, with sizes in 16 bits and biases in 32.
    """
    weight = model.get_submodule(f"{LAYER}.mlp.down_proj").weight
    if weight.quant_state.absmax.dtype is torch.bfloat16:
        offset = 4 * len(SIDES) if nested else 0
        return CODES // 2 + 2 * CODES // 64 + 64 * len(SIDES) + offset + 4 * BIASES + 2 * NORMS
    blocks = sum(-(-(rows * columns // 64) // 256) for rows, columns in SIDES)
    inner = CODES // 64 + 4 * blocks + (4 * 256 + 4) * len(SIDES) if nested else 4 * CODES // 64
    return CODES // 2 + inner + 64 * len(SIDES) + 2 * BIASES + 2 * NORMS


REST = 2 * BIASES + 2 * NORMS


def _groups_of_quanto(model: Any) -> int:
    """Return the bytes of quanto's 4-bit layer; its group is 128, or the next by 32 less that divides a row."""
    size = CODES // 2 + 8 * len(SIDES) + REST
    for rows, columns in SIDES:
        group = next(length for length in (128, 96, 64, 32) if columns % length == 0)
        size += 4 * rows * columns // group
    return size


FORMS: dict[str, tuple[Callable[[], Any], Callable[[Any], int], str]] = {
    "plain": (_plain, lambda _: 2 * CODES + REST, "bf16"),
    # A scale of 4 bytes and a zero point of 1 for each row.
    "torchao int8": (lambda: _torchao("Int8WeightOnlyConfig"), lambda _: CODES + 5 * ROWS + REST, "int8 + bf16"),
    "torchao dynamic int8": (
        lambda: _torchao("Int8DynamicActivationInt8WeightConfig"),
        lambda _: CODES + 5 * ROWS + REST,
        "int8 + bf16",
    ),
    "torchao fp8": (lambda: _torchao("Float8WeightOnlyConfig"), lambda _: CODES + 4 * ROWS + REST, "fp8 + bf16"),
    # Without a threshold no column stands out, and nothing is done in 16 bits beside.
    "bitsandbytes int8": (
        lambda: _bitsandbytes(load_in_8bit=True, llm_int8_threshold=0.0),
        lambda _: CODES + 4 * ROWS + REST,
        "int8 + bf16",
    ),
    "bitsandbytes nf4": (
        lambda: _bitsandbytes(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
        _four_bits,
        "nf4",
    ),
    "bitsandbytes nf4 twice": (
        lambda: _bitsandbytes(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True),
        lambda model: _four_bits(model, nested=True),
        "nf4",
    ),
    # A scale of 2 bytes a row, and of 4 for inputs and for outputs.
    "quanto int8": (lambda: _quanto("int8"), lambda _: CODES + 2 * ROWS + 8 * len(SIDES) + REST, "int8 + bf16"),
    "quanto fp8": (lambda: _quanto("float8"), lambda _: CODES + 2 * ROWS + 8 * len(SIDES) + REST, "fp8 + bf16"),
    # A scale and a shift of 2 bytes for each 128 numbers, fewer by steps of 32 where a row is no multiple of that.
    "quanto int4": (lambda: _quanto("int4"), _groups_of_quanto, "int4 + bf16"),
    "hqq int4": (_hqq, lambda _: CODES // 2 + 4 * CODES // 64 + REST, "int4 + bf16"),
    # Of each matrix the scale and the zero point; everything else in 4 bytes.
    "torch dynamic int8": (_dynamic, lambda _: CODES + 8 * len(SIDES) + 2 * REST, "int8 + fp32"),
}


# --- tests ----------------------------------------------------------------------------------------------------------


@cache
def _measured(name: str) -> tuple[Any, Run]:
    """Return the model in a form, and the run of two answers of three tokens each."""
    model = FORMS[name][0]()
    with warnings.catch_warnings(), layerprof.LayerProfiler(model, layers=f"all,{LAYER}.mlp") as profiler:
        warnings.simplefilter("ignore")
        for _ in range(2):
            model.generate(input_ids=IDS, max_new_tokens=3, min_new_tokens=3, do_sample=False)
    return model, profiler.run


def _rows(run: Run, name: str = LAYER) -> dict[Phase, LayerRow]:
    return {row.phase: row for row in run.layers if row.name == name}


@pytest.mark.parametrize("name", FORMS)
def test_bytes_of_weights_are_what_is_stored_in_every_call(name: str) -> None:
    """Codes with their scales and zero points, biases and norms: once a call, in prefill as in decode."""
    model, run = _measured(name)
    rows = _rows(run)
    expected = FORMS[name][1](model)
    assert {phase: row.bytes_weights for phase, row in rows.items()} == {
        phase: row.calls * expected for phase, row in rows.items()
    }
    assert set(rows) == {Phase.PREFILL, Phase.DECODE}


@pytest.mark.parametrize("name", FORMS)
def test_the_format_stands_on_rows_of_layers_and_of_submodules(name: str) -> None:
    """The one of most bytes first: that of the matrices; norms and biases keep theirs."""
    _, run = _measured(name)
    assert all((row.weights_dtype or "").startswith(FORMS[name][2]) for row in _rows(run).values())
    first = FORMS[name][2].partition(" ")[0]
    assert {row.weights_dtype for row in _rows(run, f"{LAYER}.mlp").values()} == {first}
    assert {row.weights_dtype for row in run.layers if row.kind == "norm"} <= {"bf16", "fp32"}


@pytest.mark.parametrize("name", FORMS)
def test_flops_are_those_of_the_model_before_it_was_quantised(name: str) -> None:
    """Matrix work at the operands' shapes, to the digit; what quantises is elementwise, and nothing is unknown."""
    _, run = _measured(name)
    _, plain = _measured("plain")
    assert run.uncounted_ops == {}
    assert run.totals.flops == plain.totals.flops
    assert [(row.name, row.phase, row.flops) for row in run.layers] == [
        (row.name, row.phase, row.flops) for row in plain.layers
    ]
    assert run.ledger.flops.residual == 0


@pytest.mark.parametrize("name", FORMS)
def test_parameters_are_those_of_the_model_before_it_was_quantised(name: str) -> None:
    """Packed codes count as the numbers that they stand for; only torch's own unties the head from the embedding."""
    _, run = _measured(name)
    untied = 576 * 192 if name.startswith("torch dynamic") else 0
    assert run.model["parameters"] == _measured("plain")[1].model["parameters"] + untied
    assert not run.totals.bytes_at_least


@pytest.mark.parametrize("bits", [8, 4])
def test_compressed_tensors_are_seen_compressed_and_unpacked(bits: int) -> None:
    """Before the first call codes and scales lie there; in it the package unpacks all weights, and reads those."""
    from layerprof.machine import stored

    model = _compressed(bits)
    layer = model.get_submodule(LAYER)
    scales = 2 * ROWS if bits == 8 else 2 * CODES // 64 + 16 * len(SIDES)  # with the shape as two int64
    assert sum(weight.bytes for weight in stored.weights(layer)) == CODES * bits // 8 + scales + REST
    assert stored.format_of(layer) == f"int{bits} + bf16"
    assert stored.size(model) == stored.size(_plain())
    with layerprof.LayerProfiler(model) as profiler:
        model(input_ids=IDS)
    row = _rows(profiler.run)[Phase.PREFILL]
    assert (row.weights_dtype, row.bytes_weights) == ("bf16", 2 * CODES + REST)
    assert row.flops == next(r.flops // r.calls for r in _measured("plain")[1].layers if r.name == LAYER and r.flops)
    assert profiler.run.model["parameters"] == stored.size(_plain())


@pytest.mark.parametrize("name", ["torchao int8", "bitsandbytes nf4", "quanto int8", "hqq int4"])
def test_all_ways_of_counting_give_the_same(name: str) -> None:
    """Watched once, watched each time, or repeated after the block: the same FLOPs and bytes."""
    model, _ = _measured(name)
    figures = set()
    modes: tuple[Any, ...] = ("once", "together", "rerun")
    for mode in modes:
        with torch.no_grad(), layerprof.LayerProfiler(model, flops=mode) as profiler:
            model(input_ids=IDS)
            model(input_ids=IDS)
        figures.add((profiler.run.totals.flops, profiler.run.totals.bytes, profiler.run.ledger.flops.reason))
    assert len(figures) == 1
    assert None not in next(iter(figures))[:2]
