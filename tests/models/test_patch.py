"""What is laid around a module's `forward`: nothing of it in copies, and nothing left of it afterwards."""

from __future__ import annotations

import copy
import inspect
import itertools
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from layerprof.machine import internals
from layerprof.models.patch import Forward, Laid, Replaced, as_method


class Weights(nn.Module):
    """Gives its own weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, scale: float = 1.0) -> torch.Tensor:
        """Return the weight, scaled."""
        return self.weight * scale


def counting(calls: list[str], name: str) -> Callable[[Forward], Forward]:
    """Return what makes a forward that says that it was called."""

    def make(forward: Forward) -> Forward:
        def counted(_laid: Laid, *args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return forward(*args, **kwargs)

        return counted

    return make


def copies(module: Weights) -> dict[str, Weights]:
    """Return a module's copies, as people make them."""
    replica: Any = getattr(module, internals.REPLICATE)()
    replica.weight = module.weight.detach().clone()
    return {"deep": copy.deepcopy(module), "pickled": pickle.loads(pickle.dumps(module)), "replica": replica}


@pytest.mark.parametrize("how", ["deep", "pickled", "replica"])
def test_a_copy_runs_its_own_weights(how: str) -> None:
    """And nothing of what was laid around the original."""
    module, calls = Weights(), list[str]()
    laid = Replaced(module, counting(calls, "ours"))
    other = copies(module)[how]
    with torch.no_grad():
        other.weight.mul_(3)
    assert other().tolist() == [3, 3]
    assert calls == []
    assert module().tolist() == [1, 1]
    assert calls == ["ours"]
    laid.remove()
    assert not any(isinstance(value, Laid) for value in vars(other).values())


def test_a_copy_keeps_what_stood_there_before() -> None:
    """An adapter's own forward on the instance goes into the copy, as it would without us."""
    module = Weights()
    module.forward = torch.ones(1).tolist  # type: ignore[method-assign,assignment]  # as PEFT and accelerate do
    laid = Replaced(module, counting([], "ours"))
    assert copy.deepcopy(module).forward() == [1.0]
    laid.remove()
    assert module.forward() == [1.0]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_nothing_is_left_in_whatever_order_they_are_taken_off(order: tuple[int, ...]) -> None:
    """Three around each other: what is still there is called, and at the end the module is as it was."""
    module, calls = Weights(), list[str]()
    before = dict(vars(module))
    laid = [Replaced(module, counting(calls, str(number))) for number in range(3)]
    for number in order:
        laid[number].remove()
        laid[number].remove()
        assert module(2.0).tolist() == [2, 2]
    assert vars(module) == before


def test_what_somebody_laid_around_ours_stays() -> None:
    """It is theirs, and works."""
    module = Weights()
    laid = Replaced(module, counting([], "ours"))
    inner = module.forward

    def theirs() -> torch.Tensor:
        return inner() + 1

    module.forward = theirs  # type: ignore[method-assign,assignment]  # as people do
    laid.remove()
    assert module().tolist() == [2, 2]


def test_it_looks_like_what_it_stands_for() -> None:
    """Its signature, its name and its owner are the forward's: transformers asks for the signature."""
    module = Weights()
    signature = inspect.signature(module.forward)
    laid = Replaced(module, counting([], "ours"))
    assert inspect.signature(module.forward) == signature
    assert module.forward.__name__ == "forward"
    assert module.forward.__self__ is module  # type: ignore[attr-defined]  # a bound method's
    laid.remove()


def test_a_module_can_be_compiled_with_it() -> None:
    """In one graph: torch.compile sees through it."""
    model = nn.Sequential(Weights(), nn.Identity())
    laid = [Replaced(module, counting([], "ours")) for module in model]

    def work(scale: float) -> Any:
        return model[0](scale)

    compiled = torch.compile(work, backend="eager", fullgraph=True)
    assert compiled(2.0).tolist() == [2, 2]
    for one in laid:
        one.remove()


def test_a_function_that_knows_nothing_of_it_can_be_laid() -> None:
    """`as_method` drops the first argument."""
    module = Weights()
    laid = Replaced(module, lambda forward: as_method(lambda *args: forward(*args) + 5))
    assert module().tolist() == [6, 6]
    laid.remove()
    assert module().tolist() == [1, 1]
