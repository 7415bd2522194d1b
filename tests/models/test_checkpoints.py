"""Checkpoints: what a whole one loads as, and what is told of one that is broken, cut short or something else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from refusals import refused
from safetensors.torch import load_file, save_file
from small_models import PARAMETERS, checkpoint_folder, config_folder, subject

from layerprof.errors import RequestError
from layerprof.machine import placement
from layerprof.models import checkpoint, provenance
from layerprof.models.load import load_model
from layerprof.models.source import resolve


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a whole checkpoint, not to be written to."""
    return checkpoint_folder(tmp_path_factory.mktemp("whole") / "tiny")


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """Make a copy of it to be broken."""
    return Path(shutil.copytree(whole, tmp_path / "broken"))


def test_a_cached_hub_model_needs_no_network(whole: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All files in the cache: found at the commit that the cache names; one missing: not found."""
    import huggingface_hub

    commit = "c" * 40
    snapshot = Path(shutil.copytree(whole, tmp_path / "snapshots" / commit))

    def cached(_repo: str, name: str, revision: str | None = None) -> str | None:
        file = snapshot / name
        return str(file) if file.exists() and revision in (None, commit) else None

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", cached)
    assert checkpoint.cached("own/tiny", None, "pretrained") == commit
    assert checkpoint.cached("own/tiny", "d" * 40, "pretrained") is None
    next(snapshot.glob("model-00001*")).unlink()
    assert checkpoint.cached("own/tiny", None, "pretrained") is None
    assert checkpoint.cached("own/tiny", None, "random") == commit


def test_a_whole_checkpoint_loads_and_tells_where_it_came_from(whole: Path) -> None:
    """Evaluation mode, left padding, ids and parameters as configured."""
    loaded = subject(whole)
    assert not loaded.model.training
    assert loaded.tokenizer.padding_side == "left"
    assert loaded.is_qwen_vl
    assert loaded.cell_px == 28
    assert loaded.tokenizer.convert_ids_to_tokens(loaded.image_token_id) == "<|image_pad|>"
    assert loaded.tokenizer.convert_ids_to_tokens(loaded.pad_id) == "<|endoftext|>"
    assert "<|im_end|>" in loaded.tokenizer.convert_ids_to_tokens(loaded.eos_ids)
    told = loaded.provenance
    assert told["parameters"] == PARAMETERS
    assert (told["kind"], told["weights"]) == ("folder", "pretrained")
    assert told["dtype"] == "fp32"
    assert len(told["config_sha256"]) == 64


def test_a_configuration_is_the_same_wherever_it_lies(whole: Path, tmp_path: Path) -> None:
    """Its hash holds no path, at no depth; another value is another configuration."""
    moved = Path(shutil.copytree(whole, tmp_path / "moved"))
    hashes = [subject(place).provenance["config_sha256"] for place in (whole, moved)]
    assert hashes[0] == hashes[1]
    model = subject(moved).model
    model.config.text_config.rms_norm_eps *= 2
    assert provenance.facts(model)["config_sha256"] != hashes[0]


@pytest.mark.parametrize(("optimization", "attention"), [("eager", "eager"), ("sdpa", "sdpa")])
def test_an_optimisation_is_an_attention_implementation(whole: Path, optimization: str, attention: str) -> None:
    """In both towers."""
    config = subject(whole, optimization=optimization).model.config
    assert config._attn_implementation == attention
    assert config.vision_config._attn_implementation == config.text_config._attn_implementation == attention


@pytest.mark.parametrize(
    ("published", "own", "told"),
    [
        ({"dtype": "bfloat16"}, "bf16", "in fp32 (published in bf16)"),
        ({"torch_dtype": "float16"}, "fp16", "published in fp16"),
        ({"dtype": "float32"}, "fp32", ""),
        ({}, None, ""),
    ],
)
def test_the_format_of_the_checkpoint_is_said_beside_the_one_used(
    published: dict[str, str], own: str | None, told: str, tmp_path: Path
) -> None:
    """By the configuration, under its new and its old name; in words only where the two differ."""
    folder = config_folder(tmp_path / "own")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | published))
    source = resolve(str(folder), weights="random", dtype="fp32")
    assert source.checkpoint_dtype == own
    assert told in source.why
    assert ("published" in source.why) == bool(told)
    assert load_model(source).provenance["checkpoint_dtype"] == own


def test_the_3b_is_published_in_bf16_and_says_so() -> None:
    """Whoever runs it in fp16 is told; a text model's format inside counts where the whole names none."""
    assert resolve("qwen2.5-vl-3b", weights="random", dtype="fp16").why.count("in fp16 (published in bf16)") == 1
    inner = SimpleNamespace(dtype=None, get_text_config=lambda: SimpleNamespace(dtype=torch.float8_e4m3fn))
    assert placement.checkpoint_dtype(inner) == "float8_e4m3fn"


@pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp32", "float16"])
def test_weights_come_in_the_format_asked_for(whole: Path, dtype: str) -> None:
    """Every parameter, whatever the checkpoint's own format."""
    expected = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32, "float16": torch.float16}[dtype]
    assert {weight.dtype for weight in subject(whole, dtype=dtype).model.parameters()} == {expected}


