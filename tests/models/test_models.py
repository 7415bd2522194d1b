"""Models: what a name means, and what is refused of devices, formats, optimisations and image sizes."""

from __future__ import annotations

import importlib.util
import shutil
from typing import Any

import pytest
import torch
import transformers
from refusals import refused

from layerprof import demo
from layerprof.errors import RequestError
from layerprof.machine import placement
from layerprof.models import family
from layerprof.models.load import load_model
from layerprof.models.source import check_image_size, resolve


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a hub client that cannot reach anything, and an empty cache."""
    import huggingface_hub

    def refuse(*_: Any, **__: Any) -> Any:
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)


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


def test_the_demo_needs_no_folder() -> None:
    """The bundled model by its name, its images cut into 28 px cells."""
    loaded = load_model(resolve("demo", device="cpu"))
    assert loaded.provenance["location"] == "bundled"
    assert loaded.cell_px == 28
    assert demo.MODEL_FOLDER.is_dir()


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


def test_compilation_is_refused_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is loaded."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "C++ compiler" in refused("demo", optimization="compile", device="cpu").problem


@pytest.mark.parametrize("there", [None, object()])
def test_flash_attention_on_a_cpu_is_refused_for_the_device(monkeypatch: pytest.MonkeyPatch, there: object) -> None:
    """Whether its package is there or not: no package would help."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: there)
    error = refused("demo", optimization="flash", device="cpu")
    assert error.problem == "--optimization flash runs on CUDA devices only, and the run is on the CPU."
    assert "sdpa" in error.remedy
    assert "pip install" not in error.remedy


@pytest.mark.parametrize(("on", "word"), [("cpu", "g++"), ("cuda:0", "gcc")])
def test_compiling_without_a_compiler_is_refused(on: str, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inductor needs C++ on a CPU, and Triton C on a GPU; without them each graph would fail during a run."""
    monkeypatch.setattr("layerprof.machine.placement.shutil.which", lambda name: None)
    with pytest.raises(RequestError) as caught:
        placement.check_optimization("compile", on)
    assert word in caught.value.remedy
    assert "--optimization sdpa" in caught.value.remedy


def test_graphs_are_refused_without_a_gpu() -> None:
    """They are CUDA's: on a CPU, and with a torch for ROCm, the message says why and what to use."""
    error = refused("demo", optimization="graph", device="cpu")
    assert "needs an NVIDIA GPU" in error.problem
    assert error.remedy == "Use --optimization sdpa."
    assert placement.why_no_graphs("cuda:0") == ""


def test_graphs_are_refused_for_models_without_fixed_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is loaded, with the model's class; dense decoders and vision-language models are taken."""
    monkeypatch.setattr(placement, "why_no_graphs", lambda on: "")
    assert resolve("demo", optimization="graph", device="cpu").optimization == "graph"
    with pytest.raises(RequestError, match="RwkvForCausalLM"):
        family.check_static_cache(transformers.RwkvConfig())


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
