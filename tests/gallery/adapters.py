"""Kinds: layers that adapters, parametrizations and wrappers have changed on the instance."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from gallery.exhibit import LINEAR, ROWS, WIDTH, Exhibit, Through, linear, one_call, rows, shown, two_calls


@shown
def forward_replaced_on_the_instance() -> Exhibit:
    """A `forward` on the instance around the class's own, as accelerate hangs its hooks: with the old one beside it."""

    def build() -> nn.Module:
        model = nn.Sequential(linear(), linear())
        for module in (model, model[0]):
            old = module.forward

            def new(module: Any, x: Tensor, old: Any = old) -> Any:
                return old(x * module.scale)

            module.scale = 0.5  # type: ignore[assignment]  # a plain number
            module._old_forward = old  # type: ignore[assignment]  # as accelerate names it
            module.forward = functools.update_wrapper(functools.partial(new, module), old)
        return model

    return Exhibit(build, calls=two_calls, flops=4 * LINEAR)


@shown
def forward_given_by_the_user() -> Exhibit:
    """A plain function as `forward` on the root, on a child, and a bound method of another object."""

    def build() -> nn.Module:
        model = nn.Sequential(linear(), linear(), linear())
        other = linear()
        model[1].forward = lambda x: x + 1
        model[2].forward = other.forward
        return model

    return Exhibit(build, calls=two_calls, flops=4 * LINEAR)


class _LowRank(nn.Module):
    """A layer with a product of two thin matrices beside it."""

    def __init__(self, base: nn.Linear, rank: int = 2) -> None:
        super().__init__()
        self.base_layer = base
        self.lora_a = nn.ModuleDict({"default": nn.Linear(WIDTH, rank, bias=False)})
        self.lora_b = nn.ModuleDict({"default": nn.Linear(rank, WIDTH, bias=False)})

    @property
    def weight(self) -> Tensor:
        return self.base_layer.weight

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        return self.base_layer(x, *args, **kwargs) + self.lora_b["default"](self.lora_a["default"](x)) * 0.5


@shown
def low_rank_adapter() -> Exhibit:
    """A wrapped layer, as PEFT wraps it: thin matrices beside the base."""
    return Exhibit(
        lambda: nn.Sequential(_LowRank(linear()), _LowRank(linear())),
        calls=two_calls,
        flops=2 * 2 * (LINEAR + 2 * ROWS * 2 * WIDTH * 2),
    )


@shown
def adapter_switched_on_inside_the_block() -> Exhibit:
    """The user wraps a layer between two calls and unwraps it after."""

    def drive(model: Any) -> Any:
        first, base = model(rows()), model[0]
        torch.manual_seed(1)
        model[0] = _LowRank(base)
        second = model(rows())
        model[0] = base
        return first, second, model(rows())

    return Exhibit(lambda: nn.Sequential(linear(), linear()), drive=drive, flops=6 * LINEAR + 2 * ROWS * 2 * WIDTH * 2)


