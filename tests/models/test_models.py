"""Models: what a name means, where and how they are loaded, and what a broken checkpoint is told."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_models import CONFIG, PARAMETERS, checkpoint_folder, config_folder, subject

from layerprof import demo
from layerprof.errors import RequestError
from layerprof.machine import placement
from layerprof.models import checkpoint
from layerprof.models.load import load_model
from layerprof.models.source import check_image_size, resolve


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a whole checkpoint, not to be written to."""
    return checkpoint_folder(tmp_path_factory.mktemp("whole") / "tiny")


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """Make a copy of it to be broken."""
    return Path(shutil.copytree(whole, tmp_path / "broken"))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a hub client that cannot reach anything, and an empty cache."""
    import huggingface_hub

    def refuse(*_: Any, **__: Any) -> Any:
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)


def refused(name: str, **how: Any) -> RequestError:
    """Return the error that a request ends in."""
    with pytest.raises(RequestError) as caught:
        resolve(name, **how)
    return caught.value


# --- names ------------------------------------------------------------------------------------------------------


def test_without_a_gpu_auto_is_the_bundled_model_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The choice and its reason are in `why`."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    source = resolve("auto")
    assert (source.name, source.device, source.dtype) == ("demo", "cpu", "fp32")
    assert "no GPU" in source.why


@pytest.mark.parametrize(("free", "name"), [(80e9, "qwen2.5-vl-3b"), (9e9, "demo")])
def test_with_a_gpu_auto_goes_by_its_free_memory(monkeypatch: pytest.MonkeyPatch, free: float, name: str) -> None:
    """The 3B model needs room; its weights are random here, so that no network is needed."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (int(free), int(80e9)))
    source = resolve("auto", weights="random")
    assert (source.name, source.device, source.dtype) == (name, "cuda:0", "fp16")
    assert f"{free / 1e9:.0f}" in source.why


@pytest.mark.parametrize(("name", "guess"), [("dmeo", "demo"), ("qwen2.5vl-3b", "qwen2.5-vl-3b"), ("aut", "auto")])
def test_an_unknown_name_is_told_the_nearest(name: str, guess: str) -> None:
    """And what kinds of names there are."""
    error = refused(name)
    assert f"'{guess}'" in error.remedy
    assert "owner/name" in error.remedy


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/folder", "a/b/c", "folder/"])
def test_a_path_that_is_not_there_is_told_as_a_path(name: str) -> None:
    """A slip in a path must not end in a search on the hub."""
    assert "does not exist" in refused(name).problem


@pytest.mark.usefixtures("no_network")
def test_a_hub_model_without_network_names_the_ways_around_it() -> None:
    """Random weights, a folder and the bundled model; nothing is chosen for the user."""
    error = refused("Qwen/Qwen2.5-VL-3B-Instruct")
    assert "cannot be reached" in error.problem
    for way in ("--weights random", "folder", "--model demo"):
        assert way in error.remedy
    other = refused("some/Model-7B", weights="random")
    assert "--model qwen2.5-vl-3b --weights random" in other.remedy


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", ["qwen2.5-vl-3b", "Qwen/Qwen2.5-VL-3B-Instruct", "Qwen2.5-VL-3B"])
def test_the_full_size_model_needs_no_network_for_random_weights(name: str) -> None:
    """Any of its names; the parameters are the published model's."""
    source = resolve(name, weights="random", device="cpu")
    assert source.parameters == 3_754_622_976
    assert source.is_demo
    assert source.cell_px == 28


@pytest.mark.usefixtures("no_network")
def test_the_architectures_name_with_pretrained_weights_is_the_hub_model() -> None:
    """Pretrained weights of an architecture can only be the published ones."""
    assert "Qwen/Qwen2.5-VL-3B-Instruct" in refused("qwen2.5-vl-3b").problem


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


