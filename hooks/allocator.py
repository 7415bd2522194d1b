"""What torch's CUDA allocator has handed out: its own counters, which the host knows without waiting for the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

BLOCK = 512
"""Bytes that the allocator rounds every piece up to (torch's notes on CUDA semantics, memory management)."""


class Level(Protocol):
    """How much memory is in use."""

    def now(self) -> int:
        """Return the bytes in use."""

    def high(self) -> int:
        """Return the most bytes in use since this was last asked, this moment included."""

    def cost(self, size: int) -> int:
        """Return what a storage of a size takes."""


class Counters(Protocol):
    """What is asked of `torch.cuda`."""

    def memory_allocated(self, device: int) -> int:
        """Return the bytes that the allocator has handed out on a device."""

    def max_memory_allocated(self, device: int) -> int:
        """Return the most of that since the counter was reset."""

    def reset_peak_memory_stats(self, device: int) -> None:
        """Reset the counter to what is handed out now."""


class Allocator:
    """The bytes that torch's allocator has handed out on some devices together, workspaces of kernels included.

    On several devices `high` adds up the most of each, which may not have been at one moment.
    """

    def __init__(self, devices: Sequence[int], cuda: Counters | None = None) -> None:
        if cuda is None:
            import torch

            cuda = torch.cuda
        self._devices, self._cuda = tuple(devices), cuda

    def now(self) -> int:
        """Return the bytes handed out."""
        return sum(self._cuda.memory_allocated(device) for device in self._devices)

    def high(self) -> int:
        """Return the most since this was last asked."""
        high = sum(self._cuda.max_memory_allocated(device) for device in self._devices)
        for device in self._devices:
            self._cuda.reset_peak_memory_stats(device)
        return high

    @staticmethod
    def cost(size: int) -> int:
        """Return a size rounded up as the allocator does."""
        return -(-size // BLOCK) * BLOCK
