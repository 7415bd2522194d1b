"""Hooks by name or by import path."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from layerprof import registry
from layerprof.errors import RequestError


class OwnHook:
    """A user's own instrument."""


class Walker:
    """A hook as a run needs it."""

    def __init__(self, model: object, layers: object) -> None: ...

    def __enter__(self) -> Walker:
        return self

    def __exit__(self, *error: object) -> None: ...

    def batch(self, index: int) -> object:
        """Return nothing to enter."""

    def reading(self) -> object:
        """Return nothing read."""


class Narrow(Walker):
    """A hook that takes no layers."""

    def __init__(self, model: object) -> None: ...


def test_a_registered_name_gives_its_class() -> None:
    """The entry point `latency` is the class of hooks/latency.py."""
    assert getattr(registry.find("latency"), "__name__", "") == "LatencyHook"


def test_an_import_path_gives_the_users_own_class() -> None:
    """Anything importable can be a hook."""
    assert getattr(registry.find("collections:OrderedDict"), "__name__", "") == "OrderedDict"


def test_a_module_in_the_current_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command's own search path has no current folder; a hook beside the user is found all the same, and last."""
    (tmp_path / "beside_the_user.py").write_text("class Mine: ...")
    (tmp_path / "collections.py").write_text("raise RuntimeError('hides the standard library')")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.chdir(tmp_path)
    assert getattr(registry.find("beside_the_user:Mine"), "__name__", "") == "Mine"
    assert getattr(registry.find("collections:OrderedDict"), "__name__", "") == "OrderedDict"
    assert sys.path[-1] == str(tmp_path)


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("latencyy", "Did you mean 'latency'"),
        ("no.such.module:Hook", "no.such"),
        ("collections:Nothing", "Nothing"),
        ("collections:", "No hook is called 'collections:'"),
        (":", "No hook is called ':'"),
        ("a:b:c", "No hook is called 'a:b:c'"),
    ],
)
def test_what_cannot_be_loaded_is_told_with_a_remedy(name: str, word: str) -> None:
    """Misspelt names get the nearest; paths that fail say why."""
    with pytest.raises(RequestError) as caught:
        registry.find(name)
    assert word in str(caught.value)
    assert caught.value.remedy


@pytest.mark.parametrize("body", ["raise RuntimeError('no licence')", "def broken(:", "raise SystemExit(4)"])
def test_a_module_that_fails_while_it_is_imported_is_told(
    body: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a user's module does when it is imported, the answer is one message with the way to see it."""
    name = f"own_hooks_{abs(hash(body))}"
    (tmp_path / f"{name}.py").write_text(body)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(RequestError, match="cannot be loaded") as caught:
        registry.find(f"{name}:Hook")
    assert f"import {name}" in caught.value.remedy


@pytest.mark.parametrize("name", ["shapes", "latency", "kernels", f"{__name__}:Walker"])
def test_a_hook_that_can_walk_is_taken(name: str) -> None:
    """`--hook` takes instruments that attach to a model's layers."""
    assert callable(registry.load_own(name))


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("memory", "no batch"),
        ("nvml", "(model, layers)"),
        ("collections:OrderedDict", "no __enter__"),
        (f"{__name__}:Narrow", "(model, layers)"),
        ("string:digits", "(model, layers)"),
    ],
)
def test_what_cannot_walk_is_refused_before_anything_is_measured(name: str, word: str) -> None:
    """Sensors, classes without a hook's methods and things that cannot be called are told at once."""
    with pytest.raises(RequestError) as caught:
        registry.load_own(name)
    assert word in caught.value.problem
    assert "docs/hooks.md" in caught.value.remedy
