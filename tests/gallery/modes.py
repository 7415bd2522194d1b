"""Kinds: modes of torch that the user enters around the block, inside it, or inside a forward."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from gallery.exhibit import LINEAR, Exhibit, Through, call, linear, one_call, rows, shown, two_calls


class CountsOperators(TorchDispatchMode):
    """Counts operators by name, as users do to find out what runs."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen[str(func)] += 1
        return func(*args, **(kwargs or {}))


class CountsFunctions(TorchFunctionMode):
    """Counts torch's functions by name."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen[getattr(func, "__name__", "?")] += 1
        return func(*args, **(kwargs or {}))


def _model() -> nn.Module:
    return nn.Sequential(linear(), nn.GELU(), linear())


@contextmanager
def _counted(kind: Any) -> Iterator[Counter[str]]:
    with kind() as mode:
        yield mode.seen


@shown
def dispatch_mode_around() -> Exhibit:
    """A counting mode around the block sees the model's operators, and no more."""
    return Exhibit(_model, calls=two_calls, around=lambda: _counted(CountsOperators), flops=4 * LINEAR, again=False)


@shown
def function_mode_around() -> Exhibit:
    """The same of functions."""
    return Exhibit(_model, calls=two_calls, around=lambda: _counted(CountsFunctions), flops=4 * LINEAR, again=False)


@shown
def dispatch_mode_in_inference_mode() -> Exhibit:
    """In inference mode the mode sees composite operators whole."""
    return Exhibit(
        _model,
        calls=two_calls,
        around=lambda: _counted(CountsOperators),
        flops=4 * LINEAR,
        inference_mode=True,
        again=False,
    )


@shown
def modes_inside_the_block() -> Exhibit:
    """Counting modes around single calls."""

    def drive(model: Any) -> Any:
        with CountsOperators() as operators:
            first = model(rows())
        with CountsFunctions() as functions, CountsOperators() as both:
            second = model(rows())
        return first, second, operators.seen, functions.seen, both.seen

    return Exhibit(_model, drive=drive, flops=4 * LINEAR, again=False)


@shown
def modes_in_a_forward() -> Exhibit:
    """The model itself enters modes."""

    def forward(m: Any, x: Tensor) -> Any:
        with CountsOperators() as operators, CountsFunctions() as functions:
            x = m.layer(x)
        return m.layer(x), operators.seen, functions.seen

    return Exhibit(lambda: Through(forward, layer=linear()), calls=two_calls, flops=4 * LINEAR)


@shown
def mode_left_open_by_a_call() -> Exhibit:
    """A forward enters a mode that the next call leaves."""

    def forward(m: Any, x: Tensor) -> Any:
        x = m.layer(x)
        if m.mode is None:
            m.mode = CountsFunctions()
            m.mode.__enter__()
        else:
            m.mode.__exit__(None, None, None)
        return x, m.mode.seen

    return Exhibit(lambda: Through(forward, layer=linear(), mode=None), calls=two_calls, flops=2 * LINEAR, again=False)


@contextmanager
def _flops_counted() -> Iterator[dict[str, int]]:
    told: dict[str, int] = {}
    with FlopCounterMode(display=False) as counter:
        yield told
        told["inside"] = counter.get_total_flops()


@shown
def flop_counter_around() -> Exhibit:
    """Torch's FlopCounterMode around the block counts the model once."""
    return Exhibit(_model, calls=two_calls, around=_flops_counted, flops=4 * LINEAR, again=False)


@shown
def flop_counter_inside() -> Exhibit:
    """Torch's FlopCounterMode around a call and by module."""

    def drive(model: Any) -> Any:
        with FlopCounterMode(display=False) as counter:
            model(rows())
        return counter.get_total_flops(), {k: len(v) for k, v in counter.get_flop_counts().items()}, model(rows())

    return Exhibit(_model, drive=drive, flops=4 * LINEAR)


def _products(profiler: Any) -> bool:
    """Tell whether a recording holds the products: how many events one leaves depends on the modes that are entered."""
    return any(event.key == "aten::addmm" for event in profiler.key_averages())


@shown
def torch_profiler_inside() -> Exhibit:
    """torch.profiler around a call, with shapes."""

    def drive(model: Any) -> Any:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as profiler:
            answer = model(rows())
        return answer, _products(profiler), model(rows())

    return Exhibit(_model, drive=drive, flops=4 * LINEAR, prints=True)


