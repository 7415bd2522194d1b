"""Weights stored in another format: which layers are, in which way, in how many bytes; and what is refused before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from refusals import refused
from small_models import checkpoint_folder, config_folder
from torch import nn

from layerprof import settings
from layerprof.errors import RequestError
from layerprof.machine import environment
from layerprof.measure import check
from layerprof.models import quantization, quantized
from layerprof.models.load import load_model
from layerprof.models.source import ModelSource, resolve

for _package in ("torchao", "bitsandbytes", "accelerate", "optimum.quanto", "compressed_tensors"):
    pytest.importorskip(_package, reason=f"{_package} is not installed")

BLOCK_LINEARS = ("attn.qkv", "attn.proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
LAYER_LINEARS = (
    *(f"self_attn.{name}_proj" for name in "qkvo"),
    *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
)
# The bundled model: 4 vision blocks of 5 linear layers, a merger of 2, 6 decoder layers of 7.
LINEARS = 4 * 5 + 2 + 6 * 7


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a whole checkpoint of a small random model, not to be written to."""
    return checkpoint_folder(tmp_path_factory.mktemp("whole") / "tiny")


def asked(**how: object) -> ModelSource:
    """Resolve the bundled model as `profile` does, on the CPU."""
    return check.resolve(settings.build(**{"model": "demo", "device": "cpu"} | how))


def plan(**how: object) -> quantization.StoragePlan:
    """Return the plan of the bundled model's weights."""
    quantized = asked(**how).quantized
    assert isinstance(quantized, quantization.StoragePlan)
    return quantized


@pytest.mark.parametrize(
    ("form", "package", "class_name"),
    [
        ("int8", "torchao", "Int8Tensor"),
        ("fp8", "torchao", "Float8Tensor"),
        ("nf4", "bitsandbytes", "Params4bit"),
        ("int4", "optimum-quanto", "WeightQBitsTensor"),
    ],
)
@pytest.mark.parametrize("weights", ["pretrained", "random"])
def test_each_format_loads_and_is_read_back(form: str, package: str, class_name: str, weights: str) -> None:
    """All linear layers but the tied output head, by the package of the format; what is left is named."""
    loaded = load_model(asked(quantization=form, weights=weights))
    layer = loaded.model.model.language_model.layers[3].mlp.down_proj
    assert type(layer.weight).__name__ == class_name
    told = loaded.provenance["quantization"]
    assert (told["format"], told["package"]) == (form, package)
    assert told["package_version"] == environment.package_version(package)
    assert told["layers"] == LINEARS
    assert told["left_names"] == ["model.visual.patch_embed.proj", "model.language_model.embed_tokens", "lm_head"]
    out = loaded.model(input_ids=torch.full((1, 8), 9))
    assert out.logits.isfinite().all()


@pytest.mark.parametrize(("rows", "columns"), [(96, 64), (96, 96), (33, 64), (48, 40)])
def test_a_layer_that_no_block_divides_runs_in_nf4_on_any_cpu(rows: int, columns: int) -> None:
    """Its product is that of the unpacked codes, also where bitsandbytes would repack them and fail."""
    bitsandbytes = pytest.importorskip("bitsandbytes")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(columns, rows))
    quantized.store(model, quantization.planned(model, "nf4", "bitsandbytes", dtype="fp32"), "0")
    quantized.keep_layout(model.eval())
    layer: Any = model[0]
    unpacked = bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
    given = torch.randn(3, columns)
    with torch.no_grad():
        expected = torch.nn.functional.linear(given, unpacked, layer.bias)
        torch.testing.assert_close(model(given), expected, rtol=0.02, atol=0.02)


def test_a_model_with_such_layers_answers_in_nf4(tmp_path: Path) -> None:
    """As of Qwen2.5-VL's vision MLP, whose 3420 columns are no multiple of 64."""
    folder = config_folder(tmp_path / "odd")
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["intermediate_size"] = 84
    (folder / "config.json").write_text(json.dumps(config))
    loaded = load_model(asked(model=str(folder), weights="random", quantization="nf4"))
    block = loaded.model.model.visual.blocks[0].mlp
    assert block.down_proj.in_features == 84
    with torch.no_grad():
        assert block(torch.randn(5, block.gate_proj.in_features)).isfinite().all()


