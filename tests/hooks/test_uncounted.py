"""Operators that may do matrix work and have no formula: named with where they ran, never taken for no work."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from layerprof.hooks.shapes import ShapesHook
from torch import nn

from layerprof.layers.find import find_layers
from layerprof.readings import ELSEWHERE, Uncounted, Work, WorkReading
from layerprof.records import Phase

HERE = Phase.PREFILL


def slow_copy(x: torch.Tensor) -> torch.Tensor:
    """Take 2 ms."""
    time.sleep(0.002)
    return x.clone()


@pytest.fixture
def kernels() -> Iterator[Any]:
    """Open a namespace of two kernels that nobody knows: one named like a product, one like nothing."""
    library: Any = torch.library.Library("lp_zeros", "DEF")  # type: ignore[no-untyped-call]  # untyped there
    for name in ("my_matmul", "plain"):
        library.define(f"{name}(Tensor x) -> Tensor")
        library.impl(name, slow_copy, "CPU")
    yield torch.ops.lp_zeros
    library._destroy()


class Block(nn.Module):
    """A layer that runs an operator on what its linear layer gave."""

    def __init__(self, run: Any) -> None:
        super().__init__()
        self.linear, self.run = nn.Linear(8, 8), run

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply, then run it."""
        return self.run(self.linear(x))  # type: ignore[no-any-return]  # any function of a tensor


class Model(nn.Module):
    """Blocks, and an operator outside of all of them."""

    def __init__(self, *inside: Any, outside: Any = torch.relu) -> None:
        super().__init__()
        self.blocks, self.run = nn.ModuleList(Block(run) for run in inside), outside

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the blocks, then the operator."""
        for block in self.blocks:
            x = block(x)
        return self.run(x)  # type: ignore[no-any-return]  # any function of a tensor


def read(model: nn.Module, x: torch.Tensor) -> WorkReading:
    """Count one call."""
    hook = ShapesHook(model, find_layers(model))
    with hook, torch.no_grad(), hook.batch(0):
        model(x)
    return hook.reading()  # type: ignore[no-any-return]  # mypy knows hooks/ by another name


def test_unknown_kernels_are_named_with_the_layer_or_module_they_ran_in(kernels: Any) -> None:
    """Two in one block, one in the next, one in the model's own forward; the rest is counted all the same."""
    twice = lambda x: kernels.my_matmul(kernels.my_matmul(x))  # noqa: E731  # shorter than two functions
    reading = read(Model(twice, kernels.plain, torch.relu, outside=kernels.plain), torch.ones(4, 8))
    assert {key: missed.calls for key, missed in reading.uncounted.items()} == {
        ("blocks.0", HERE, "lp_zeros::my_matmul"): 2,
        ("blocks.1", HERE, "lp_zeros::plain"): 1,
        ("Model", HERE, "lp_zeros::plain"): 1,
    }
    assert reading.total_flops == 3 * 2 * 4 * 8 * 8
    assert reading.uncounted_calls() == {"lp_zeros::my_matmul": 2, "lp_zeros::plain": 2}


def test_the_host_seconds_inside_the_calls_are_known(kernels: Any) -> None:
    """Each of the two calls sleeps for 2 ms; the kernels of layers are not in the figure."""
    twice = lambda x: kernels.my_matmul(kernels.my_matmul(x))  # noqa: E731  # shorter than two functions
    reading = read(Model(twice, torch.relu), torch.ones(4, 8))
    (missed,) = reading.uncounted.values()
    assert missed.seconds is not None
    assert 0.004 <= missed.seconds < 1


