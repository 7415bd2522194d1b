"""Kinds: answers and arguments of any type, and roots that are hardly a model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gallery.exhibit import LINEAR, ROWS, WIDTH, Exhibit, Through, call, linear, one_call, rows, shown, two_calls


class _Named(NamedTuple):
    logits: Tensor
    hidden: list[Tensor]


@dataclass
class _Dataclass:
    logits: Tensor
    loss: Tensor | None = None


def _answers(wrap: Callable[[Tensor], Any], *, again: bool = True) -> Exhibit:
    """Return a model of one layer whose answer is whatever is made of the layer's."""
    return Exhibit(
        lambda: Through(lambda m, x: wrap(m.layer(x)), layer=linear()), calls=two_calls, flops=2 * LINEAR, again=again
    )


@shown
def answers_nested() -> Exhibit:
    """Tuples, lists and dicts in each other, the same tensor twice."""
    return _answers(lambda y: (y, {"a": [y, y + 1], 3: ()}, None))


@shown
def answers_a_named_tuple() -> Exhibit:
    """A named tuple."""
    return _answers(lambda y: _Named(y, [y + 1]))


@shown
def answers_a_dataclass() -> Exhibit:
    """A dataclass, as many libraries' outputs are."""
    return _answers(_Dataclass)


@shown
def answers_nothing() -> Exhibit:
    """None."""
    return _answers(lambda y: None)


@shown
def answers_numbers_and_text() -> Exhibit:
    """Nothing with a shape."""
    return _answers(lambda y: (float(y.sum()), "text", len(y)))


@shown
def answers_an_array() -> Exhibit:
    """A numpy array that shares memory with a tensor."""
    return _answers(lambda y: (y, y.numpy()))


@shown
def answers_itself() -> Exhibit:
    """The module itself, and a method of its."""
    return Exhibit(lambda: Through(lambda m, x: (m.layer(x), m, m.layer), layer=linear()), calls=one_call, flops=LINEAR)


@shown
def answers_lazily() -> Exhibit:
    """Forward is a generator: the layers run after the call has returned, when the caller takes the next."""

    def forward(m: Any, x: Tensor) -> Iterator[Tensor]:
        for layer in m.layers:
            x = layer(x)
            yield x

    def drive(model: Any) -> Any:
        whole = list(model(rows()))
        begun = model(rows())
        return whole, next(begun), model(rows()).__next__()

    return Exhibit(
        lambda: Through(forward, layers=nn.ModuleList([linear(), linear()])),
        drive=drive,
        no_count="the work is done after the call",
    )


@shown
def answers_in_a_coroutine() -> Exhibit:
    """Forward is asynchronous; two calls run in turns."""

    async def forward(m: Any, x: Tensor) -> Any:
        for layer in m.layers:
            await asyncio.sleep(0)
            x = layer(x)
        return x

    def drive(model: Any) -> Any:
        # By hand, since another test may have left an event loop running on this thread.
        waiting, done = {0: model(rows()), 1: model(rows() * 2)}, {}
        while waiting:
            for number, coroutine in list(waiting.items()):
                try:
                    coroutine.send(None)
                except StopIteration as end:
                    done[number] = end.value
                    del waiting[number]
        return done

    return Exhibit(
        lambda: Through(forward, layers=nn.ModuleList([linear(), linear()])),
        drive=drive,
        no_count="the work is done after the call",
        again=False,
    )


# --- arguments --------------------------------------------------------------------------------------------------


@shown
def keywords_only() -> Exhibit:
    """Nothing by position, and names that a wrapper may use itself."""

    def forward(m: Any, *, args: Tensor, kwargs: int, func: str, index: None = None, self_: Any = None) -> Any:
        return m.layer(args * kwargs)

    return Exhibit(
        lambda: Through(forward, layer=linear()),
        calls=(call(lambda: {"args": rows(), "kwargs": 2, "func": "f"}),),
        flops=LINEAR,
    )


class _ShapeIsANumber:
    shape = 7


class _ShapeRaises:
    @property
    def shape(self) -> tuple[int, ...]:
        raise RuntimeError("this object has no shape today")