def test_random_weights_stored_in_a_format_are_those_of_the_same_seed() -> None:
    """Storing them layer by layer changes neither the draw nor what is left as it is.

    Codes of int8 are the weight over its row's largest magnitude, in 127 steps: what they stand for is off by at most
    half a step.
    """
    plain = load_model(asked(weights="random", seed=3)).model
    coded = load_model(asked(weights="random", seed=3, quantization="int8")).model
    assert torch.equal(plain.lm_head.weight, coded.lm_head.weight)
    for name in ("model.visual.blocks.1.attn.qkv", "model.language_model.layers.5.mlp.up_proj"):
        weight = plain.get_submodule(name).weight
        step = weight.abs().amax(1, keepdim=True) / 127
        error = (coded.get_submodule(name).weight.dequantize() - weight).abs()
        assert (error <= 0.51 * step).all()


def test_the_configuration_is_the_same_however_its_weights_are_stored() -> None:
    """Its hash tells the architecture; the storage has a fact of its own."""
    plain, coded = (load_model(asked(quantization=form)).provenance for form in ("none", "int8"))
    assert plain["config_sha256"] == coded["config_sha256"]


def test_no_quantization_is_told_as_none() -> None:
    """A run of ordinary numbers says so."""
    assert load_model(asked()).provenance["quantization"] is None


def test_the_line_before_loading_says_format_package_and_what_is_left() -> None:
    """And where nothing is quantized it says nothing of it."""
    line = asked(quantization="nf4").why
    assert "weights stored as nf4 by bitsandbytes" in line
    assert f"{LINEARS} linear layers, left as they are: lm_head" in line
    assert "stored" not in asked().why


# --- what is left -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("selector", "left"),
    [
        ("vision", [f"model.visual.blocks.{b}.{x}" for b in range(4) for x in BLOCK_LINEARS]),
        ("language[0:2]", [f"model.language_model.layers.{b}.{x}" for b in range(2) for x in LAYER_LINEARS]),
        ("language[*].mlp.down_proj", [f"model.language_model.layers.{b}.mlp.down_proj" for b in range(6)]),
        ("lm_head", []),
        ("*.layers.[0-2].mlp", [f"model.language_model.layers.{b}.{x}" for b in range(3) for x in LAYER_LINEARS[4:]]),
    ],
)
def test_a_selector_leaves_its_linear_layers_as_they_are(selector: str, left: list[str]) -> None:
    """The tower's blocks and merger, a range, a submodule of each, a kind, a glob; exactly these, and no others."""
    loaded = load_model(asked(quantization="int8", quantization_skip=selector))
    if selector == "vision":
        left = [*left, "model.visual.merger.mlp.0", "model.visual.merger.mlp.2"]
    plain = {
        name
        for name, module in loaded.model.named_modules()
        if isinstance(module, nn.Linear) and type(module.weight) is nn.Parameter
    }
    assert plain == {*left, "lm_head"}
    assert loaded.provenance["quantization"]["layers"] == LINEARS - len(left)


def test_a_selector_that_leaves_nothing_or_everything_is_refused() -> None:
    """One that matches nothing, one without linear layers, one with all of them: each with its remedy."""
    with pytest.raises(RequestError, match="matches nothing"):
        asked(quantization="int8", quantization_skip="langauge")
    with pytest.raises(RequestError, match="in which no linear layer is"):
        asked(quantization="int8", quantization_skip="embed_tokens")
    with pytest.raises(RequestError, match="would store no layer"):
        asked(quantization="int8", quantization_skip="all")


