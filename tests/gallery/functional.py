"""Kinds: torch.func, gradients inside a forward, checkpoints, operators of the user's own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jacrev, jvp, stack_module_state, vmap
from torch.utils.checkpoint import checkpoint

from gallery.exhibit import LINEAR, ROWS, WIDTH, Exhibit, Through, linear, one_call, rows, shown, two_calls

TRANSFORMED = "what a transformation executes is its own affair"


def _two() -> nn.Module:
    return nn.Sequential(linear(), nn.Tanh(), linear())


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach() * 2 for name, value in model.named_parameters()}


@shown
def functional_call_with_other_weights() -> Exhibit:
    """torch.func.functional_call swaps the weights for one call."""

    def drive(model: Any) -> Any:
        return functional_call(model, _weights(model), (rows(),)), model(rows())

    return Exhibit(_two, drive=drive, flops=4 * LINEAR)


@shown
def vmapped() -> Exhibit:
    """Vmap over rows, and over the model itself with random numbers drawn inside."""

    def drive(model: Any) -> Any:
        params, buffers = stack_module_state([model, model])

        def one(weights: Any, held: Any, x: Tensor) -> Any:
            return functional_call(model, (weights, held), (x,))

        noisy = vmap(lambda x: model(x + torch.rand(WIDTH)), randomness="different")
        return vmap(model)(rows()), vmap(one, (0, 0, None))(params, buffers, rows()), noisy(rows())

    return Exhibit(_two, drive=drive, no_count=TRANSFORMED)


@shown
def gradients_by_function() -> Exhibit:
    """Grad of a loss in the weights, and per sample by vmap over it."""

    def drive(model: Any) -> Any:
        def loss(weights: dict[str, Tensor], x: Tensor) -> Tensor:
            return functional_call(model, weights, (x,)).square().sum()

        weights = _weights(model)
        return grad(loss)(weights, rows()), vmap(grad(loss), (None, 0))(weights, rows())

    return Exhibit(_two, drive=drive, no_count=TRANSFORMED, grad=True)


@shown
def jacobians() -> Exhibit:
    """jvp, jacrev and a Hessian of the model in its input."""

    def drive(model: Any) -> Any:
        x = rows()[0]
        hessian = torch.func.hessian(lambda v: model(v).sum())(x)
        return jvp(model, (x,), (torch.ones(WIDTH),)), jacrev(model)(x), hessian

    return Exhibit(_two, drive=drive, no_count=TRANSFORMED, grad=True)


@shown
def forward_mode() -> Exhibit:
    """Dual tensors go through the model."""

    def drive(model: Any) -> Any:
        with forward_ad.dual_level():
            answer = model(forward_ad.make_dual(rows(), torch.ones(ROWS, WIDTH)))
            return tuple(forward_ad.unpack_dual(answer))

    return Exhibit(_two, drive=drive, no_count=TRANSFORMED, grad=True)


@shown
def transformed_inside_its_forward() -> Exhibit:
    """Vmap and grad inside a forward, over a child."""

    def forward(m: Any, x: Tensor) -> Any:
        return vmap(m.layer)(x), grad(lambda v: m.layer(v).sum())(x)

    return Exhibit(lambda: Through(forward, layer=_two()), calls=two_calls, no_count=TRANSFORMED, grad=True)


@shown
def gradient_inside_its_forward() -> Exhibit:
    """Forces are the gradient of an energy: a backward pass inside the call, of which gradients are taken again.

    Two layers forward; backward to the input through both: one product each.
    """

    def forward(m: Any, x: Tensor) -> Any:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            energy = m.layer(x).square().sum()
            return energy, torch.autograd.grad(energy, x)[0]

    def build() -> nn.Module:
        return Through(forward, layer=_two()).requires_grad_(False)

    return Exhibit(build, calls=two_calls, flops=2 * 4 * LINEAR)


def _checkpointed(reentrant: bool) -> Exhibit:
    def forward(m: Any, x: Tensor) -> Any:
        return m.head(checkpoint(m.block, x, use_reentrant=reentrant))

    def drive(model: Any) -> Any:
        x = rows().requires_grad_()
        y = model(x)
        y.sum().backward()
        return x, y

    return Exhibit(
        lambda: Through(forward, block=nn.Sequential(linear(), nn.Dropout(0.5)), head=linear()),
        drive=drive,
        flops=2 * LINEAR,
        training=True,
        grad=True,
    )


@shown
def checkpointed() -> Exhibit:
    """A block whose forward is run again in the backward pass, outside the call, with the same dropout."""
    return _checkpointed(reentrant=False)


@shown
def checkpointed_by_reentry() -> Exhibit:
    """The older kind, which runs the backward pass inside another."""
    return _checkpointed(reentrant=True)


class _Scaled(torch.autograd.Function):
    """A product with a gradient of its own, and what it was called with."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return x @ weight

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        x, weight = ctx.saved_tensors
        return gradients[0] @ weight.T * 2, x.T @ gradients[0]


@shown
def function_of_its_own() -> Exhibit:
    """A torch.autograd.Function in the forward."""

    def drive(model: Any) -> Any:
        x = rows().requires_grad_()
        y = model(x)
        y.sum().backward()
        return x, y

    return Exhibit(
        lambda: Through(lambda m, x: _Scaled.apply(m.layer(x), m.layer.weight), layer=linear()),
        drive=drive,
        flops=2 * LINEAR,
        grad=True,
    )


@torch.library.custom_op("gallery::doubled", mutates_args=())
def _doubled(x: Tensor) -> Tensor:
    return x * 2


@shown
def operator_of_its_own() -> Exhibit:
    """An operator registered with torch.library, of which no formula is known."""
    return Exhibit(
        lambda: Through(lambda m, x: m.layer(_doubled(x)), layer=linear()), calls=one_call, flops=LINEAR, partly=True
    )


@shown
def higher_order_operator() -> Exhibit:
    """torch.cond picks a branch."""

    def forward(m: Any, x: Tensor) -> Any:
        return torch.cond(x.sum() > 100, lambda v: m.layer(v) + 1, lambda v: m.layer(v) - 1, (x,))

    def build() -> nn.Module:
        torch._dynamo.reset()
        return Through(forward, layer=linear())

    return Exhibit(build, calls=one_call, no_count="torch.cond compiles its branches")
