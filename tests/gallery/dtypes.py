"""Kinds: other dtypes, empty batches, no dimensions, very many calls."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gallery.exhibit import LINEAR, ROWS, WIDTH, Exhibit, Through, call, linear, rows, shown


@shown
def double() -> Exhibit:
    """float64 throughout."""
    return Exhibit(
        lambda: nn.Sequential(linear(), linear()).double(), calls=(call(lambda: rows().double()),), flops=2 * LINEAR
    )


@shown
def complex_numbers() -> Exhibit:
    """complex64, with a conjugate view as argument: a product counts as its shape says."""
    return Exhibit(
        lambda: nn.Sequential(linear(), linear()).to(torch.complex64),
        calls=(call(lambda: torch.complex(rows(), rows()).conj()),),
        flops=2 * LINEAR,
        partly=True,
    )


@shown
def brain_floats() -> Exhibit:
    """bfloat16 throughout."""
    return Exhibit(
        lambda: nn.Sequential(linear(), linear()).bfloat16(),
        calls=(call(lambda: rows().bfloat16()),),
        flops=2 * LINEAR,
    )


@shown
def integers() -> Exhibit:
    """Token ids and a mask, an EmbeddingBag with offsets, and no matrix at all but the head."""

    def forward(m: Any, ids: Tensor, offsets: Tensor, mask: Tensor) -> Any:
        return m.head(m.bag(ids, offsets).masked_fill(mask, 0.0))

    def make() -> tuple[Tensor, ...]:
        return torch.arange(6), torch.tensor([0, 2, 3]), torch.zeros(ROWS, WIDTH, dtype=torch.bool)

    return Exhibit(
        lambda: Through(forward, bag=nn.EmbeddingBag(16, WIDTH), head=linear()), calls=(call(make),), flops=LINEAR
    )


@shown
def empty_batch() -> Exhibit:
    """No rows, then no columns in the answer."""
    return Exhibit(
        lambda: nn.Sequential(linear(), nn.Linear(WIDTH, 0)),
        calls=(call(lambda: torch.ones(0, WIDTH)), call(rows)),
        flops=LINEAR,
    )


@shown
def no_dimensions() -> Exhibit:
    """Numbers as tensors go in and come out; a vector goes through the layer."""

    def forward(m: Any, scale: Tensor) -> Any:
        return m.layer(scale * torch.ones(WIDTH)).sum(), scale

    return Exhibit(
        lambda: Through(forward, layer=linear()),
        calls=(call(lambda: torch.tensor(2.0)),),
        flops=2 * WIDTH * WIDTH,
    )


@shown
def very_many_calls() -> Exhibit:
    """300 calls of one shape, and one of another."""

    def drive(model: Any) -> Any:
        total = torch.zeros(())
        for _ in range(300):
            total = total + model(rows()).sum()
        return total, model(torch.ones(1, WIDTH))

    return Exhibit(
        lambda: nn.Sequential(linear(), linear()), drive=drive, flops=300 * 2 * LINEAR + 2 * 2 * WIDTH * WIDTH
    )


@shown
def every_call_another_shape() -> Exhibit:
    """Twenty calls, each a row longer."""

    def drive(model: Any) -> Any:
        return [model(torch.ones(n, WIDTH)) for n in range(20)]

    return Exhibit(lambda: nn.Sequential(linear(), linear()), drive=drive, flops=sum(range(20)) * 2 * 2 * WIDTH * WIDTH)


@shown
def work_without_a_formula() -> Exhibit:
    """Matrix work in operators of linear algebra, most of it outside any layer: a count may miss some and say so."""

    def forward(m: Any, x: Tensor) -> Any:
        square = m.layer(x) @ m.layer.weight + torch.eye(WIDTH)[:ROWS]
        gram = square @ square.T + torch.eye(ROWS)
        return torch.linalg.solve(gram, square), torch.linalg.inv(gram), torch.cdist(x, x)

    return Exhibit(
        lambda: Through(forward, layer=linear()),
        calls=(call(rows),),
        no_count="tests/flops holds the formulas of linear algebra",
    )


@shown
def data_decides_the_work() -> Exhibit:
    """Shapes depend on the data: rows above a bound go through the layer."""

    def forward(m: Any, x: Tensor) -> Any:
        kept = x[x.sum(1) > 0]
        return m.layer(kept), torch.nonzero(x > 0), torch.unique(x > 0)

    return Exhibit(lambda: Through(forward, layer=linear()), calls=(call(rows),) * 2, no_count="the data decide")
