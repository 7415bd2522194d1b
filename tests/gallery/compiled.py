"""Kinds: torch.compile in every place that it can stand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gallery.exhibit import LINEAR, ROWS, WIDTH, Exhibit, Through, call, linear, one_call, rows, shown


def _fresh(model: Any) -> Any:
    """Forget what was compiled before: torch stops compiling a function after some times."""
    torch._dynamo.reset()
    return model.eval()


def _child(backend: str) -> Exhibit:
    def build() -> nn.Module:
        model: Any = Through(lambda m, x: m.after(m.inner(x)), inner=nn.Sequential(linear(), nn.ReLU()), after=linear())
        model.inner = torch.compile(model.inner, backend=backend)
        return _fresh(model)

    return Exhibit(build, calls=one_call * 2, flops=4 * LINEAR, partly=True)


@shown
def compiled_child() -> Exhibit:
    """One child is compiled, by the eager backend."""
    return _child("eager")


@shown
def compiled_child_ahead_of_time() -> Exhibit:
    """One child is compiled through AOTAutograd."""
    return _child("aot_eager")


@shown
def compiled_root() -> Exhibit:
    """The model is what torch.compile gives."""

    def build() -> Any:
        return torch.compile(_fresh(nn.Sequential(linear(), linear())), backend="eager")

    return Exhibit(build, calls=one_call * 2, flops=4 * LINEAR, partly=True)


@shown
def compiled_in_place() -> Exhibit:
    """`module.compile()` on the root and on a child."""

    def build() -> nn.Module:
        model = _fresh(nn.Sequential(linear(), nn.Sequential(linear(), nn.ReLU())))
        model[1].compile(backend="eager")
        model.compile(backend="eager")
        return model

    return Exhibit(build, calls=one_call * 2, flops=4 * LINEAR, partly=True)


def _product(x: Tensor, weight: Tensor) -> Tensor:
    return torch.relu(x @ weight)


@shown
def compiled_function() -> Exhibit:
    """Forward calls a compiled function, with a shape that changes."""

    def build() -> nn.Module:
        model = _fresh(Through(lambda m, x: m.product(x, m.layer.weight) + m.layer(x), layer=linear()))
        model.product = torch.compile(_product, backend="eager")
        return model

    return Exhibit(
        build,
        calls=(call(rows), call(lambda: torch.ones(2 * ROWS, WIDTH)), call(rows)),
        flops=(1 + 2 + 1) * 2 * LINEAR,
        partly=True,
    )


@shown
def compiled_inside_the_block() -> Exhibit:
    """The user compiles a child, and the model, between two calls."""

    def drive(model: Any) -> Any:
        first = model(rows())
        model[0].compile(backend="eager")
        second = model(rows())
        whole = torch.compile(model, backend="eager")
        return first, second, whole(rows()), model(rows())

    return Exhibit(
        lambda: _fresh(nn.Sequential(linear(), linear())),
        drive=drive,
        no_count="whether what is compiled around the model calls it is not settled",
    )


@shown
def compiled_in_training() -> Exhibit:
    """Compiled through AOTAutograd, with a backward pass."""

    def build() -> nn.Module:
        inner: Any = torch.compile(nn.Sequential(linear(), nn.Tanh()), backend="aot_eager")
        return _fresh(nn.Sequential(inner, linear()))

    def drive(model: Any) -> Any:
        x = rows().requires_grad_()
        model(x).sum().backward()
        return x

    return Exhibit(build, drive=drive, no_count="backward runs outside the call", training=True, grad=True)


@shown
def breaks_its_graph() -> Exhibit:
    """A compiled root with a break in its graph."""

    def forward(m: Any, x: Tensor) -> Any:
        x = m.a(x)
        torch._dynamo.graph_break()
        return m.b(x)

    def build() -> nn.Module:
        model = _fresh(Through(forward, a=linear(), b=linear()))
        model.compile(backend="eager")
        return model

    return Exhibit(build, calls=one_call * 2, flops=4 * LINEAR, partly=True)
