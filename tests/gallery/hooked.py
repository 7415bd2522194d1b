"""Kinds: hooks of the user's own, and a `forward` that the user sets on the instance."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from gallery.exhibit import LINEAR, Exhibit, Through, linear, one_call, rows, shown, two_calls


def _noting(seen: list[Any], name: str) -> Any:
    """Return a hook that writes down how it was called: with what, how often, in which order."""

    def hook(*given: Any, **more: Any) -> None:
        parts = [tuple(x.shape) for value in given[1:] if isinstance(value, tuple) for x in value if x is not None]
        seen.append((name, type(given[0]).__name__, len(given), sorted(more), parts))

    return hook


@shown
def hooks_of_every_kind() -> Exhibit:
    """Forward, pre and backward hooks on root and children, and the order in which they were called."""

    def build() -> nn.Module:
        seen: list[Any] = []
        model = Through(lambda m, x: m.layers(x), layers=nn.Sequential(linear(), linear()), seen=seen)
        for name, module in model.named_modules():
            module.register_forward_pre_hook(_noting(seen, f"{name} before"))
            module.register_forward_hook(_noting(seen, f"{name} after"))
            module.register_forward_hook(_noting(seen, f"{name} always"), always_call=True)
            module.register_forward_hook(_noting(seen, f"{name} first"), prepend=True)
            module.register_full_backward_hook(_noting(seen, f"{name} back"))
            module.register_full_backward_pre_hook(_noting(seen, f"{name} before back"))
        return model

    def drive(model: Any) -> Any:
        x = rows().requires_grad_()
        y = model(x)
        y.sum().backward()
        return x, y

    return Exhibit(build, drive=drive, flops=2 * LINEAR, grad=True)


@shown
def hooks_that_change_things() -> Exhibit:
    """A pre-hook changes the input, by position and by name, and a hook the output, also in place."""

    def build() -> nn.Module:
        model = Through(lambda m, x, scale=1.0: m.b(m.a(x) * scale), a=linear(), b=linear())
        model.register_forward_pre_hook(lambda m, args, kwargs: (args, {"scale": 2.0}), with_kwargs=True)
        model.a.register_forward_pre_hook(lambda m, args: args[0] + 1)
        model.a.register_forward_hook(lambda m, args, out: out.mul_(0.5))
        model.b.register_forward_hook(lambda m, args, kwargs, out: {"y": out, "n": len(args)}, with_kwargs=True)
        return model

    return Exhibit(build, calls=two_calls, flops=4 * LINEAR)


@shown
def hook_that_runs_a_layer() -> Exhibit:
    """A hook does matrix work of its own, with a layer that is no part of the model."""

    def build() -> nn.Module:
        model, other = nn.Sequential(linear(), linear()), linear()
        model[0].register_forward_hook(lambda m, args, out: other(out))
        return model

    return Exhibit(build, calls=two_calls, flops=6 * LINEAR)


@shown
def hook_that_raises() -> Exhibit:
    """A hook of a child raises once, and the caller goes on."""

    def build() -> nn.Module:
        model = nn.Sequential(linear(), linear())
        turns = iter([False, True, False])

        def hook(module: Any, args: Any, out: Any) -> None:
            if next(turns):
                raise ValueError("the hook's own")

        model[0].register_forward_hook(hook)
        return model

    def drive(model: Any) -> Any:
        first = model(rows())
        try:
            model(rows())
        except ValueError as error:
            return first, error, model(rows())
        return None

    return Exhibit(build, drive=drive, flops=4 * LINEAR, again=False)


@shown
def hooks_hung_inside_the_block() -> Exhibit:
    """One hook is hung up and stays, one is hung up and taken off, one from before is taken off."""

    def build() -> nn.Module:
        model: Any = Through(lambda m, x: m.layer(x), layer=linear(), seen=[])
        model.handle = model.layer.register_forward_hook(_noting(model.seen, "before the block"))
        return model

    def drive(model: Any) -> Any:
        first = model(rows())
        model.handle.remove()
        stays = model.layer.register_forward_pre_hook(_noting(model.seen, "stays"))
        goes = model.register_forward_hook(lambda m, args, out: out + 1, prepend=True)
        second = model(rows())
        goes.remove()
        return first, second, model(rows()), stays.id > goes.id

    return Exhibit(build, drive=drive, flops=3 * LINEAR, again=False)


@shown
def forward_set_inside_the_block() -> Exhibit:
    """The user gives root and child another `forward` between two calls and leaves it there."""

    def drive(model: Any) -> Any:
        first = model(rows())
        model[0].forward = lambda x: x * 3
        model.forward = lambda x: model[1](model[0](x)) - 1
        return first, model(rows())

    return Exhibit(lambda: nn.Sequential(linear(), linear()), drive=drive, no_count="the new forward may go unseen")


@shown
def forward_set_and_taken_back() -> Exhibit:
    """Patched inside the block, and unpatched by `del`, and once by putting the old one back."""

    def drive(model: Any) -> Any:
        first = model(rows())
        model.forward = lambda x: x * 3
        model[1].forward = lambda x: x - 1
        second = model(rows())
        del model.forward
        del model[1].forward
        third = model(rows())
        old = model[0].forward
        model[0].forward = lambda x: old(x) + 1
        fourth = model(rows())
        model[0].forward = old
        return first, second, third, fourth, model(rows())

    return Exhibit(lambda: nn.Sequential(linear(), linear()), drive=drive, no_count="calls may go unseen")


@shown
def forward_of_the_class_replaced() -> Exhibit:
    """Monkey patching of a class inside the block, taken back in it."""

    def drive(model: Any) -> Any:
        first = model(rows())
        kind = type(model[0])
        old = kind.forward
        kind.forward = lambda self, x: old(self, x) * 2
        try:
            second = model(rows())
        finally:
            kind.forward = old
        return first, second, model(rows())

    class Layer(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)

    return Exhibit(lambda: nn.Sequential(Layer(8, 8), linear()), drive=drive, no_count="a class may be replaced unseen")


@shown
def child_replaced_inside_the_block() -> Exhibit:
    """The user puts another layer in a layer's place, and the old one elsewhere."""

    def drive(model: Any) -> Any:
        first = model(rows())
        old = model[0]
        torch.manual_seed(3)
        model[0] = linear()
        second = model(rows())
        model.append(old)
        return first, second, model(rows())

    return Exhibit(lambda: nn.Sequential(linear(), linear()), drive=drive, flops=7 * LINEAR)


