"""One resolver of names: whatever takes `--model` takes a name for the same thing."""

from __future__ import annotations

import io
from pathlib import Path
from typing import get_args

import pytest
import torch
from rich.console import Console
from small_models import config_folder

from layerprof.errors import RequestError
from layerprof.estimate.estimate import estimate
from layerprof.models import configuration, names
from layerprof.models.source import resolve
from layerprof.report.estimate import render


def gpu(monkeypatch: pytest.MonkeyPatch, free: float) -> None:
    """Let torch see one GPU with so many bytes free."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (int(free), int(80e9)))


def test_auto_is_the_same_for_a_run_a_list_and_an_estimate_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundled model, by its name and its parameters, and each says why."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    source, told = resolve("auto"), configuration.find("auto")
    assert source.name == told.name == "demo"
    assert told.why == "auto chose the bundled model, since there is no GPU"
    assert told.why in source.why
    got = estimate("auto", new_tokens=1)
    assert (got.model["name"], got.model["parameters"]) == ("demo", source.parameters)


@pytest.mark.parametrize(("free", "name"), [(80e9, names.ARCHITECTURE), (9e9, "demo")])
def test_auto_is_the_same_with_a_gpu(monkeypatch: pytest.MonkeyPatch, free: float, name: str) -> None:
    """By its free memory; an estimate needs the configuration alone, so no network."""
    gpu(monkeypatch, free)
    source, told = resolve("auto", weights="random"), configuration.find("auto")
    assert source.name == told.name == name
    assert told.why in source.why


def test_an_estimate_prints_what_auto_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above its figures; a model that was named needs no reason."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for model, there in (("auto", True), ("demo", False)):
        out = io.StringIO()
        render(estimate(model, new_tokens=1), Console(file=out, width=100))
        assert ("auto chose the bundled model, since there is no GPU" in out.getvalue()) is there


@pytest.mark.parametrize("name", ["qwen2.5-vl-3b", "Qwen2.5-VL-3B", "Qwen/Qwen2.5-VL-3B-Instruct", "DEMO", " demo "])
def test_every_way_to_write_a_bundled_name_is_taken_by_both(name: str) -> None:
    """Capital letters, the owner or none: the run's configuration is the estimate's."""
    run, told = resolve(name, weights="random", device="cpu"), configuration.find(name)
    assert type(run.found.config) is type(told.config)
    for part in ("text_config", "vision_config"):
        assert getattr(run.found.config, part).hidden_size == getattr(told.config, part).hidden_size


def test_a_folder_is_a_folder_for_both_and_a_file_for_an_estimate_alone(tmp_path: Path) -> None:
    """A run needs the folder that the file lies in."""
    folder = config_folder(tmp_path / "own")
    file = folder / "config.json"
    for place in (folder, file, str(folder)):
        assert configuration.find(place).config.text_config.vocab_size == 640
    assert resolve(str(folder), weights="random", device="cpu").name == str(folder)
    with pytest.raises(RequestError, match="is a file"):
        resolve(str(file), device="cpu")


def test_a_folder_without_a_configuration_is_told_by_what_it_holds(tmp_path: Path) -> None:
    """The same message for both."""
    (tmp_path / "model.gguf").touch()
    said = []
    for ask in (configuration.find, lambda name: resolve(name, device="cpu")):
        with pytest.raises(RequestError, match="GGUF") as caught:
            ask(str(tmp_path))
        said.append((caught.value.problem, caught.value.remedy))
    assert said[0] == said[1]


@pytest.mark.parametrize("wanted", get_args(names.Wanted))
@pytest.mark.parametrize(
    ("name", "said"),
    [("dmeo", "'demo'"), ("qwen2.5vl-3b", "'qwen2.5-vl-3b'"), ("./nowhere", "does not exist"), ("a/b/c", "exist")],
)
def test_a_name_that_stands_for_nothing_is_told_alike(wanted: names.Wanted, name: str, said: str) -> None:
    """With the nearest, or as a path; a configuration may be a file, which is said where it is one that is wanted."""
    with pytest.raises(RequestError, match="no model") as caught:
        names.resolve(name, wanted)
    assert said in str(caught.value)
    assert ("config.json" in caught.value.remedy) == (wanted == "configuration" and "exist" not in said)
