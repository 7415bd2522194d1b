"""Kinds: state that a call changes, in evaluation too, and arguments that a call changes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from gallery.exhibit import LINEAR, ROWS, WIDTH, Exhibit, Through, call, linear, one_call, rows, shown, two_calls


@shown
def keeps_a_list() -> Exhibit:
    """Each call appends to a list of the module's, and multiplies all that it holds."""

    def forward(m: Any, x: Tensor) -> Tensor:
        m.past.append(m.layer(x))
        return torch.cat(m.past) @ m.layer.weight

    return Exhibit(
        lambda: Through(forward, layer=linear(), past=[]), calls=two_calls, flops=2 * LINEAR + 3 * LINEAR, again=False
    )


@shown
def cache_in_a_closure() -> Exhibit:
    """The keys of earlier calls lie in a list that no attribute names."""

    def build() -> nn.Module:
        past: list[Tensor] = []

        def forward(m: Any, x: Tensor) -> Tensor:
            past.append(m.layer(x))
            held = torch.cat(past)
            return m.layer(x) @ held.T

        return Through(forward, layer=linear())

    scores = 2 * ROWS * ROWS * WIDTH
    return Exhibit(build, calls=two_calls, flops=4 * LINEAR + scores + 2 * scores, again=False)


@shown
def counts_its_calls() -> Exhibit:
    """A plain number that a call raises and that decides what the next one does."""

    def forward(m: Any, x: Tensor) -> Tensor:
        m.count += 1
        for _ in range(m.count):
            x = m.layer(x)
        return x

    return Exhibit(
        lambda: Through(forward, layer=linear(), count=0), calls=two_calls, flops=(1 + 2) * LINEAR, again=False
    )


@shown
def makes_a_child_in_its_first_call() -> Exhibit:
    """A submodule that is not there before the first call."""

    def forward(m: Any, x: Tensor) -> Tensor:
        if "late" not in m._modules:
            m.late = linear()
        return m.late(m.layer(x))

    return Exhibit(lambda: Through(forward, layer=linear()), calls=two_calls, flops=4 * LINEAR, again=False)


@shown
def batch_norm_in_training() -> Exhibit:
    """Running statistics move with every call."""
    return Exhibit(
        lambda: nn.Sequential(linear(), nn.BatchNorm1d(WIDTH), linear()),
        calls=two_calls,
        flops=4 * LINEAR,
        training=True,
    )


@shown
def moving_average_buffer() -> Exhibit:
    """A buffer is replaced by a new tensor in evaluation."""

    def build() -> nn.Module:
        def forward(m: Any, x: Tensor) -> Any:
            m.average = 0.9 * m.average + 0.1 * x.mean(0)
            return m.layer(x - m.average)

        model = Through(forward, layer=linear())
        model.register_buffer("average", torch.zeros(WIDTH))
        return model

    return Exhibit(build, calls=two_calls, flops=2 * LINEAR)


@shown
def writes_into_its_buffer() -> Exhibit:
    """A buffer is written in place and a view of it is the answer."""

    def build() -> nn.Module:
        def forward(m: Any, x: Tensor) -> Any:
            m.sums.add_(m.layer(x))
            return m.sums[:2]

        model = Through(forward, layer=linear())
        model.register_buffer("sums", torch.zeros(ROWS, WIDTH), persistent=False)
        return model

    return Exhibit(build, calls=two_calls, flops=2 * LINEAR)


@shown
def writes_into_its_weight() -> Exhibit:
    """The weight is normalised in place in every call."""

    def forward(m: Any, x: Tensor) -> Any:
        m.layer.weight.div_(m.layer.weight.norm() * 0.9)
        return m.layer(x)

    return Exhibit(lambda: Through(forward, layer=linear()), calls=two_calls, flops=2 * LINEAR)


@shown
def adds_to_its_argument() -> Exhibit:
    """The caller's tensor is written in place and given back."""

    def forward(m: Any, x: Tensor) -> Tensor:
        x += m.layer(x)
        return x

    return Exhibit(lambda: Through(forward, layer=linear()), calls=two_calls, flops=2 * LINEAR)


@shown
def fills_a_tensor_that_it_was_given() -> Exhibit:
    """The answer goes into a tensor of the caller's, by `out=`, and into a view of another."""

    def forward(m: Any, x: Tensor, out: Tensor, whole: Tensor) -> None:
        torch.mm(x, m.layer.weight, out=out)
        whole[:, ::2] = m.layer(x)

    return Exhibit(
        lambda: Through(forward, layer=linear()),
        calls=(call(lambda: {"x": rows(), "out": torch.zeros(ROWS, WIDTH), "whole": torch.zeros(ROWS, 2 * WIDTH)}),),
        flops=2 * LINEAR,
    )


@shown
def pops_from_its_arguments() -> Exhibit:
    """The caller's dict and list are taken apart."""

    def forward(m: Any, given: dict[str, Any], parts: list[Tensor]) -> Any:
        given["seen"] = True
        return m.layer(given.pop("x") + parts.pop())

    return Exhibit(
        lambda: Through(forward, layer=linear()),
        calls=(call(lambda: ({"x": rows()}, [rows(), rows()])),),
        flops=LINEAR,
        again=False,
    )


@shown
def consumes_an_iterator() -> Exhibit:
    """An argument that can be walked once, and a file that is read on."""

    def forward(m: Any, stream: Iterator[Tensor], file: io.BytesIO) -> Any:
        x = next(stream)
        return m.layer(x), file.read(2), file.tell()

    def drive(model: Any) -> Any:
        stream, file = iter([rows(), rows() * 2, rows() * 3]), io.BytesIO(b"abcdef")
        answers = [model(stream, file), model(stream, file)]
        return answers, list(stream), file.tell()

    return Exhibit(lambda: Through(forward, layer=linear()), drive=drive, flops=2 * LINEAR, again=False)


@shown
def gives_back_its_argument() -> Exhibit:
    """One answer is the argument itself, one a view of it."""
    return Exhibit(
        lambda: Through(lambda m, x: (x, x.view(-1), m.layer(x)), layer=linear()), calls=one_call, flops=LINEAR
    )


@shown
def hands_out_its_last_answer() -> Exhibit:
    """The answer of one call is an attribute, which the next call overwrites in place."""

    def forward(m: Any, x: Tensor) -> Tensor:
        if m.last is None:
            m.last = m.layer(x)
        else:
            m.last.copy_(m.layer(x))
        return m.last

    return Exhibit(lambda: Through(forward, layer=linear(), last=None), calls=two_calls, flops=2 * LINEAR, again=False)


@shown
def switches_its_own_mode() -> Exhibit:
    """It goes to training and back inside a call."""

    def forward(m: Any, x: Tensor) -> Any:
        m.train()
        x = m.layer(m.drop(x))
        m.eval()
        return x

    return Exhibit(lambda: Through(forward, layer=linear(), drop=nn.Dropout(0.5)), calls=two_calls, flops=2 * LINEAR)
