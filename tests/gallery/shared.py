"""Kinds: shared, recursive, tied, aliases, holders of shared parts, models that call themselves."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from gallery.exhibit import LINEAR, ROWS, WIDTH, Exhibit, Through, call, linear, one_call, rows, shown, two_calls


@shown
def shared_by_a_holder() -> Exhibit:
    """A layer that stands at the root and, twice, in a Sequential that runs it."""

    def build() -> nn.Module:
        lin = nn.Linear(10, 10)
        return Through(lambda m, x: m.net(x), lin=lin, net=nn.Sequential(lin, nn.ReLU(), lin))

    return Exhibit(build, calls=(call(lambda: torch.ones(2, 10)),), flops=2 * 2 * 2 * 10 * 10)


@shown
def recursive() -> Exhibit:
    """The same block five times in one call."""

    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        for _ in range(5):
            x = torch.relu(m.block(x))
        return x

    return Exhibit(lambda: Through(forward, block=nn.Sequential(linear())), calls=two_calls, flops=10 * LINEAR)


@shown
def tied_tables() -> Exhibit:
    """The token table is the head's weight."""

    def build() -> nn.Module:
        model = Through(
            lambda m, ids: m.lm_head(m.blocks(m.embed_tokens(ids))),
            embed_tokens=nn.Embedding(16, WIDTH),
            blocks=nn.Sequential(linear(), linear()),
            lm_head=nn.Linear(WIDTH, 16, bias=False),
        )
        model.lm_head.weight = model.embed_tokens.weight
        return model

    positions = 2 * 5
    return Exhibit(
        build,
        calls=(call(lambda: torch.arange(positions).reshape(2, 5)),),
        flops=positions * 2 * (2 * WIDTH * WIDTH + WIDTH * 16),
    )


@shown
def table_used_as_a_head() -> Exhibit:
    """The head is a functional product with the token table: no module runs there."""
    return Exhibit(
        lambda: Through(lambda m, ids: functional.linear(m.embed(ids), m.embed.weight), embed=nn.Embedding(16, WIDTH)),
        calls=(call(lambda: torch.arange(5)),),
        flops=2 * 5 * WIDTH * 16,
    )


@shown
def one_module_under_two_names() -> Exhibit:
    """Two names for one layer; both run."""

    def build() -> nn.Module:
        lin = linear()
        return Through(lambda m, x: m.second(m.first(x)), first=lin, second=lin)

    return Exhibit(build, calls=one_call, flops=2 * LINEAR)


@shown
def two_holders_of_the_same_parts() -> Exhibit:
    """Two ModuleLists hold the same two layers; one call walks both."""

    def build() -> nn.Module:
        parts = [linear(), linear()]
        return Through(
            lambda m, x: m.b[1](m.b[0](m.a[1](m.a[0](x)))), a=nn.ModuleList(parts), b=nn.ModuleList(reversed(parts))
        )

    return Exhibit(build, calls=one_call, flops=4 * LINEAR)


@shown
def one_weight_in_two_layers() -> Exhibit:
    """Two layers, one Parameter."""

    def build() -> nn.Module:
        model = nn.Sequential(linear(), linear())
        model[1].weight = model[0].weight
        return model

    return Exhibit(build, calls=one_call, flops=2 * LINEAR)


@shown
def calls_itself() -> Exhibit:
    """Its forward calls the model again, three deep."""

    def forward(m: Any, x: torch.Tensor, depth: int = 2) -> torch.Tensor:
        x = m.layer(x)
        return m(x, depth - 1) if depth else x

    return Exhibit(lambda: Through(forward, layer=linear()), calls=one_call, flops=3 * LINEAR)


@shown
def calls_its_own_forward() -> Exhibit:
    """Its forward calls `self.forward` directly, and a child's `forward` without its `__call__`."""

    def forward(m: Any, x: torch.Tensor, again: bool = True) -> torch.Tensor:
        x = m.layer.forward(x)
        return m.forward(x, again=False) if again else x

    return Exhibit(lambda: Through(forward, layer=linear()), calls=one_call, flops=2 * LINEAR)


@shown
def child_calls_its_parent() -> Exhibit:
    """A child reaches a layer of its parent through a reference that is no submodule."""

    def build() -> nn.Module:
        child = Through(lambda m, x: m.parents[0].far(m.near(x)), near=linear())
        model = Through(lambda m, x: m.child(x), child=child, far=linear())
        child.parents = [model]  # type: ignore[assignment]  # a list: a module here would become a submodule
        return model

    return Exhibit(build, calls=one_call, flops=2 * LINEAR)


@shown
def called_by_its_forward() -> Exhibit:
    """The user calls `model.forward(x)`, and a child on its own, beside `model(x)`."""

    def drive(model: Any) -> Any:
        x = rows()
        return model.forward(x), model(x), model[0](x), x

    return Exhibit(
        lambda: nn.Sequential(linear(), linear()),
        drive=drive,
        no_count="a child that is called by itself is no call of the model",
    )


@shown
def entered_through_generate() -> Exhibit:
    """A `generate` of its own that calls the model in a loop, and a plain call after it."""

    class Generating(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = linear()

        def forward(self, x: torch.Tensor) -> Any:
            return self.layer(x)

        def generate(self, x: torch.Tensor, steps: int = 3) -> torch.Tensor:
            for _ in range(steps):
                x = torch.cat([x, self(x[-ROWS:])])
            return x

    def drive(model: Any) -> Any:
        x = rows()
        return model.generate(x, steps=3), model.generate(x), model(x)

    return Exhibit(Generating, drive=drive, flops=7 * LINEAR)