def test_an_operator_whose_formula_fails_is_named_and_the_call_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shapes that no formula foresees: the answer is untouched, the operator is listed, nothing is half added."""
    from layerprof.flops import operators

    def fails(operands: Any, output: Any) -> Any:
        raise ValueError("not enough values to unpack")

    monkeypatch.setitem(operators.FORMULAS, "aten::bmm", fails)
    model, x = Model(lambda x: torch.bmm(x, x), torch.relu), torch.ones(2, 8, 8)
    expected = model(x)
    assert torch.equal(model(x), expected)
    reading = read(model, x)
    assert {key: missed.calls for key, missed in reading.uncounted.items()} == {("blocks.0", HERE, "aten::bmm"): 1}
    assert reading.total_flops == sum(work.flops for work in reading.layers.values()) == 2 * 2 * 16 * 8 * 8


def test_calls_on_a_device_that_the_host_runs_ahead_of_have_no_seconds() -> None:
    """The meta device stands for it: an operator on it takes the host some time that is not its own."""
    library: Any = torch.library.Library("lp_zeros_meta", "DEF")  # type: ignore[no-untyped-call]  # untyped there
    library.define("plain(Tensor x) -> Tensor")
    library.impl("plain", torch.empty_like, "Meta")
    model = Model(torch.ops.lp_zeros_meta.plain, torch.relu).to("meta")
    reading = read(model, torch.ones(2, 8, device="meta"))
    library._destroy()
    assert reading.uncounted == {("blocks.0", HERE, "lp_zeros_meta::plain"): Uncounted(1, None)}


def test_readings_add_up_field_by_field() -> None:
    """What either has is in the sum, what both have is added, and seconds that one of them lacks are not known."""
    key, other = ("a", HERE), ("b", Phase.DECODE)
    f, g = (*key, "x::f"), (*key, "x::g")
    one = WorkReading({key: Work(1, 10)}, {}, 10, {f: Uncounted(2, 0.5), g: Uncounted(1, 0.1)})
    two = WorkReading({key: Work(2, 5), other: Work(1, 1)}, {other: Work(0, 4)}, 10, {f: Uncounted(1, None)})
    assert sum([one, two], WorkReading()) == one + two
    assert one + two == WorkReading(
        {key: Work(3, 15), other: Work(1, 1)},
        {other: Work(0, 4)},
        20,
        {f: Uncounted(3, None), g: Uncounted(1, 0.1)},
    )
    assert one + WorkReading() == one


class LowRank(torch.Tensor):
    """A tensor of a user's own, made of two factors that it multiplies whenever an operator wants it."""

    left: torch.Tensor
    right: torch.Tensor

    @staticmethod
    def __new__(cls, left: torch.Tensor, right: torch.Tensor) -> LowRank:
        """Take the product's shape."""
        made: Any = torch.Tensor._make_wrapper_subclass(cls, (left.shape[0], right.shape[1]), dtype=left.dtype)
        made.left, made.right = left, right
        return made  # type: ignore[no-any-return]  # torch's maker of subclasses has no types

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch's own stub of it lacks the operator
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Multiply the factors, then do what was asked."""
        whole = [arg.left @ arg.right if isinstance(arg, cls) else arg for arg in args]
        return func(*whole, **(kwargs or {}))


def test_what_a_tensor_of_the_users_own_multiplies_inside_an_elementwise_operator_is_seen() -> None:
    """An addition that hides a product of (8, 2) with (2, 8)."""
    hidden = LowRank(torch.ones(8, 2), torch.ones(2, 8))
    model, x = Model(lambda x: x + hidden, torch.relu), torch.ones(8, 8)
    reading = read(model, x)
    assert reading.layers["blocks.0", HERE].flops == 2 * 8 * 8 * 8 + 2 * 8 * 2 * 8
    assert reading.uncounted == {}


def test_layers_that_run_on_other_threads_are_named_and_make_what_holds_them_a_bound() -> None:
    """Operators are seen on the thread that calls the model; the second block runs on one of its own."""

    class Threaded(Model):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """Run the first block here, the second elsewhere."""
            made: list[torch.Tensor] = []
            first = self.blocks[0](x)
            thread = threading.Thread(target=lambda: made.append(self.blocks[1](first.detach())))
            thread.start()
            thread.join()
            return made[0]

    reading = read(Threaded(torch.relu, torch.relu), torch.ones(4, 8))
    assert reading.uncounted == {("blocks.1", HERE, ELSEWHERE): Uncounted(1, None)}
    assert reading.uncounted_inside == {("blocks.1", HERE, ELSEWHERE): Uncounted(1, None)}
    assert reading.layers["blocks.0", HERE].flops == reading.total_flops == 2 * 4 * 8 * 8
