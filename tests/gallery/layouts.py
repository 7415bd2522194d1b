"""Kinds: sparse, nested and quantised tensors, and memory that is laid out in other ways."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gallery.exhibit import LINEAR, ROWS, WIDTH, Exhibit, Through, call, linear, one_call, rows, shown, two_calls

NON_ZEROS = 4


def _thin() -> Tensor:
    """Make a (ROWS, WIDTH) matrix with NON_ZEROS entries."""
    x = torch.zeros(ROWS, WIDTH)
    x[0, 1], x[0, 5], x[1, 2], x[2, 7] = 1.0, 2.0, 3.0, 4.0
    return x


@shown
def sparse_coo_argument() -> Exhibit:
    """A COO matrix against a dense weight; counted by its non-zeros."""
    return Exhibit(
        lambda: Through(lambda m, x: torch.sparse.mm(x, m.layer.weight), layer=linear()),
        calls=(call(lambda: _thin().to_sparse_coo()),),
        flops=2 * NON_ZEROS * WIDTH,
        partly=True,
    )


@shown
def sparse_csr_argument() -> Exhibit:
    """A CSR matrix against a dense weight; counted by its non-zeros."""
    return Exhibit(
        lambda: Through(lambda m, x: x @ m.layer.weight, layer=linear()),
        calls=(call(lambda: _thin().to_sparse_csr()),),
        flops=2 * NON_ZEROS * WIDTH,
        partly=True,
    )


@shown
def sparse_weight() -> Exhibit:
    """The weight is a sparse buffer."""

    def build() -> nn.Module:
        model = Through(lambda m, x: torch.sparse.mm(m.table, m.layer(x).T), layer=linear())
        model.register_buffer("table", _thin().to_sparse_coo())
        return model

    return Exhibit(build, calls=one_call, flops=LINEAR + 2 * NON_ZEROS * ROWS, partly=True)


@shown
def sparse_answer() -> Exhibit:
    """The answer is sparse."""
    return Exhibit(
        lambda: Through(lambda m, x: torch.relu(m.layer(x)).to_sparse(), layer=linear()), calls=one_call, flops=LINEAR
    )


def _ragged(layout: torch.layout) -> Any:
    def make() -> Any:
        parts = [torch.linspace(-1, 1, n * WIDTH).reshape(n, WIDTH) for n in (3, 5)]
        return torch.nested.nested_tensor(parts, layout=layout)

    return call(make)


@shown
def nested_jagged() -> Exhibit:
    """Rows of unequal length in one jagged tensor; torch takes its operators apart inside Python."""
    return Exhibit(
        lambda: nn.Sequential(linear(), nn.ReLU(), linear()),
        calls=(_ragged(torch.jagged),) * 2,
        flops=2 * 2 * (2 * (3 + 5) * WIDTH * WIDTH),
        partly=True,
    )


@shown
def nested_strided() -> Exhibit:
    """Rows of unequal length in torch's older nested tensor."""
    return Exhibit(
        lambda: nn.Sequential(linear(), nn.ReLU(), linear()),
        calls=(_ragged(torch.strided),) * 2,
        flops=2 * 2 * (2 * (3 + 5) * WIDTH * WIDTH),
        partly=True,
    )


@shown
def quantised_dynamically() -> Exhibit:
    """Linear layers in int8 by torch.ao: packed weights, no parameters."""

    def build() -> nn.Module:
        model = nn.Sequential(linear(), nn.ReLU(), linear()).eval()
        kept = Through(lambda m, x: m.quantised(m.own(x)), own=linear())
        kept.quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
        return kept

    return Exhibit(build, calls=two_calls, flops=6 * LINEAR, partly=True)


@shown
def quantised_by_hand() -> Exhibit:
    """The weight lies in int8 with a scale, and is unpacked in every call."""

    def build() -> nn.Module:
        model = Through(lambda m, x: m.head(functional.linear(x, m.stored.to(x.dtype) * m.scale)), head=linear())
        model.register_buffer("stored", torch.arange(-32, 32, dtype=torch.int8).reshape(WIDTH, WIDTH))
        model.register_buffer("scale", torch.full((WIDTH, 1), 0.05))
        return model

    return Exhibit(build, calls=two_calls, flops=4 * LINEAR)


@shown
def quantised_tensors() -> Exhibit:
    """Torch's own quantised tensors as argument and answer."""

    def make() -> Tensor:
        return torch.quantize_per_tensor(rows(), scale=0.02, zero_point=3, dtype=torch.quint8)

    def forward(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, torch.quantize_per_tensor(m.layer(x.dequantize()), 0.05, 0, torch.qint8)

    return Exhibit(lambda: Through(forward, layer=linear()), calls=(call(make),), flops=LINEAR)


@shown
def fake_quantised() -> Exhibit:
    """Observers move their ranges in every call, in training of a quantised model."""
    return Exhibit(
        lambda: nn.Sequential(linear(), torch.ao.quantization.FakeQuantize(), linear()),
        calls=two_calls,
        flops=4 * LINEAR,
        training=True,
    )


@shown
def channels_last() -> Exhibit:
    """A convolution over pictures whose channels lie innermost; so do the answer's."""
    return Exhibit(
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 1)).to(memory_format=torch.channels_last),  # type: ignore[call-overload]  # torch's stubs miss it
        calls=(call(lambda: torch.ones(2, 3, 6, 6).to(memory_format=torch.channels_last)),),
        flops=2 * 2 * 36 * (4 * 3 * 9 + 2 * 4),
    )


@shown
def expanded_and_overlapping() -> Exhibit:
    """Arguments with a stride of 0, and windows that share memory."""

    def make() -> tuple[Tensor, Tensor]:
        return torch.linspace(0, 1, WIDTH).expand(ROWS, WIDTH), torch.arange(10.0).as_strided((ROWS, WIDTH), (1, 1))

    return Exhibit(
        lambda: Through(lambda m, a, b: m.layer(a) + m.layer(b), layer=linear()), calls=(call(make),), flops=2 * LINEAR
    )


class Tagged(torch.Tensor):
    """A tensor subclass that hands itself on through every operation."""


@shown
def tensor_subclass() -> Exhibit:
    """Arguments and weights of a subclass; the answer is of it, too."""

    def build() -> nn.Module:
        model: Any = nn.Sequential(linear(), linear())
        model[1].weight = nn.Parameter(model[1].weight.detach().as_subclass(Tagged))
        return model

    return Exhibit(build, calls=(call(lambda: rows().as_subclass(Tagged)),), flops=2 * LINEAR)