@shown
def child_leaves_the_model() -> Exhibit:
    """A layer is taken out of the model inside the block and is handed to the caller."""

    def drive(model: Any) -> Any:
        first = model(rows())
        gone = model[1]
        del model[1]
        return first, model(rows()), gone

    return Exhibit(lambda: nn.Sequential(linear(), linear()), drive=drive, flops=3 * LINEAR)


@contextmanager
def _global_hooks() -> Iterator[list[str]]:
    """Hang hooks on all modules, as torch has them for debugging."""
    seen: list[str] = []
    before = torch_module.register_module_forward_pre_hook(lambda m, args: seen.append(type(m).__name__))
    after = torch_module.register_module_forward_hook(lambda m, args, out: None)
    try:
        yield seen
    finally:
        before.remove()
        after.remove()


@shown
def global_hooks() -> Exhibit:
    """Hooks on every module there is, of the user's, around the block; what they saw."""
    return Exhibit(
        lambda: nn.Sequential(linear(), nn.ReLU(), linear()),
        calls=two_calls,
        around=_global_hooks,
        flops=4 * LINEAR,
        again=False,
    )


@shown
def looks_at_its_own_signature() -> Exhibit:
    """It asks `inspect` for the names of its forward's parameters, as `generate` of transformers does."""

    def drive(model: Any) -> Any:
        import inspect

        names = list(inspect.signature(model.forward).parameters)
        code = inspect.unwrap(model.forward).__func__.__code__.co_name
        return names, code, model.forward.__name__, model.forward.__doc__, model(rows())

    return Exhibit(lambda: nn.Sequential(linear(), linear()), drive=drive, flops=2 * LINEAR)


@shown
def state_dict_hooks() -> Exhibit:
    """Hooks on saving and loading, and a state of its own beside the weights."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.loads = linear(), 0
            self.register_state_dict_post_hook(lambda m, state, *_: state.update(extra=torch.ones(1)))
            self.register_load_state_dict_pre_hook(lambda m, state, *_: state.pop("extra"))

        def get_extra_state(self) -> Any:
            return {"loads": self.loads}

        def set_extra_state(self, state: Any) -> None:
            self.loads = state["loads"] + 1

        def forward(self, x: Tensor) -> Any:
            return self.layer(x)

    def drive(model: Any) -> Any:
        first = model(rows())
        state = model.state_dict()
        model.load_state_dict(state)
        return first, state, model(rows())

    return Exhibit(Model, drive=drive, flops=2 * LINEAR)


@shown
def hook_without_a_call() -> Exhibit:
    """A model whose only hook is on a part that never runs as a module."""

    def build() -> nn.Module:
        model = Through(lambda m, x: x @ m.layer.weight, layer=linear())
        model.layer.register_forward_hook(_noting([], "never"))
        return model

    return Exhibit(build, calls=one_call, flops=LINEAR)
