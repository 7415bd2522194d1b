"""Checkpoints saved with quantised weights: they load as they are stored, and are profiled on a CPU."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from refusals import refused

import layerprof
from layerprof import demo
from layerprof.models import quantized
from layerprof.models.load import load_model
from layerprof.models.source import ModelSource, resolve

for _package in ("torchao", "bitsandbytes", "accelerate", "optimum.quanto", "compressed_tensors"):
    pytest.importorskip(_package, reason=f"{_package} is not installed")

LINEARS = 64  # of the bundled model: 4 vision blocks of 5, a merger of 2, 6 decoder layers of 7
BF16 = torch.bfloat16
Save = Callable[[Path], Any]
"""Quantises the bundled model, saves it into a folder, and returns it."""


def _bundled(**how: Any) -> Any:
    import transformers

    auto = transformers.AutoModelForImageTextToText
    return auto.from_pretrained(str(demo.MODEL_FOLDER), dtype=BF16, attn_implementation="eager", **how)


def _torchao(kind: str) -> Save:
    def save(folder: Path) -> Any:
        import transformers
        from torchao import quantization

        config = transformers.TorchAoConfig(getattr(quantization, kind)())
        model = _bundled(quantization_config=config)
        model.save_pretrained(folder)
        return model

    return save


def _bitsandbytes(**how: Any) -> Save:
    def save(folder: Path) -> Any:
        import transformers

        config: Any = transformers.BitsAndBytesConfig
        model = _bundled(quantization_config=config(bnb_4bit_compute_dtype=BF16, **how))
        model.save_pretrained(folder)
        return model

    return save


def _compressed(bits: int, group: int) -> Save:
    """Save what compressed-tensors packs, with the scales that a group's largest magnitude gives."""

    def save(folder: Path) -> Any:
        from compressed_tensors import compressors, quantization

        model = _bundled()
        weights = quantization.QuantizationArgs(num_bits=bits, symmetric=True, strategy="group", group_size=group)
        scheme = quantization.QuantizationScheme(targets=["Linear"], weights=weights)
        config = quantization.QuantizationConfig(
            config_groups={"all": scheme}, ignore=["lm_head"], quantization_status="frozen"
        )
        quantization.apply_quantization_config(model, config)
        for module in model.modules():
            if hasattr(module, "weight_scale"):
                groups = module.weight.view(len(module.weight), -1, group)
                module.weight_scale.data = groups.abs().amax(-1) / (2 ** (bits - 1) - 1)
        compressor = compressors.ModelCompressor.from_pretrained_model(model)
        compressor.compress_model(model)
        model.save_pretrained(folder)
        compressor.update_config(str(folder))
        return model

    return save


SAVED: dict[str, tuple[Save, str, str]] = {
    "torchao int8": (_torchao("Int8WeightOnlyConfig"), "int8", "torchao"),
    "torchao dynamic int8": (_torchao("Int8DynamicActivationInt8WeightConfig"), "int8", "torchao"),
    "torchao fp8": (_torchao("Float8WeightOnlyConfig"), "fp8", "torchao"),
    "bitsandbytes nf4": (_bitsandbytes(load_in_4bit=True, bnb_4bit_quant_type="nf4"), "nf4", "bitsandbytes"),
    "bitsandbytes int8": (_bitsandbytes(load_in_8bit=True), "int8", "bitsandbytes"),
    "compressed-tensors int4": (_compressed(4, 64), "int4", "compressed-tensors"),
}


