"""Adapters of peft as `--model`: put onto the base model that they name, seen inside its layers, told in the run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from refusals import refused
from small_models import CONFIG, PARAMETERS, checkpoint_folder, subject

import layerprof
from layerprof.commands import layers as listing
from layerprof.errors import RequestError
from layerprof.layers.find import find_layers
from layerprof.models import adapter
from layerprof.models.load import load_model
from layerprof.models.source import resolve

peft: Any = pytest.importorskip("peft", reason="peft is not installed")

RANK = 4
TEXT = CONFIG["text_config"]
WIDTH, KEPT = TEXT["hidden_size"], TEXT["hidden_size"] // 2
ADDED = TEXT["num_hidden_layers"] * RANK * ((WIDTH + WIDTH) + (WIDTH + KEPT))
"""Numbers in A and B of the query (48 to 48) and of the value (48 to 24) of both decoder layers."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the base model, a whole checkpoint."""
    return checkpoint_folder(tmp_path_factory.mktemp("models") / "base")


def _adapt(base: Path, folder: Path, **more: Any) -> Any:
    """Save an adapter that changes what the model says."""
    torch.manual_seed(3)
    targets = r".*language_model.*\.(q_proj|v_proj)"
    model = peft.get_peft_model(subject(base).model, peft.LoraConfig(r=RANK, target_modules=targets, **more))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.5)
    model.save_pretrained(str(folder))
    return model.eval()


@pytest.fixture(scope="module")
def adapted(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a LoRA adapter of rank 4 on query and value."""
    folder = tmp_path_factory.mktemp("models") / "adapted"
    _adapt(base, folder)
    return folder


@pytest.mark.parametrize("more", [{}, {"use_dora": True}])
def test_an_adapter_is_loaded_onto_its_base(base: Path, tmp_path: Path, more: dict[str, Any]) -> None:
    """What it gives is what peft's own model gives; layers have the base's names, and hold the adapter's matrices."""
    model = _adapt(base, tmp_path / "own", **more)
    loaded = subject(tmp_path / "own").model
    ids = torch.arange(5, 15).unsqueeze(0)
    with torch.no_grad():
        torch.testing.assert_close(loaded(input_ids=ids).logits, model(input_ids=ids).logits)
        assert not torch.allclose(loaded(input_ids=ids).logits, subject(base).model(input_ids=ids).logits)
    assert [layer.name for layer in find_layers(loaded)] == [layer.name for layer in find_layers(subject(base).model)]
    magnitudes = TEXT["num_hidden_layers"] * (WIDTH + KEPT) if more else 0
    assert sum(p.numel() for p in loaded.parameters()) == PARAMETERS + ADDED + magnitudes


def test_a_merged_adapter_is_a_model_like_others(base: Path, tmp_path: Path) -> None:
    """Merged weights are the base's in number and in shape."""
    model = _adapt(base, tmp_path / "own").merge_and_unload()
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS
    assert find_layers(model) == find_layers(subject(base).model)


def test_a_run_of_an_adapter_names_it(adapted: Path, base: Path, tmp_path: Path) -> None:
    """The header says what it is; the run keeps place, kind, rank and base; FLOPs are the base's and the adapter's."""
    asked: dict[str, Any] = {"samples": 1, "device": "cpu", "dtype": "fp32", "energy": "off", "trace": False}
    asked |= {"max_new_tokens": 2, "source": "bundled", "image_size": 56, "memory": False}
    run = layerprof.profile(model=str(adapted), output=tmp_path / "adapted", **asked)
    plain = layerprof.profile(model=str(base), output=tmp_path / "base", **asked)
    kept = {"location": str(adapted), "kind": "LORA", "rank": RANK, "base": str(base)}
    assert run.model["adapter"] == kept
    assert "LORA adapter of rank 4" in resolve(str(adapted), device="cpu").why
    rows, without = ({(r.name, r.phase): r for r in one.layers} for one in (run, plain))
    assert rows.keys() == without.keys()
    for place, row in rows.items():
        added = 2 * RANK * (3 * WIDTH + KEPT) if row.kind == "decoder_layer" else 0
        positions = (row.tokens_per_call or 0) * row.calls
        assert row.flops is not None
        assert row.flops - (without[place].flops or 0) == added * positions
        assert (row.bytes_weights or 0) - (without[place].bytes_weights or 0) == 2 * added * row.calls


def test_an_adapter_s_matrices_without_its_weights(adapted: Path) -> None:
    """Random weights are for both, base and adapter."""
    model = load_model(resolve(str(adapted), weights="random", device="cpu", dtype="bf16")).model
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS + ADDED
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def _folder(tmp_path: Path, adapted: Path, **changes: Any) -> Path:
    config = json.loads((adapted / adapter.CONFIG).read_text()) | changes
    (tmp_path / adapter.CONFIG).write_text(json.dumps(config))
    return tmp_path


def test_what_an_adapter_lacks_is_told(adapted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weights, its base model, the package: each message ends in what to do."""
    folder = _folder(tmp_path, adapted)
    assert "weights adapter_model.safetensors: missing" in refused(str(folder)).problem
    assert "names no base model" in refused(str(_folder(tmp_path, adapted, base_model_name_or_path=None))).problem
    gone = refused(str(_folder(tmp_path, adapted, base_model_name_or_path="/nowhere")), weights="random")
    assert "base model '/nowhere'" in gone.problem
    monkeypatch.setattr(adapter, "find_spec", lambda name: None)
    assert "pip install peft" in refused(str(adapted)).remedy


def test_a_peft_that_does_not_import_is_named(adapted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its error, before anything is loaded."""
    (tmp_path / "peft.py").write_text("import a_missing_part")
    monkeypatch.delitem(sys.modules, "peft")
    monkeypatch.syspath_prepend(tmp_path)
    assert "The package peft is installed and cannot be imported (ModuleNotFoundError" in refused(str(adapted)).problem


def test_prompts_that_are_learnt_are_no_layers(adapted: Path, tmp_path: Path) -> None:
    """They stand before the prompt and in no layer: LayerProfiler is the way."""
    peft.PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM").save_pretrained(str(tmp_path))
    base = json.loads((adapted / adapter.CONFIG).read_text())["base_model_name_or_path"]
    source = resolve(str(_folder(tmp_path, tmp_path, base_model_name_or_path=base)), weights="random", device="cpu")
    with pytest.raises(RequestError, match="no part of the model's layers") as caught:
        load_model(source)
    assert "LayerProfiler" in caught.value.remedy


def test_what_needs_no_weights_points_to_the_base(adapted: Path, base: Path) -> None:
    """`layerprof layers` and `estimate` read configurations, of which an adapter has none."""
    with pytest.raises(RequestError, match="holds an adapter") as caught:
        listing.build(str(adapted))
    assert str(base) in caught.value.remedy