@pytest.mark.parametrize(
    ("gone", "told"),
    [
        ("config.json", "no config.json"),
        ("model-00002-of-*", "shard model-00002-of-"),
        ("tokenizer.json", "no tokenizer"),
        ("processor_config.json", "no image processor"),
        ("model*", "no weights"),
    ],
)
def test_an_incomplete_checkpoint_is_told_what_it_lacks(copy: Path, gone: str, told: str) -> None:
    """Before it is loaded."""
    for file in copy.glob(gone):
        file.unlink()
    assert told in refused(str(copy)).problem


def test_everything_that_is_missing_is_told_at_once(copy: Path) -> None:
    """One round trip, not one for each file."""
    for name in ("tokenizer.json", "processor_config.json", "model-00001-of-00003.safetensors"):
        next(copy.glob(name.replace("00003", "*"))).unlink()
    problem = refused(str(copy)).problem
    for told in ("tokenizer", "image processor", "model-00001"):
        assert told in problem


def test_files_cut_short_are_told_before_they_are_read(copy: Path) -> None:
    """A download that broke off, an empty file, a git-lfs pointer."""
    first, second, *_ = sorted(copy.glob("model-*.safetensors"))
    first.write_bytes(first.read_bytes()[:-100])
    second.write_text("version https://git-lfs.github.com/spec/v1\n")
    problem = refused(str(copy)).problem
    assert "cut short" in problem
    assert "git-lfs pointer" in problem
    first.write_bytes(b"")
    assert "empty" in refused(str(copy)).problem


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"1234", "empty or cut short"),
        (b"<html>a page that says that the file is gone</html>", "cut short at 51 bytes"),
        ((2).to_bytes(8, "little") + b"[]", "not a safetensors file"),
        ((7).to_bytes(8, "little") + b'{"a":1}', "not a safetensors file"),
        ((4).to_bytes(8, "little") + b"<p/>", "not a safetensors file"),
    ],
)
def test_what_is_no_safetensors_file_is_told_apart(tmp_path: Path, content: bytes, told: str) -> None:
    """A file of another kind under the name, whose first eight bytes are no length or whose header is no header."""
    (tmp_path / "model.safetensors").write_bytes(content)
    assert checkpoint.broken_file(tmp_path / "model.safetensors") == told


def test_the_size_of_a_safetensors_file_is_held_to_its_header(tmp_path: Path) -> None:
    """A whole file passes; of one cut short, or longer than its tensors, both sizes are told."""
    file = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(25)}, file)
    assert checkpoint.broken_file(file) is None
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    assert checkpoint.broken_file(file) == f"cut short at {len(whole) - 1} of {len(whole)} bytes"
    file.write_bytes(whole + b"\0")
    assert checkpoint.broken_file(file) == f"{len(whole) + 1} bytes long, and {len(whole)} were due"


def test_a_tensor_missing_from_the_files_is_told(copy: Path) -> None:
    """Whole files without all of the model's tensors would be filled with random numbers by transformers."""
    file = sorted(copy.glob("model-*.safetensors"))[0]
    tensors = load_file(file)
    gone = next(name for name in tensors if "embed_tokens" not in name)
    del tensors[gone]
    save_file(tensors, file, {"format": "pt"})
    source = resolve(str(copy), device="cpu")
    with pytest.raises(RequestError, match="lacks 1 of the model's tensors"):
        load_model(source)


def test_a_configuration_that_does_not_fit_the_weights_is_told(copy: Path) -> None:
    """Shapes that differ end in a message, not in a traceback."""
    config = json.loads((copy / "config.json").read_text())
    config["text_config"]["intermediate_size"] = 80
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(RequestError, match="cannot be loaded"):
        load_model(resolve(str(copy), device="cpu"))


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({}, "it is empty"),
        ({"adapter_config.json": "{}"}, "adapter"),
        ({"weights.gguf": "x"}, "GGUF"),
        ({"checkpoint-7/config.json": "{}"}, "checkpoint-7"),
        ({"config.json": "{"}, "not readable JSON"),
        ({"config.json": '{"model_type": "no_such_family"}', "tokenizer.json": "{}", "model.safetensors": ""}, "empty"),
    ],
)
def test_folders_that_are_something_else_are_recognised(tmp_path: Path, files: dict[str, str], told: str) -> None:
    """Adapters, GGUF files, training folders, broken configurations."""
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert told in str(refused(str(tmp_path)))


@pytest.mark.parametrize("model_type", ["no_such_family", "bert", "t5", "clip"])
def test_families_that_do_not_answer_prompts_are_refused(tmp_path: Path, model_type: str) -> None:
    """Unknown to transformers, encoders, encoder-decoders: LayerProfiler is the way for those."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    assert "LayerProfiler" in refused(str(tmp_path), weights="random").remedy


def test_code_inside_a_checkpoint_is_never_run_nor_asked_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A family that transformers does not know ends in one message; nobody is asked on the terminal whether to run."""
    own = {"model_type": "own_family", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(own))
    (tmp_path / "own.py").write_text("raise SystemExit('this ran')")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    assert "never run" in refused(str(tmp_path), weights="random").remedy
    assert not capsys.readouterr().out


@pytest.mark.parametrize("model_type", ["chameleon", "fuyu"])
def test_a_model_that_sees_images_is_not_lent_a_processor_without(tmp_path: Path, model_type: str) -> None:
    """A configuration may have no part for the tower; its model would be asked without images, and nobody told."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    error = refused(str(tmp_path), weights="random")
    assert "has no tokenizer" in error.problem
    assert "processor" in error.remedy
