"""Kinds: training loops; the backward pass runs after the model's call, in the block."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn import functional

from gallery.exhibit import LINEAR, ROWS, WIDTH, Exhibit, Through, linear, rows, shown


def _model() -> nn.Module:
    return nn.Sequential(linear(), nn.BatchNorm1d(WIDTH), nn.Dropout(0.2), linear())


@shown
def training_steps() -> Exhibit:
    """Three steps of an optimizer with momentum, clipped gradients and a schedule."""

    def drive(model: Any) -> Any:
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
        losses = []
        for _ in range(3):
            optimizer.zero_grad()
            loss = functional.mse_loss(model(rows()), torch.ones(ROWS, WIDTH))
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            schedule.step()
            losses.append(loss)
        return losses, optimizer.state_dict(), schedule.state_dict()

    return Exhibit(_model, drive=drive, flops=3 * 2 * LINEAR, training=True, grad=True)


@shown
def accumulated_gradients() -> Exhibit:
    """Gradients of two calls add up; nobody clears them."""

    def drive(model: Any) -> Any:
        x = rows().requires_grad_()
        for scale in (1, 2):
            (model(x * scale).sum() / 2).backward()
        return x

    return Exhibit(_model, drive=drive, flops=4 * LINEAR, training=True, grad=True)


@shown
def two_losses_from_one_call() -> Exhibit:
    """The graph is kept and walked twice, and a gradient of a gradient is taken."""

    def drive(model: Any) -> Any:
        x = rows().requires_grad_()
        y = model(x)
        y.sum().backward(retain_graph=True)
        (first,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        first.norm().backward()
        return x, y, first

    return Exhibit(
        lambda: nn.Sequential(linear(), nn.Tanh(), linear()), drive=drive, flops=2 * LINEAR, training=True, grad=True
    )


@shown
def trained_in_mixed_precision() -> Exhibit:
    """Autocast and a gradient scaler inside the loop."""

    def drive(model: Any) -> Any:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scaler = GradScaler("cpu")
        for _ in range(2):
            with torch.autocast("cpu", torch.bfloat16):
                y = model(rows())
            scaler.scale(y.float().sum()).backward()
            scaler.step(optimizer)
            scaler.update()
        return y, scaler.state_dict()

    return Exhibit(_model, drive=drive, flops=4 * LINEAR, training=True, grad=True)


@shown
def trained_inside_its_call() -> Exhibit:
    """The forward takes a step of its own weights, as adaptation at test time does: two forward, one back."""

    def forward(m: Any, x: Tensor) -> Any:
        with torch.enable_grad():
            m.layer(x).square().sum().backward()
        with torch.no_grad():
            for parameter in m.layer.parameters():
                parameter.sub_(0.1 * parameter.grad)
                parameter.grad = None
        return m.layer(x)

    return Exhibit(
        lambda: Through(forward, layer=linear()),
        drive=lambda model: (model(rows()), model(rows())),
        flops=2 * (2 + 1) * LINEAR,
        again=False,
    )


@shown
def hooks_on_gradients() -> Exhibit:
    """Tensor hooks and a hook after accumulation change gradients, and hooks on saved tensors pack them."""

    def drive(model: Any) -> Any:
        seen: list[Any] = []

        def pack(value: Tensor) -> Tensor:
            seen.append("packed")
            return value

        for parameter in model.parameters():
            parameter.register_hook(lambda g: g * 2)
            parameter.register_post_accumulate_grad_hook(lambda p: seen.append(tuple(p.shape)))
        x = rows().requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t + 0):
            y = model(x)
        y.register_hook(lambda g: g + 1)
        y.sum().backward()
        return x, y, seen

    return Exhibit(_model, drive=drive, flops=2 * LINEAR, training=True, grad=True)


@shown
def evaluated_between_steps() -> Exhibit:
    """Training and evaluation in turns, under no_grad and inference mode."""

    def drive(model: Any) -> Any:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        model.train()
        model(rows()).sum().backward()
        optimizer.step()
        model.eval()
        with torch.no_grad():
            first = model(rows())
        with torch.inference_mode():
            second = model(rows())
        model.train()
        return first, second.is_inference(), second.clone(), model(rows()).requires_grad

    return Exhibit(_model, drive=drive, flops=8 * LINEAR, training=True, grad=True)
