"""Kinds: lazy parameters, scripted and traced parts, graphs: modules that are less than a module."""

from __future__ import annotations

import io
from typing import Any

import torch
from torch import nn

from gallery.exhibit import LINEAR, ROWS, WIDTH, Exhibit, Through, call, linear, one_call, rows, shown, two_calls


@shown
def lazy_linear() -> Exhibit:
    """The weight gets its shape in the first call; the module changes its class there."""
    return Exhibit(
        lambda: nn.Sequential(nn.LazyLinear(WIDTH), nn.ReLU(), nn.LazyLinear(2)),
        calls=two_calls,
        flops=2 * ROWS * 2 * (WIDTH * WIDTH + WIDTH * 2),
    )


@shown
def lazy_root() -> Exhibit:
    """The model itself is a lazy layer."""
    return Exhibit(lambda: nn.LazyLinear(2), calls=one_call, flops=2 * ROWS * WIDTH * 2)


@shown
def lazy_convolution() -> Exhibit:
    """A lazy convolution and a lazy batch norm in evaluation."""
    return Exhibit(
        lambda: nn.Sequential(nn.LazyConv2d(4, 3, padding=1), nn.LazyBatchNorm2d()),
        calls=(call(lambda: torch.ones(2, 3, 5, 5)),),
        flops=2 * (2 * 4 * 5 * 5) * 3 * 3 * 3,
    )


@shown
def lazy_that_never_runs() -> Exhibit:
    """A lazy child that no call reaches stays without a shape."""
    return Exhibit(
        lambda: Through(lambda m, x: m.used(x), used=linear(), unused=nn.LazyLinear(3)), calls=one_call, flops=LINEAR
    )


class _Scriptable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = linear()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.layer(x))


@shown
def scripted_child() -> Exhibit:
    """One child is TorchScript."""
    return Exhibit(
        lambda: nn.Sequential(linear(), torch.jit.script(_Scriptable().eval())), calls=two_calls, flops=4 * LINEAR
    )


@shown
def scripted_root() -> Exhibit:
    """The model itself is TorchScript."""
    return Exhibit(lambda: torch.jit.script(nn.Sequential(_Scriptable(), linear())), calls=two_calls, flops=4 * LINEAR)


@shown
def frozen_script() -> Exhibit:
    """A scripted and frozen child has no parameters left."""
    return Exhibit(
        lambda: nn.Sequential(linear(), torch.jit.freeze(torch.jit.script(_Scriptable().eval()))),
        calls=two_calls,
        flops=4 * LINEAR,
        partly=True,
    )


@shown
def traced_child() -> Exhibit:
    """One child is a trace."""
    return Exhibit(
        lambda: nn.Sequential(linear(), torch.jit.trace(_Scriptable().eval(), rows())),
        calls=two_calls,
        flops=4 * LINEAR,
    )


@shown
def traced_root() -> Exhibit:
    """The model itself is a trace."""
    return Exhibit(
        lambda: torch.jit.trace(nn.Sequential(_Scriptable(), linear()).eval(), rows()),
        calls=two_calls,
        flops=4 * LINEAR,
    )


@shown
def loaded_script() -> Exhibit:
    """A TorchScript file read back: no Python code of it is left."""

    def build() -> nn.Module:
        file = io.BytesIO()
        torch.jit.save(torch.jit.script(_Scriptable().eval()), file)
        file.seek(0)
        return Through(lambda m, x: m.own(m.loaded(x)), own=linear(), loaded=torch.jit.load(file))

    return Exhibit(build, calls=two_calls, flops=4 * LINEAR)


@shown
def traced_inside_the_block() -> Exhibit:
    """The user traces and scripts a part while the profiler is there."""

    def drive(model: Any) -> Any:
        x = rows()
        before = model(x)
        traced = torch.jit.trace(model[0], x)
        scripted = torch.jit.script(model[1])
        return before, traced(x), scripted(x), str(traced.graph).count("aten::"), model(x)

    return Exhibit(
        lambda: nn.Sequential(_Scriptable(), _Scriptable()),
        drive=drive,
        no_count="parts that are called by themselves are no calls of the model",
    )


@shown
def graph_module() -> Exhibit:
    """The model is what torch.fx made of one."""
    return Exhibit(
        lambda: torch.fx.symbolic_trace(nn.Sequential(_Scriptable(), linear())), calls=two_calls, flops=4 * LINEAR
    )


@shown
def exported_program() -> Exhibit:
    """The model is an exported program as a module."""

    def build() -> nn.Module:
        return torch.export.export(nn.Sequential(_Scriptable(), linear()).eval(), (rows(),)).module()

    def model() -> nn.Module:
        graph = build()
        graph.train = lambda mode=True: graph  # type: ignore[method-assign]  # an exported module refuses to be told
        return graph

    return Exhibit(model, calls=one_call, flops=2 * LINEAR)