def test_names_are_taken_as_they_are() -> None:
    """`layers.1` is not `layers.11`, and a name is no pattern: what is left of one block is left of no other."""
    model = nn.ModuleDict({name: nn.Linear(64, 64) for name in ("b1", "b11", "xb1")})
    made = quantization.plan(model, "int8", on="cpu", dtype="fp32", leave=["b1"])
    assert made.taken == ("b11", "xb1")
    assert quantization.configuration(made, torch.float32).modules_to_not_convert == ["b1"]


# --- bytes --------------------------------------------------------------------------------------------------------


def test_bytes_are_those_of_each_layout() -> None:
    """A matrix of 192 rows and 384 columns, counted by hand, in each format."""
    codes = 192 * 384
    # int8: a float32 scale and a zero point of one byte a row. fp8: the scale alone.
    assert made("int8", 384).stored_bytes(192, 384, 2) == codes + 192 * 4 + 192
    assert made("fp8", 384).stored_bytes(192, 384, 2) == codes + 192 * 4
    # nf4: half a byte, a float32 for each 64 weights, a table of 16 float32.
    assert made("nf4", 384).stored_bytes(192, 384, 2) == codes // 2 + codes // 64 * 4 + 64
    # quanto's int4: half a byte; scale and shift of two bytes for each 128 columns.
    assert made("int4", 384).stored_bytes(192, 384, 2) == codes // 2 + 192 * 3 * 2 * 2
    # torchao's, in tiles: columns padded to 1024; scale and zero point of two bytes for each 128 of these.
    tiled = quantization.Scheme("int4", "torchao", "", 128)
    assert tiled.stored_bytes(192, 384, 2) == 192 * 1024 // 2 + 192 * 8 * 2 * 2


def made(form: str, columns: int) -> quantization.Scheme:
    """Return the scheme that a format has on a CPU for a layer of so many columns."""
    model = nn.Sequential(nn.Linear(columns, 192))
    return quantization.plan(model, form, on="cpu", dtype="bf16").scheme


@pytest.mark.parametrize("form", ["int8", "fp8", "nf4", "int4"])
def test_the_bytes_of_a_plan_are_those_of_the_loaded_model(form: str) -> None:
    """To the byte, in bf16, where tensors of a package are opened and bitsandbytes' state is counted."""
    model = load_model(asked(quantization=form, dtype="bf16")).model
    seen: dict[int, int] = {}
    for weight in model.parameters():
        state = getattr(weight, "quant_state", None)
        for part in (*opened(weight), *([state.absmax, state.code] if state is not None else [])):
            seen[part.untyped_storage().data_ptr()] = part.untyped_storage().nbytes()
    assert sum(seen.values()) == plan(quantization=form, dtype="bf16").bytes


def opened(tensor: torch.Tensor) -> list[torch.Tensor]:
    """Return the plain tensors that a tensor of a package is made of."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return [tensor]
    return [part for name in tensor.__tensor_flatten__()[0] for part in opened(getattr(tensor, name))]


def test_int4_on_a_gpu_has_the_group_that_leaves_the_fewest_weights() -> None:
    """Columns of 2048 and 11008 go by 128; with 192 and 128 beside them 64 divides all; 3420 goes by none."""
    assert group(2048, 11008, 3420) == (128, [True, True, False])
    assert group(128, 192, 384, 256) == (64, [True] * 4)
    assert group(96, 160) == (32, [True, True])


def group(*columns: int) -> tuple[int | None, list[bool]]:
    """Return the group that torchao's int4 is given for layers of these columns, and whether it takes each."""
    scheme = quantization.scheme_of("int4", "torchao", columns)
    return scheme.group, [scheme.takes(width) for width in columns]


