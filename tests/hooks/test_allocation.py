"""Memory of layers by hand: modules that hold, keep and free a known number of bytes; floats are of 4."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from layerprof.hooks.allocation import LayerMemory
from torch import Tensor, nn

from layerprof.readings import Layer, MemoryReading
from layerprof.records import Phase

X = 40
"""Bytes of the input, ten floats, and of every output that is not a view of it."""


class Does(nn.Module):
    """A layer whose forward is a function of the layer and its input."""

    def __init__(self, does: Callable[[Any, Tensor], Any], inner: nn.Module | None = None) -> None:
        super().__init__()
        self.does, self.inner = does, inner
        self.held: Any = None

    def forward(self, x: Tensor) -> Any:
        """Do it."""
        return self.does(self, x)


def floats(kilobytes: int) -> Tensor:
    """Allocate."""
    return torch.empty(kilobytes * 250)


def layer(name: str, kind: str = "decoder_layer") -> Layer:
    """Return a located layer of the language tower."""
    return Layer(name, "language", kind, 0)


def read(model: nn.Module, *names: str, batches: int = 1, calls: int = 1) -> MemoryReading:
    """Call a model; its layers are `names`."""
    hook = LayerMemory(model, [layer(name) for name in names])
    with hook, torch.no_grad():
        for index in range(batches):
            x = torch.ones(10)
            with hook.batch(index, given={"x": x}):
                for _ in range(calls):
                    model(x)
    assert hook.failure is None
    return hook.reading()  # type: ignore[no-any-return]  # mypy knows hooks/ by another name


def one(does: Callable[[Any, Tensor], Any], **more: Any) -> tuple[int, int]:
    """Return peak and kept bytes of a layer that does something."""
    reading = read(nn.Sequential(Does(does)), "0", **more)
    return reading.peak["0", Phase.PREFILL], reading.kept["0", Phase.PREFILL]


def closes(reading: MemoryReading) -> bool:
    """Tell whether who held what at the peak comes to the total."""
    held = sum(reading.weights.values()) + reading.weights_elsewhere + sum(reading.at_peak.values())
    rest = reading.kv_cache + reading.inputs + reading.before + sum(reading.outside.values())
    return held + rest == reading.total


def test_a_temporary_is_in_the_peak_and_not_kept() -> None:
    """4 kB beside the output; afterwards nothing but the output, which is the caller's."""

    def does(_self: Any, x: Tensor) -> Tensor:
        scratch = floats(4)
        return x + scratch[0]

    assert one(does) == (4_000 + X, 0)


def test_what_is_freed_early_makes_room() -> None:
    """3 kB freed before 2 kB are made: never more than 3 at once."""

    def does(_self: Any, x: Tensor) -> Tensor:
        first = floats(3)
        del first
        second = floats(2)
        return x + second[0]

    assert one(does) == (3_000, 0)


def test_what_a_layer_stores_is_kept_once_and_replaced_for_nothing() -> None:
    """1 kB stays after the first call; the second makes another and lets the first go, so both are there once."""

    def does(self: Any, x: Tensor) -> Tensor:
        self.held = floats(1)
        return x * 2

    assert one(does) == (1_000 + X, 1_000)
    reading = read(nn.Sequential(Does(does)), "0", calls=2)
    assert (reading.calls["0", Phase.PREFILL], reading.kept["0", Phase.PREFILL]) == (2, 1_000)
    assert reading.peak["0", Phase.PREFILL] == 1_000 + X


def test_an_output_that_the_layer_stores_as_well_is_its_output() -> None:
    """What the caller gets is nowhere told apart from what the layer has of it."""

    def does(self: Any, x: Tensor) -> Tensor:
        self.held = x * 2
        return self.held  # type: ignore[no-any-return]  # a tensor

    assert one(does) == (X, 0)