@contextmanager
def _recorded() -> Iterator[dict[str, bool]]:
    told: dict[str, bool] = {}
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        yield told
    told["products"] = _products(profiler)


@shown
def torch_profiler_around() -> Exhibit:
    """torch.profiler around the block records the products."""
    return Exhibit(_model, calls=two_calls, around=_recorded, flops=4 * LINEAR, again=False, prints=True)


@shown
def fake_tensors_inside() -> Exhibit:
    """A dry run of a copy of the weights under FakeTensorMode, beside a real call."""

    def drive(model: Any) -> Any:
        from torch._subclasses import FakeTensorMode

        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            fake = model(mode.from_tensor(rows()))
        return fake, model(rows())

    return Exhibit(_model, drive=drive, no_count="a dry run computes nothing")


@shown
def meta_inside() -> Exhibit:
    """A dry run with functional weights on the meta device, and one of the model itself."""

    def drive(model: Any) -> Any:
        weights = {name: value.to("meta") for name, value in model.named_parameters()}
        return torch.func.functional_call(model, weights, (rows().to("meta"),)), model(rows())

    return Exhibit(_model, drive=drive, no_count="a dry run computes nothing")


@shown
def autocast_inside() -> Exhibit:
    """Autocast around one call, its cache of cast weights with it, and inside a forward."""

    def forward(m: Any, x: Tensor) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return m.layer(x), torch.is_autocast_enabled("cpu")

    def drive(model: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            first = [model(rows()) for _ in range(2)]
        return first, model(rows())

    return Exhibit(lambda: Through(forward, layer=_model()), drive=drive, flops=6 * LINEAR)


@shown
def autocast_around() -> Exhibit:
    """Autocast around the block."""
    return Exhibit(_model, calls=two_calls, flops=4 * LINEAR, autocast=torch.bfloat16)


@shown
def inference_mode_around() -> Exhibit:
    """Inference mode around the block: answers cannot be recorded for backward."""
    return Exhibit(_model, calls=two_calls, flops=4 * LINEAR, inference_mode=True)


@shown
def inference_mode_in_a_forward() -> Exhibit:
    """`@torch.inference_mode()` on a forward, and a call with gradients beside it."""

    def drive(model: Any) -> Any:
        with torch.inference_mode():
            first = model(rows())
        return first.is_inference(), first.clone(), model(rows().requires_grad_())

    return Exhibit(
        lambda: Through(torch.inference_mode()(lambda m, x: m.layer(x)), layer=_model()),
        drive=drive,
        flops=4 * LINEAR,
        grad=True,
    )


@shown
def switches_of_torch() -> Exhibit:
    """Default dtype, device, gradient mode and number of threads are changed inside the block and put back."""

    def drive(model: Any) -> Any:
        torch.set_default_dtype(torch.float64)
        try:
            made = torch.ones(2)
            answer = model(rows().float())
        finally:
            torch.set_default_dtype(torch.float32)
        with torch.device("meta"):
            dry = torch.ones(2)
        with torch.enable_grad():
            tracked = model(rows())
        return made, answer, dry, tracked

    return Exhibit(_model, drive=drive, flops=4 * LINEAR)


@shown
def switch_left_changed() -> Exhibit:
    """A forward changes gradient mode for good: that is the user's, and stays after the block."""

    def forward(m: Any, x: Tensor) -> Any:
        torch.set_grad_enabled(True)
        return m.layer(x)

    return Exhibit(lambda: Through(forward, layer=linear()), calls=two_calls, flops=2 * LINEAR)


@shown
def device_as_a_context() -> Exhibit:
    """`with torch.device(...)`, which is a function mode, around the block."""

    @contextmanager
    def device() -> Iterator[str]:
        with torch.device("cpu"):
            yield str(torch.get_default_device())

    return Exhibit(_model, calls=one_call, around=device, flops=2 * LINEAR)


@shown
def warns() -> Exhibit:
    """A forward that warns, each time."""

    def forward(m: Any, x: Tensor) -> Any:
        import warnings

        warnings.warn("the model's own", stacklevel=1)
        return m.layer(x)

    return Exhibit(lambda: Through(forward, layer=linear()), calls=(call(rows),), flops=LINEAR)
