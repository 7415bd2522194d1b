"""Memory of layers by an allocator's counters: a fake that hands out what the test says, in blocks of 512 bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from layerprof.hooks.allocation import LayerMemory
from layerprof.hooks.allocator import Allocator
from torch import Tensor, nn

from layerprof.readings import Layer, MemoryReading
from layerprof.records import Phase


class FakeAllocator:
    """Counters of one device as `torch.cuda` has them."""

    def __init__(self) -> None:
        self.used = self.most = 0

    def take(self, size: int) -> int:
        """Hand out a block; return what it takes."""
        taken = -(-size // 512) * 512
        self.used += taken
        self.most = max(self.most, self.used)
        return taken

    def give(self, taken: int) -> None:
        """Take it back."""
        self.used -= taken

    def memory_allocated(self, device: int) -> int:
        """Return what is handed out."""
        assert device == 0
        return self.used

    def max_memory_allocated(self, device: int) -> int:
        """Return the most since the reset."""
        assert device == 0
        return self.most

    def reset_peak_memory_stats(self, device: int) -> None:
        """Forget it."""
        assert device == 0
        self.most = self.used


class Works(nn.Module):
    """A layer whose kernels do something with the allocator."""

    def __init__(self, work: Callable[[Works], None], inner: nn.Module | None = None) -> None:
        super().__init__()
        self.work, self.inner = work, inner

    def forward(self, x: Tensor) -> Tensor:
        """Do it."""
        self.work(self)
        return x


def read(fake: FakeAllocator, model: nn.Module, *names: str, size: Any = None, batches: int = 1) -> MemoryReading:
    """Call a model on a fake device."""
    layers = [Layer(name, "language", "decoder_layer", 0) for name in names]
    hook = LayerMemory(model, layers, device="cuda:0", size=size, cuda=fake)
    with hook:
        for index in range(batches):
            with hook.batch(index):
                model(torch.ones(10))
    assert hook.failure is None
    return hook.reading()  # type: ignore[no-any-return]  # mypy knows hooks/ by another name


def test_peaks_of_nested_calls_are_put_together_on_the_host() -> None:
    """Resetting the counter at an inner call's start must not lose what the outer one held before.

    The outer layer takes 5 kB and gives them back, then calls the inner one, which takes 2, then keeps 1; then takes 1.
    """
    fake = FakeAllocator()
    fake.take(100 * 512)  # weights and whatever else lies there

    def inner(_: Works) -> None:
        fake.give(fake.take(2048))
        fake.take(1024)

    def outer(self: Works) -> None:
        fake.give(fake.take(5120))
        assert self.inner is not None
        self.inner(torch.ones(1))
        fake.give(fake.take(1024))

    reading = read(fake, nn.Sequential(Works(outer, Works(inner))), "0", "0.inner")
    assert reading.peak == {("0.inner", Phase.PREFILL): 2048, ("0", Phase.PREFILL): 5120}
    assert reading.kept == {("0.inner", Phase.PREFILL): 1024, ("0", Phase.PREFILL): 1024}
    assert reading.total == 105 * 1024 - 50 * 1024
    assert reading.before == 100 * 512


def test_the_walks_peak_is_that_of_all_batches_and_of_nothing_between_them() -> None:
    """What another pass used before the walk, and what is made between two batches, is in no figure."""
    fake = FakeAllocator()
    fake.give(fake.take(1_000_000))
    sizes = iter([1024, 4096])
    reading = read(fake, nn.Sequential(Works(lambda _: fake.give(fake.take(next(sizes))))), "0", batches=2)
    assert reading.total == 4096
    assert reading.peak == {("0", Phase.PREFILL): 4096}
    assert reading.calls == {("0", Phase.PREFILL): 2}


def test_an_output_is_taken_off_as_the_allocator_rounds_it() -> None:
    """The layer's output has 40 bytes, for which the allocator handed out 512; a store of 600 takes 1024."""
    fake = FakeAllocator()

    class Gives(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            fake.take(40)
            fake.take(600)
            return x + 1

    def size(tensor: Tensor) -> int:
        return tensor.untyped_storage().nbytes()

    reading = read(fake, nn.Sequential(Gives()), "0", size=size)
    assert reading.kept == {("0", Phase.PREFILL): 1024}
    assert reading.at_peak == {"0": 40}


def test_several_devices_are_added_up() -> None:
    """A model that lies on two GPUs holds what it holds on both."""

    class Two:
        def memory_allocated(self, device: int) -> int:
            return (100, 50)[device]

        def max_memory_allocated(self, device: int) -> int:
            return (300, 80)[device]

        def reset_peak_memory_stats(self, device: int) -> None:
            del device

    level = Allocator((0, 1), Two())
    assert (level.now(), level.high(), level.cost(1), level.cost(512), level.cost(0)) == (150, 380, 512, 512, 0)