class _Symmetric(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.triu() + weight.triu(1).transpose(-1, -2)


@shown
def parametrised() -> Exhibit:
    """The weight is computed from another in every call; the module's class is made for it."""

    def build() -> nn.Module:
        model = nn.Sequential(linear(), linear())
        parametrize.register_parametrization(model[0], "weight", _Symmetric())
        return model

    return Exhibit(build, calls=two_calls, flops=4 * LINEAR)


@shown
def parametrised_with_a_cache() -> Exhibit:
    """Parametrized weights are computed once inside `parametrize.cached()`."""

    def build() -> nn.Module:
        model = nn.Sequential(linear(), linear())
        parametrize.register_parametrization(model[0], "weight", _Symmetric())
        return model

    def drive(model: Any) -> Any:
        with parametrize.cached():
            first = model(rows())
            held = model[0].weight is model[0].weight
            return first, model(rows()), held

    return Exhibit(build, drive=drive, flops=4 * LINEAR)


@shown
def weight_norm_by_hooks() -> Exhibit:
    """The older weight norm: a pre-hook sets a plain attribute `weight`."""
    return Exhibit(lambda: nn.Sequential(nn.utils.weight_norm(linear()), linear()), calls=two_calls, flops=4 * LINEAR)


@shown
def weight_norm_parametrised() -> Exhibit:
    """The newer weight norm."""
    return Exhibit(
        lambda: nn.Sequential(parametrizations.weight_norm(linear()), linear()), calls=two_calls, flops=4 * LINEAR
    )


@shown
def spectral_norm_in_training() -> Exhibit:
    """Each call moves the power iteration that the norm keeps: two products of a matrix and a vector, and one more."""
    step = 2 * WIDTH * WIDTH
    return Exhibit(
        lambda: nn.Sequential(parametrizations.spectral_norm(linear()), linear()),
        calls=two_calls,
        flops=4 * LINEAR + 2 * (2 * step + step + 2 * WIDTH),
        no_count="",
        partly=True,
        training=True,
    )


@shown
def pruned() -> Exhibit:
    """Pruning sets the weight from a mask in a pre-hook."""

    def build() -> nn.Module:
        model = nn.Sequential(linear(), linear())
        prune.l1_unstructured(model[0], "weight", amount=0.5)
        return model

    return Exhibit(build, calls=two_calls, flops=4 * LINEAR)


class _Delegating(nn.Module):
    """Hands every name that it does not have to the model inside, as adapter libraries do."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner(*args, **kwargs)


class _Generating(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = linear()

    def forward(self, x: Tensor) -> Any:
        return self.layer(x)

    def generate(self, x: Tensor) -> Any:
        return self(self(x))


@shown
def hands_names_to_the_model_inside() -> Exhibit:
    """`__getattr__` passes on what the wrapper lacks, `generate` of the inner model among it."""

    def drive(model: Any) -> Any:
        return model(rows()), model.generate(rows()), model.inner(rows())

    return Exhibit(
        lambda: _Delegating(_Generating()),
        drive=drive,
        no_count="a child that is called by itself is no call of the model",
    )


class _Refusing(nn.Module):
    """Takes no attribute but its own, as classes with slots do."""

    allowed = ("layer", "training")

    def __init__(self) -> None:
        super().__init__()
        self.layer = linear()

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and name not in self.allowed:
            raise AttributeError(f"no attribute {name}")
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{name} stays")

    def forward(self, x: Tensor) -> Any:
        return self.layer(x)


@shown
def takes_no_attributes() -> Exhibit:
    """`__setattr__` and `__delattr__` refuse."""
    return Exhibit(lambda: nn.Sequential(_Refusing(), _Refusing()), calls=one_call, flops=2 * LINEAR)


@shown
def root_takes_no_attributes() -> Exhibit:
    """The root refuses new attributes."""
    return Exhibit(_Refusing, calls=one_call, flops=LINEAR)


class _Slotted(nn.Module):
    __slots__ = ("layer_names",)

    def __init__(self) -> None:
        super().__init__()
        self.layer = linear()
        self.layer_names = ["layer"]

    def __call__(self, x: Tensor) -> Any:
        return super().__call__(x) + 1

    def forward(self, x: Tensor) -> Any:
        return self.layer(x)


@shown
def slots_and_a_call_of_its_own() -> Exhibit:
    """A module with `__slots__` whose `__call__` does more than its forward."""
    return Exhibit(lambda: nn.Sequential(_Slotted(), _Slotted()), calls=one_call, flops=2 * LINEAR)


@shown
def forward_as_a_descriptor() -> Exhibit:
    """`forward` is a property that gives another function each time."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.turn = linear(), linear(), 0

        @property
        def forward(self) -> Any:  # type: ignore[override]  # the oddity is the exhibit
            self.turn += 1
            return self.a if self.turn % 2 else self.b

    return Exhibit(
        lambda: Through(lambda m, x: m.model(x), model=Model()),
        calls=two_calls,
        flops=2 * LINEAR,
        again=False,
    )