@pytest.mark.parametrize(
    "does",
    [
        lambda _self, x: x[2:].view(2, 4),
        lambda _self, x: x.add_(1).mul_(2),
        lambda _self, x: x.chunk(2),
        lambda _self, x: {"a": x, "b": [x.expand(3, 10), x.detach()]},
    ],
    ids=["view", "in place", "two views", "nested"],
)
def test_views_and_what_is_written_in_place_take_nothing(does: Callable[[Any, Tensor], Any]) -> None:
    """They lie in the input's memory."""
    assert one(does) == (0, 0)


def test_several_outputs_in_one_piece_of_memory_count_once() -> None:
    """Two halves of 2 kB are the whole of it, and belong to the caller."""
    assert one(lambda _self, _x: floats(2).chunk(2)) == (2_000, 0)


def test_a_view_keeps_all_of_what_it_lies_in() -> None:
    """One float of 5 kB is stored: 5 kB stay."""

    def does(self: Any, x: Tensor) -> Tensor:
        self.held = floats(5)[:1]
        return x

    assert one(does) == (5_000, 5_000)


def test_a_tensor_that_grows_in_place_counts_as_it_is() -> None:
    """1 kB resized to 3."""

    def does(self: Any, x: Tensor) -> Tensor:
        self.held = floats(1).resize_(750)
        return x

    assert one(does) == (3_000, 3_000)


def test_numbers_of_python_made_into_a_tensor_are_new_memory() -> None:
    """`torch.tensor` makes its memory behind the operators' back."""

    def does(self: Any, x: Tensor) -> Tensor:
        self.held = torch.tensor([1.0, 2.0, 3.0])
        return x

    assert one(does) == (12, 12)


def test_a_cycle_is_held_until_it_is_collected() -> None:
    """What only a cycle refers to lives on, as it does in the allocator."""

    def does(_self: Any, x: Tensor) -> Tensor:
        ring: list[Any] = [floats(6)]
        ring.append(ring)
        return x

    gc.disable()
    try:
        assert one(does) == (6_000, 6_000)
    finally:
        gc.enable()
        gc.collect()

    def collects(self: Any, x: Tensor) -> Tensor:
        does(self, x)
        gc.collect()
        return x

    assert one(collects) == (6_000, 0)


def test_a_layer_that_lets_go_of_what_it_kept_has_kept_less_than_nothing() -> None:
    """The first call stores 1 kB, the second drops it."""

    def does(self: Any, x: Tensor) -> Tensor:
        self.held = None if self.held is not None else floats(1)
        return x

    assert one(does, calls=2) == (1_000, 0)


def test_calls_inside_count_for_those_around_them_and_have_peaks_of_their_own() -> None:
    """The outer layer holds 2 kB while the inner one takes 3 and keeps 1; later the outer one takes 1 more."""

    def inner(self: Any, x: Tensor) -> Tensor:
        self.held = floats(1)
        scratch = floats(2)
        return x + scratch[0]

    def outer(self: Any, x: Tensor) -> Tensor:
        scratch = floats(2)
        y: Tensor = self.inner(x)
        del scratch
        self.held = floats(1)
        return y

    reading = read(nn.Sequential(Does(outer, Does(inner))), "0", "0.inner")
    assert reading.peak["0.inner", Phase.PREFILL] == 3_000 + X
    assert reading.peak["0", Phase.PREFILL] == 5_000 + X
    assert reading.kept["0.inner", Phase.PREFILL] == 1_000
    assert reading.kept["0", Phase.PREFILL] == 2_000
    assert reading.at_peak == {"0": 2_000, "0.inner": 3_000 + X}
    assert reading.total == 5_000 + X + X
    assert closes(reading)


