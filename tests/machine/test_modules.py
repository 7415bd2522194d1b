"""Any module answers: shared, holding itself, scripted, without weights yet, or raising whatever it likes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from layerprof.machine import modules, stored


def shared() -> nn.Module:
    """Return one part under two names, in two places."""
    model = nn.Module()
    model.part = nn.Sequential(nn.Linear(2, 2))
    model.holder = nn.ModuleList([model.part, nn.ReLU(), model.part])
    return model


def test_every_name_of_a_module_is_known_and_the_first_is_torch_s() -> None:
    """What stands in a part that has two names has two names, too; `named_modules()` has the first of each."""
    model = shared()
    found = modules.named(model)
    assert list(found) == [
        *("", "part", "part.0", "holder", "holder.0", "holder.0.0"),
        *("holder.1", "holder.2", "holder.2.0"),
    ]
    assert found["holder.2.0"] is found["part.0"]
    first = modules.first_names(model)
    assert {name: first[name] for name in ("holder.2.0", "holder.0", "holder.1", "part", "")} == {
        "holder.2.0": "part.0",
        "holder.0": "part",
        "holder.1": "holder.1",
        "part": "part",
        "": "",
    }
    assert set(first.values()) == set(dict(model.named_modules()))


def test_a_module_that_holds_itself_is_listed_once_on_the_way_down() -> None:
    """Torch itself does not return from `named_modules(remove_duplicate=False)` there."""
    model = nn.Module()
    model.part = nn.Linear(2, 2)
    model.part.back = model
    assert list(modules.named(model)) == ["", "part"]


def test_names_without_end_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts that share parts double at every step; each module still has its first name."""
    model: nn.Module = nn.Linear(2, 2)
    for _ in range(12):
        model = nn.ModuleList([model, model])
    monkeypatch.setattr(modules, "MOST_NAMES", 100)
    found = modules.named(model)
    assert len(found) <= 113
    assert set(dict(model.named_modules())) <= set(found)


def test_an_attribute_that_cannot_be_asked_for_is_not_there() -> None:
    """A `__getattr__` that raises anything; and one that answers."""

    class Odd(nn.Module):
        def __getattr__(self, name: str) -> Any:
            raise KeyError(name)

    assert modules.told(Odd(), "config", "none") == "none"
    assert modules.told(nn.Linear(3, 2), "in_features") == 3
    assert modules.told(nn.Linear(3, 2), "width") is None


def test_who_is_called_has_a_forward() -> None:
    """Lists and bare modules have none; scripted and traced ones do, and what somebody laid over an instance is one."""
    laid = nn.Module()
    laid.forward = lambda x: x
    traced: Any = torch.jit.trace(nn.ReLU(), torch.ones(1))  # type: ignore[no-untyped-call]  # untyped there
    called = (nn.ReLU(), torch.jit.script(nn.ReLU()), traced, laid)
    assert all(map(modules.is_called, called))
    assert not any(map(modules.is_called, (nn.Module(), nn.ModuleList(), nn.ModuleDict(), nn.ParameterList())))


def test_parameters_count_once_and_unknown_sizes_not_at_all() -> None:
    """A table of 5 x 3 that embeds and writes; of a lazy layer, its 4 x 2 matrix and its bias once they are there."""
    model = nn.ModuleDict({"embed": nn.Embedding(5, 3), "head": nn.Linear(3, 5, bias=False), "lazy": nn.LazyLinear(4)})
    model["head"].weight = model["embed"].weight
    assert stored.size(model) == 15
    assert modules.is_uninitialised(next(model["lazy"].parameters()))
    model["lazy"](torch.ones(1, 2))
    assert stored.size(model) == 15 + 4 * 2 + 4