def test_memory_is_checked_by_the_bytes_of_the_format(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 2 bytes a parameter free, fp32 is refused, and int8 and nf4 are not; what helps is named."""
    from layerprof.machine import placement

    parameters = asked().parameters
    monkeypatch.setattr(placement, "free_bytes", lambda on: 2 * parameters)
    with pytest.raises(RequestError, match="--quantization nf4"):
        asked(dtype="fp32")
    assert plan(quantization="nf4", dtype="fp32").bytes < plan(quantization="int8", dtype="fp32").bytes
    asked(quantization="int8", dtype="fp32")
    monkeypatch.setattr(placement, "free_bytes", lambda on: parameters // 4)
    with pytest.raises(RequestError, match="parameters in nf4 need"):
        asked(quantization="nf4", dtype="fp32")


# --- what is not to be had ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "package"), [("int8", "torchao"), ("nf4", "bitsandbytes"), ("int4", "optimum-quanto")]
)
def test_a_package_that_is_missing_is_named(form: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is loaded, with what installs it."""
    there = environment.package_version
    monkeypatch.setattr(environment, "package_version", lambda name: None if name == package else there(name))
    error = refused("demo", device="cpu", quantization=form)
    assert f"needs the package {package}, which is not installed" in error.problem
    assert "pip install 'layerprof[quantization]'" in error.remedy


def test_int4_on_a_gpu_goes_with_bf16() -> None:
    """Which `auto` becomes there, and any other is refused; on a CPU every dtype goes."""
    assert quantization.needed_dtype("int4", "cuda:0") == "bf16"
    assert quantization.needed_dtype("int4", "cpu") is None
    with pytest.raises(RequestError, match="takes bf16, and --dtype is fp16"):
        quantization.check("int4", "cuda:0", "fp16")


def test_a_model_in_which_nothing_was_stored_so_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was asked for is no proof: where the packages convert nothing, no run of ordinary numbers comes of it."""
    source = asked(quantization="int8")
    monkeypatch.setattr(quantization, "configuration", lambda plan, dtype: None)
    with pytest.raises(RequestError, match="No layer of demo is stored as int8"):
        load_model(source)


# --- checkpoints that are stored so already -----------------------------------------------------------------------


def stored_by(folder: Path, whole: Path, facts: dict[str, object]) -> Path:
    """Copy a checkpoint, and have its configuration say that it is quantized."""
    import shutil

    made = Path(shutil.copytree(whole, folder))
    config = json.loads((made / "config.json").read_text())
    (made / "config.json").write_text(json.dumps(config | {"quantization_config": facts}))
    return made


@pytest.mark.parametrize(
    ("facts", "words", "remedy"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "gptqmodel", "pip install optimum gptqmodel"),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, "gptqmodel", "pip install gptqmodel"),
        ({"quant_method": "eetq"}, "runs on a CUDA device, and the run is on cpu", "unquantized checkpoint"),
        ({"quant_method": "fp8"}, "of compute capability 8.9 or more", "unquantized checkpoint"),
        ({"quant_method": "somebodys"}, "quantized by 'somebodys'", "--weights random"),
        ({"quant_method": "hqq", "nbits": 4}, "this transformers does not load", "LayerProfiler"),
    ],
)
def test_a_quantized_checkpoint_that_cannot_be_loaded_is_told_before(
    facts: dict[str, object], words: str, remedy: str, whole: Path, tmp_path: Path
) -> None:
    """A package that is missing, a device, a method that is unknown: one message with its remedy."""
    error = refused(str(stored_by(tmp_path / "made", whole, facts)), device="cpu")
    assert words in error.problem
    assert remedy in error.remedy


def test_a_quantized_checkpoint_is_not_quantized_again(whole: Path, tmp_path: Path) -> None:
    """Nor are weights read that are to be drawn at random: these are ordinary numbers, or in the format asked for."""
    folder = stored_by(tmp_path / "made", whole, {"quant_method": "gptq", "bits": 4})
    error = refused(str(folder), device="cpu", quantization="int8")
    assert "is quantized already" in error.problem
    plain = load_model(resolve(str(folder), device="cpu", weights="random"))
    assert plain.provenance["quantization"] is None
    coded = load_model(resolve(str(folder), device="cpu", weights="random", quantization="int8"))
    assert coded.provenance["quantization"]["format"] == "int8"