# --- devices, formats, optimisations ----------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:7"])
def test_cuda_without_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    """Before anything is loaded, with the device that is there."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    error = refused("demo", device=device)
    assert "no CUDA device" in error.problem
    assert "--device cpu" in error.remedy


def test_a_gpu_beyond_the_count_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names those that are there."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    error = refused("demo", device="cuda:7")
    assert "cuda:0, cuda:1" in error.problem
    assert placement.device("cuda:1") == "cuda:1"
    assert placement.device("CUDA") == "cuda:0"


@pytest.mark.parametrize(
    ("option", "value", "guess"),
    [
        ("device", "gpu", "cuda"),
        ("device", "cpuu", "cpu"),
        ("device", "mps", "cuda:N"),
        ("dtype", "fp61", "fp16"),
        ("dtype", "int8", "bf16"),
        ("optimization", "flsh", "flash"),
        ("optimization", "tensorrt", "compile"),
        ("weights", "randm", "random"),
    ],
)
def test_an_unknown_option_is_told_what_there_is(option: str, value: str, guess: str) -> None:
    """The nearest one, or the list."""
    assert guess in refused("demo", **{option: value}).remedy


def test_optimisations_are_refused_when_their_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flash attention by its package; compilation by a compiler."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "flash-attn" in refused("demo", optimization="flash", device="cpu").problem
    assert "C++ compiler" in refused("demo", optimization="compile", device="cpu").problem


def test_flash_attention_is_refused_where_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed, but on a CPU, or in fp32."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert "CUDA devices only" in refused("demo", optimization="flash", device="cpu").problem
    with pytest.raises(RequestError, match="not fp32"):
        placement.check_optimization("flash", "cuda:0", "fp32")


@pytest.mark.parametrize(("on", "word"), [("cpu", "g++"), ("cuda:0", "gcc")])
def test_compiling_without_a_compiler_is_refused(on: str, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inductor needs C++ on a CPU, and Triton C on a GPU; without them each graph would fail during a run."""
    monkeypatch.setattr("layerprof.machine.placement.shutil.which", lambda name: None)
    with pytest.raises(RequestError) as caught:
        placement.check_optimization("compile", on, "fp16")
    assert word in caught.value.remedy
    assert "--optimization sdpa" in caught.value.remedy


def test_weights_larger_than_the_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before they are allocated, with the smaller format as a way out."""
    monkeypatch.setattr(placement, "free_bytes", lambda on: 8 * 10**9)
    error = refused("qwen2.5-vl-3b", weights="random", device="cpu", dtype="fp32")
    assert "15.0 GB" in error.problem
    assert "--dtype bf16" in error.remedy
    assert resolve("qwen2.5-vl-3b", weights="random", device="cpu").dtype == "bf16"


@pytest.mark.parametrize(("size", "ways"), [(225, ("224", "252")), (28, ("56",)), (0, ("56",)), (99999, ("3584",))])
def test_image_sizes_that_do_not_fit_name_those_that_do(size: int, ways: tuple[str, ...]) -> None:
    """Multiples of 28 from 56 to 3584 for this family."""
    with pytest.raises(RequestError) as caught:
        check_image_size(resolve("demo"), size)
    for way in ways:
        assert way in caught.value.remedy


# --- folders ----------------------------------------------------------------------------------------------------


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
    assert (told["dtype"], told["attention"]) == ("fp32", "eager")
    assert len(told["config_sha256"]) == 64


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


def test_a_tensor_missing_from_the_files_is_told(copy: Path) -> None:
    """Whole files without all of the model's tensors would be filled with random numbers by transformers."""
    from safetensors.torch import load_file, save_file

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


def test_text_only_models_load_with_their_tokenizer(tmp_path: Path) -> None:
    """A decoder without a vision tower is a subject too, without images."""
    text = {"model_type": "qwen2", **{k: v for k, v in CONFIG["text_config"].items() if k != "model_type"}}
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": 10000.0}
    (tmp_path / "config.json").write_text(json.dumps(text))
    loaded = subject(tmp_path, weights="random")
    assert not loaded.takes_images
    assert not loaded.is_qwen_vl
    assert loaded.cell_px is None
    assert loaded.pad_id == loaded.tokenizer.pad_token_id


def test_the_demo_needs_no_folder() -> None:
    """The bundled model by its name, its images cut into 28 px cells."""
    loaded = load_model(resolve("demo", device="cpu"))
    assert loaded.provenance["location"] == "bundled"
    assert loaded.cell_px == 28
    assert demo.MODEL_FOLDER.is_dir()