def _add_the_processor(folder: Path) -> None:
    for file in demo.MODEL_FOLDER.iterdir():
        if not (folder / file.name).exists():
            shutil.copy(file, folder)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return what gives the folder of a checkpoint of the bundled model, saved once, not to be written to."""
    made: dict[str, Path] = {}

    def give(name: str) -> Path:
        if name not in made:
            folder = tmp_path_factory.mktemp("saved") / name.replace(" ", "-")
            SAVED[name][0](folder)
            _add_the_processor(folder)
            made[name] = folder
        return made[name]

    return give


def source(folder: Path, **how: Any) -> ModelSource:
    """Resolve a folder on the CPU."""
    return resolve(str(folder), device="cpu", **how)


@pytest.mark.parametrize("name", SAVED)
def test_a_saved_checkpoint_loads_as_it_is_stored(name: str, saved: Callable[[str], Path]) -> None:
    """In the dtype that it was saved with, every layer of it; format and package are told before and read back."""
    _, form, package = SAVED[name]
    found = source(saved(name))
    assert found.dtype == "bf16"
    assert f"its weights are stored as {form} ({package}" in found.why
    loaded = load_model(found)
    told = loaded.provenance["quantization"]
    assert (told["format"], told["package"], told["layers"], told["left"]) == (form, package, LINEARS, 3)
    assert loaded.model(input_ids=torch.full((1, 8), 9)).logits.isfinite().all()


@pytest.mark.parametrize("name", ["torchao int8", "bitsandbytes nf4", "bitsandbytes int8"])
def test_a_reloaded_model_answers_as_the_one_that_was_saved(name: str, tmp_path: Path) -> None:
    """Bit by bit, against the model that was there before it was saved."""
    once = SAVED[name][0](tmp_path)
    _add_the_processor(tmp_path)
    again = load_model(source(tmp_path)).model
    ids = torch.arange(8)[None] + 20
    with torch.no_grad():
        assert torch.equal(again(input_ids=ids).logits, once(input_ids=ids).logits)


@pytest.mark.parametrize("name", ["torchao int8", "bitsandbytes nf4", "compressed-tensors int4"])
def test_profile_takes_a_saved_checkpoint(name: str, saved: Callable[[str], Path], tmp_path: Path) -> None:
    """From the folder to `run.json`, with the bundled samples."""
    run = layerprof.profile(
        model=str(saved(name)),
        source="bundled",
        samples=2,
        max_new_tokens=2,
        layers="language",
        trace=False,
        energy="off",
        device="cpu",
        output=str(tmp_path / "run"),
    )
    assert run.model["quantization"]["format"] == SAVED[name][1]
    assert run.totals.flops


def test_weights_that_are_unpacked_before_they_run_are_told(saved: Callable[[str], Path]) -> None:
    """compressed-tensors would unpack them at the first call: they are when they are loaded, and the run says so."""
    found = source(saved("compressed-tensors int4"))
    assert "unpacks them to bf16 before they run" in str(found.remark)
    loaded = load_model(found)
    assert loaded.provenance["quantization"]["run_as"] == "bf16"
    coded, plain = quantized.survey(loaded.model)
    assert not coded
    assert len(plain) == LINEARS + 3
    assert source(saved("torchao int8")).remark is None


def test_another_dtype_would_mix_two(saved: Callable[[str], Path]) -> None:
    """Scales keep the dtype that they were saved in: another is refused, the own one is not."""
    error = refused(str(saved("torchao int8")), device="cpu", dtype="fp32")
    assert "the model would be a mixture of both" in error.problem
    assert "--dtype bf16" in error.remedy
    assert source(saved("torchao int8"), dtype="bf16").dtype == "bf16"


def test_memory_is_that_of_the_files(saved: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of 3.2 M parameters in 2.2 MB of nf4 fits into 4 MB, where bf16 and what is unpacked do not."""
    from layerprof.machine import placement

    monkeypatch.setattr(placement, "free_bytes", lambda on: 4_000_000)
    source(saved("bitsandbytes nf4"))
    assert "billion parameters in bf16" in refused("demo", device="cpu", dtype="bf16").problem
    assert "billion parameters in bf16" in refused(str(saved("compressed-tensors int4")), device="cpu").problem


def test_a_package_that_is_missing_is_named_before_a_weight_is_read(
    saved: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what installs it."""
    from layerprof.machine import environment

    there = environment.package_version
    monkeypatch.setattr(environment, "package_version", lambda name: None if name == "bitsandbytes" else there(name))
    error = refused(str(saved("bitsandbytes nf4")), device="cpu")
    assert "quantized by bitsandbytes, needs the package bitsandbytes" in error.problem
    assert error.remedy == "Install it with `pip install 'layerprof[quantization]'`."
