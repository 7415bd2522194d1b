"""Kinds: models that draw numbers, from generators of torch, numpy, Python and their own."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gallery.exhibit import LINEAR, ROWS, WIDTH, Exhibit, Through, linear, rows, shown, two_calls


@shown
def dropout_in_training() -> Exhibit:
    """What falls out is drawn from torch's generator."""
    return Exhibit(
        lambda: nn.Sequential(linear(), nn.Dropout(0.5), linear()), calls=two_calls, flops=4 * LINEAR, training=True
    )


@shown
def noise_in_evaluation() -> Exhibit:
    """torch.rand and torch.randperm in every call."""

    def forward(m: Any, x: Tensor) -> Any:
        return m.layer(x + torch.rand(ROWS, WIDTH))[torch.randperm(ROWS)]

    return Exhibit(lambda: Through(forward, layer=linear()), calls=two_calls, flops=2 * LINEAR)


@shown
def noise_of_numpy_and_python() -> Exhibit:
    """Numbers of generators that torch knows nothing of decide how much work is done."""

    def forward(m: Any, x: Tensor) -> Any:
        for _ in range(random.randint(1, 3) + int(np.random.randint(1, 3))):
            x = m.layer(x)
        return x

    return Exhibit(
        lambda: Through(forward, layer=linear()),
        calls=two_calls,
        no_count="how often the layer runs is drawn",
        again=False,
    )


@shown
def generator_of_its_own() -> Exhibit:
    """A torch.Generator that the model holds moves with every call."""

    def forward(m: Any, x: Tensor) -> Any:
        return m.layer(x + torch.rand(ROWS, WIDTH, generator=m.generator))

    return Exhibit(
        lambda: Through(forward, layer=linear(), generator=torch.Generator().manual_seed(1)),
        calls=two_calls,
        flops=2 * LINEAR,
        again=False,
    )


@shown
def seeds_in_its_forward() -> Exhibit:
    """Every call seeds torch's generator anew."""

    def forward(m: Any, x: Tensor) -> Any:
        torch.manual_seed(7)
        return m.layer(x + torch.randn(ROWS, WIDTH))

    return Exhibit(lambda: Through(forward, layer=linear()), calls=two_calls, flops=2 * LINEAR)


@shown
def sampling_loop() -> Exhibit:
    """A loop that samples tokens: each call's input was drawn by the last."""

    def drive(model: Any) -> Any:
        tokens = torch.tensor([[1], [2]])
        for _ in range(4):
            odds = torch.softmax(model(tokens[:, -1:])[:, -1], -1)
            tokens = torch.cat([tokens, torch.multinomial(odds, 1)], 1)
        return tokens

    return Exhibit(
        lambda: nn.Sequential(nn.Embedding(16, WIDTH), nn.Linear(WIDTH, 16)), drive=drive, flops=4 * 2 * 2 * WIDTH * 16
    )


@shown
def draws_between_calls() -> Exhibit:
    """The user draws between the calls and after them."""

    def drive(model: Any) -> Any:
        first = model(torch.rand(ROWS, WIDTH))
        second = model(rows() + float(np.random.rand()) + random.random())
        return first, second, torch.rand(2), np.random.rand(2), random.random()

    return Exhibit(lambda: nn.Sequential(linear(), linear()), drive=drive, flops=4 * LINEAR)


@shown
def random_activation_in_training() -> Exhibit:
    """RReLU and fractional pooling draw inside torch's kernels."""
    return Exhibit(
        lambda: nn.Sequential(linear(), nn.RReLU(), nn.Unflatten(1, (2, 2, 2)), nn.FractionalMaxPool2d(2, 1)),
        calls=two_calls,
        flops=2 * LINEAR,
        training=True,
    )