class _ShapeIsText:
    shape = "wide"
    dtype = device = is_cuda = None


class _RefusesEverything:
    """Cannot be compared, measured, copied or told true from false."""

    def __eq__(self, other: object) -> bool:
        raise TypeError("no comparing")

    def __hash__(self) -> int:
        raise TypeError("no hashing")

    def __len__(self) -> int:
        raise TypeError("no length")

    def __bool__(self) -> bool:
        raise TypeError("neither true nor false")

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")

    def __deepcopy__(self, memo: object) -> Any:
        raise TypeError("no copying")


@shown
def looks_like_a_tensor() -> Exhibit:
    """Arguments whose `.shape` is a number, text, or raises."""

    def forward(m: Any, *args: Any, x: Tensor) -> Any:
        return m.inner(*args, x=x)

    def build() -> nn.Module:
        inner = Through(lambda m, *args, x: m.layer(x) + len(args), layer=linear())
        return Through(forward, inner=inner)

    def drive(model: Any) -> Any:
        odd = (_ShapeIsANumber(), _ShapeIsText(), _ShapeRaises(), _RefusesEverything(), SimpleNamespace(shape=None))
        return [model(thing, x=rows()) for thing in odd]

    return Exhibit(build, drive=drive, flops=5 * LINEAR)


@shown
def no_arguments() -> Exhibit:
    """The input is a buffer."""

    def build() -> nn.Module:
        model = Through(lambda m: m.layer(m.x), layer=linear())
        model.register_buffer("x", rows())
        return model

    return Exhibit(build, calls=(call(lambda: ()),) * 2, flops=2 * LINEAR)


@shown
def callable_argument() -> Exhibit:
    """A function, a module and a type among the arguments."""

    def forward(m: Any, x: Tensor, function: Any, module: Any, kind: type) -> Any:
        return m.layer(function(module(x))), kind.__name__

    return Exhibit(
        lambda: Through(forward, layer=linear()),
        calls=(call(lambda: (rows(), torch.relu, nn.Identity(), list)),),
        flops=LINEAR,
    )


# --- roots ------------------------------------------------------------------------------------------------------


@shown
def single_linear() -> Exhibit:
    """The model is one layer."""
    return Exhibit(linear, calls=two_calls, flops=2 * LINEAR)


@shown
def bare_parameters() -> Exhibit:
    """No submodule at all."""

    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Parameter(torch.ones(WIDTH, WIDTH))
            self.scale = nn.Parameter(torch.tensor(2.0))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.a * self.scale

    return Exhibit(Bare, calls=two_calls, flops=2 * LINEAR)


@shown
def parameter_list() -> Exhibit:
    """The weights lie in a ParameterList and a ParameterDict."""

    def forward(m: Any, x: Tensor) -> Any:
        for weight in m.weights:
            x = x @ weight
        return x @ m.named["last"]

    return Exhibit(
        lambda: Through(
            forward,
            weights=nn.ParameterList([torch.ones(WIDTH, WIDTH)] * 2),
            named=nn.ParameterDict({"last": torch.ones(WIDTH, 2)}),
        ),
        calls=one_call,
        flops=2 * LINEAR + 2 * ROWS * WIDTH * 2,
    )


@shown
def module_dict() -> Exhibit:
    """The caller picks a child by name, in turns; one has a name of Python's."""

    def drive(model: Any) -> Any:
        return [model(rows(), name) for name in ("weight", "forward_", "weight")]

    return Exhibit(
        lambda: Through(
            lambda m, x, name: m.experts[name](x),
            experts=nn.ModuleDict({"weight": linear(), "forward_": linear(), "class": linear()}),
        ),
        drive=drive,
        flops=3 * LINEAR,
    )


@shown
def hardly_any_depth() -> Exhibit:
    """A Sequential in a Sequential in a Sequential, empty ones and identities between."""
    return Exhibit(
        lambda: nn.Sequential(nn.Sequential(), nn.Sequential(nn.Sequential(nn.Identity(), linear())), nn.Identity()),
        calls=two_calls,
        flops=2 * LINEAR,
    )
