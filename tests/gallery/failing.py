"""Kinds: calls that fail, and who hears of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gallery.exhibit import LINEAR, ROWS, WIDTH, Exhibit, Through, call, linear, one_call, rows, shown


class _OwnError(Exception):
    """An exception with more than a message."""

    def __init__(self, code: int, tensor: Tensor) -> None:
        super().__init__(code)
        self.code, self.tensor = code, tensor

    def __str__(self) -> str:
        return f"own error {self.code}"


def _failing(error: Any) -> Any:
    """Return a model whose inner layer raises when it is told to."""

    def inner(m: Any, x: Tensor, fail: bool) -> Any:
        x = m.layer(x)
        if fail:
            raise error(x) if callable(error) and not isinstance(error, type) else error
        return x

    def build() -> nn.Module:
        return Through(
            lambda m, x, fail=False: m.after(m.inner(x, fail)), inner=Through(inner, layer=linear()), after=linear()
        )

    return build


def _caught(model: Any) -> Any:
    """Call, fail, call."""
    first = model(rows())
    try:
        model(rows(), fail=True)
    except BaseException as error:
        return first, error, vars(error), model(rows())
    return None


@shown
def failure_that_is_caught() -> Exhibit:
    """One of three calls fails in a layer; the caller catches it and goes on. Two calls were finished."""
    return Exhibit(_failing(lambda x: _OwnError(3, x)), drive=_caught, flops=4 * LINEAR)


@shown
def only_call_fails_and_is_caught() -> Exhibit:
    """The only call fails, the caller catches it, and the block ends well."""

    def drive(model: Any) -> Any:
        try:
            model(torch.ones(ROWS, WIDTH + 1))
        except RuntimeError as error:
            return error
        return None

    return Exhibit(_failing(ValueError), drive=drive, no_count="no call was finished")


@shown
def failure_that_is_not_caught() -> Exhibit:
    """The second call fails and ends the block."""

    def drive(model: Any) -> Any:
        model(rows())
        return model(rows(), fail=True)

    return Exhibit(_failing(ValueError("mine")), drive=drive, no_count="the block ended with an exception")


@shown
def wrong_shape() -> Exhibit:
    """Torch's own error ends the block at once."""
    return Exhibit(
        lambda: nn.Sequential(linear(), linear()),
        calls=(call(lambda: torch.ones(ROWS, WIDTH + 1)),),
        no_count="the block ended with an exception",
    )


@shown
def wrong_arguments() -> Exhibit:
    """Too many arguments, unknown names: Python's own TypeErrors, caught, with the names that they tell."""

    def drive(model: Any) -> Any:
        told = []
        for args, kwargs in (((1, 2, 3), {}), ((), {"no_such": 1}), ((), {})):
            try:
                model(*args, **kwargs)
            except TypeError as error:
                told.append(str(error))
        return told, model(rows())

    return Exhibit(lambda: nn.Sequential(linear(), linear()), drive=drive, flops=2 * LINEAR)


@shown
def interrupted() -> Exhibit:
    """Ctrl-C inside a layer."""

    def drive(model: Any) -> Any:
        model(rows())
        return model(rows(), fail=True)

    return Exhibit(_failing(KeyboardInterrupt()), drive=drive, no_count="the block ended with an exception")


@shown
def interrupted_and_caught() -> Exhibit:
    """Ctrl-C that the loop catches to stop early, as training loops do."""
    return Exhibit(_failing(KeyboardInterrupt()), drive=_caught, flops=4 * LINEAR)


@shown
def stops_an_iteration() -> Exhibit:
    """StopIteration and GeneratorExit out of a forward: Python turns these into others inside generators."""

    def drive(model: Any) -> Any:
        try:
            model(rows(), fail=True)
        except BaseException as error:
            first: Any = error
        return first, model(rows())

    return Exhibit(_failing(StopIteration(7)), drive=drive, flops=2 * LINEAR)


@shown
def leaves_a_generator() -> Exhibit:
    """GeneratorExit out of a forward."""
    return Exhibit(_failing(GeneratorExit()), drive=_caught, flops=4 * LINEAR)


@shown
def raised_from_another() -> Exhibit:
    """An error with a cause and a note, uncaught."""

    def forward(m: Any, x: Tensor) -> Any:
        try:
            m.layer(x[:, :1])
        except RuntimeError as error:
            mine = ValueError("a cause below")
            mine.add_note("and a note")
            raise mine from error

    return Exhibit(
        lambda: Through(forward, layer=linear()), calls=one_call, no_count="the block ended with an exception"
    )


@shown
def failure_inside_is_mended() -> Exhibit:
    """A child fails and its parent takes another way in the same call."""

    def forward(m: Any, x: Tensor) -> Any:
        try:
            return m.narrow(x)
        except RuntimeError:
            return m.wide(x)

    return Exhibit(
        lambda: Through(forward, narrow=nn.Sequential(linear(), nn.Linear(2, 2)), wide=linear()),
        calls=one_call,
        no_count="whether work that was thrown away counts is not settled",
    )


@shown
def fails_in_backward() -> Exhibit:
    """The backward pass of a call fails after it."""

    class Bad(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            raise RuntimeError("no gradient here")

    def drive(model: Any) -> Any:
        y = model(rows())
        try:
            y.sum().backward()
        except RuntimeError as error:
            return y, error
        return None

    return Exhibit(
        lambda: Through(lambda m, x: Bad.apply(m.layer(x)), layer=linear()), drive=drive, flops=LINEAR, grad=True
    )