def test_the_peak_of_the_walk_is_who_held_what_then() -> None:
    """The first layer's output and store are still there when the second is at its peak, in both batches alike.

    40 bytes of input and 40 of the first output beside 2 kB that the first stores, and 5 kB of the second.
    """

    def stores(self: Any, x: Tensor) -> Tensor:
        self.held = floats(2)
        return x + 1

    def takes(_self: Any, x: Tensor) -> Tensor:
        scratch = floats(5)
        return x + scratch[0]

    reading = read(nn.Sequential(Does(stores), Does(takes)), "0", "1", batches=2)
    assert reading.at_peak == {"0": 2_000 + X, "1": 5_000 + X}
    assert (reading.inputs, reading.outside, reading.before) == (X, {}, 0)
    assert reading.total == 7_000 + 3 * X
    assert closes(reading)


def test_memory_of_no_layer_stands_under_the_module_that_made_it() -> None:
    """A module around the layers, and what runs under none at all."""
    model = nn.Module()
    around = model.around = Does(lambda self, x: self.inner(x + floats(7)[0]), Does(lambda _self, x: x + 1))
    hook = LayerMemory(model, [layer("around.inner")])
    x = torch.ones(10)
    with hook, hook.batch(0, given={"x": x}), torch.no_grad():
        outer = floats(1)
        around(x)
        del outer
    reading = hook.reading()
    assert reading.outside == {"around": 7_000 + X, "outside the model": 1_000}
    assert closes(reading)


def test_what_was_there_before_is_told_when_it_is_first_used() -> None:
    """A tensor that nobody told of lies there from the beginning: 8 kB more at the peak, and in no call's."""
    table = floats(8)

    def does(_self: Any, x: Tensor) -> Tensor:
        scratch = floats(3)
        y = x + scratch[0]
        del scratch
        return y + table[0]

    reading = read(nn.Sequential(Does(does)), "0")
    assert reading.peak["0", Phase.PREFILL] == 3_000 + X
    assert (reading.before, reading.total) == (8_000, 11_000 + 2 * X)
    assert closes(reading)


def test_a_call_that_raises_is_in_no_figure_and_disturbs_no_other() -> None:
    """The next call is read as if nothing had been; the layer around both has the peak of both."""

    def inner(self: Any, x: Tensor) -> Tensor:
        scratch = floats(4)
        if self.held is None:
            self.held = True
            raise ValueError("once")
        return x + scratch[0]

    def outer(self: Any, x: Tensor) -> Tensor:
        with pytest.raises(ValueError, match="once"):
            self.inner(x)
        gc.collect()
        y: Tensor = self.inner(x)
        return y

    reading = read(nn.Sequential(Does(outer, Does(inner))), "0", "0.inner")
    assert reading.calls == {("0.inner", Phase.PREFILL): 1, ("0", Phase.PREFILL): 1}
    assert reading.peak["0.inner", Phase.PREFILL] == 4_000 + X
    assert reading.kept["0.inner", Phase.PREFILL] == 0


def test_each_storage_of_weights_is_the_innermost_layers_and_once() -> None:
    """Two linear layers of 10 x 10 and 10 floats, the second's matrix tied to the first's; a norm outside both."""
    first, second = nn.Linear(10, 10), nn.Linear(10, 10)
    second.weight = first.weight
    second.register_buffer("table", second.bias.detach()[:5])
    model = nn.Sequential(first, second, nn.LayerNorm(10))
    reading = read(model, "0", "1")
    assert reading.weights == {"0": 440, "1": 40}
    assert reading.weights_elsewhere == 80
    assert reading.tied == {"1": "0"}
    assert closes(reading)


def test_packed_weights_count_as_they_lie() -> None:
    """A buffer of 100 int8 and its 10 scales of two bytes: 120 bytes, whatever the matrix they stand for."""
    packed = nn.Module()
    packed.register_buffer("packed", torch.zeros(100, dtype=torch.int8))
    packed.register_buffer("scales", torch.zeros(10, dtype=torch.float16))
    model = nn.Sequential(Does(lambda _self, x: x, packed))
    assert read(model, "0").weights == {"0": 120}
