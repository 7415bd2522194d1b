"""Hooks by name or by import path."""

from __future__ import annotations

import pytest

from layerprof import registry
from layerprof.errors import RequestError


class OwnHook:
    """A user's own instrument."""


def test_a_registered_name_gives_its_class() -> None:
    """The entry point `latency` is the class of hooks/latency.py."""
    assert registry.load("latency").__name__ == "LatencyHook"


def test_an_import_path_gives_the_users_own_class() -> None:
    """Anything importable can be a hook."""
    assert registry.load("collections:OrderedDict").__name__ == "OrderedDict"


@pytest.mark.parametrize(
    ("name", "word"),
    [("latencyy", "Did you mean 'latency'"), ("no.such.module:Hook", "no.such"), ("collections:Nothing", "Nothing")],
)
def test_what_cannot_be_loaded_is_told_with_a_remedy(name: str, word: str) -> None:
    """Misspelt names get the nearest; paths that fail say why."""
    with pytest.raises(RequestError) as caught:
        registry.load(name)
    assert word in str(caught.value)
    assert caught.value.remedy
