"""Cold caches: a layer's weights many times over, called in turn, so that none is still in the cache when it returns.

Activations are as warm in the model as in the loop; weights are not: between two calls of a layer the rest of the model
runs. A flush between calls would burn joules inside the window.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from layerprof.machine import placement, stored

MOST_COPIES = 64
ROOM_UNKNOWN = 1 << 30
"""Bytes taken to be free where the system does not say."""
CPU_CACHE = Path("/sys/devices/system/cpu/cpu0/cache")


@dataclass(frozen=True, slots=True)
class Rotation:
    """Copies of a module to call in turn. `cold` is False where too few could be made, and `reason` says why."""

    modules: tuple[nn.Module, ...]
    cold: bool
    reason: str | None = None


def weight_bytes(module: nn.Module) -> int:
    """Return the bytes that a module's parameters and buffers are stored in."""
    return sum(weight.bytes for weight in stored.weights(module))


def copies_needed(weights: int, cache: int) -> int:
    """Return how many copies keep a cache of `cache` bytes cold: `ceil(5 cache / weights) + 1`."""
    return math.ceil(5 * cache / weights) + 1 if weights else 1


def cache_bytes(device: str) -> int:
    """Return the size of the last cache before memory: L2 of a GPU, the largest of a processor; 0 where unknown."""
    if device.startswith("cuda"):
        return int(torch.cuda.get_device_properties(torch.device(device)).L2_cache_size)
    sizes = [0]
    for file in CPU_CACHE.glob("index*/size"):
        text = file.read_text().strip()
        unit = {"K": 1 << 10, "M": 1 << 20}.get(text[-1:], 1)
        digits = text.rstrip("KM")
        sizes.append(int(digits) * unit if digits.isdigit() else 0)
    return max(sizes)


def rotate(module: nn.Module, device: str, cache: int | None = None, room: int | None = None) -> Rotation:
    """Return the module with as many copies as cold weights need.

    `cache` is the cache's size and `room` the memory that copies may take, in bytes (by default the device's cache and
    half of its free memory). Tied weights get copies of their own.
    """
    weights = weight_bytes(module)
    if not weights:
        return Rotation((module,), cold=True)
    wanted = copies_needed(weights, cache_bytes(device) if cache is None else cache)
    if any("forward" in vars(part) for part in module.modules()):
        # Laid over the instance (compiled, or by accelerate), it is bound to this one: copies would run its weights.
        return Rotation((module,), False, "its forward is bound to its own weights (compiled?), so caches were warm")
    room = (placement.free_bytes(device) or ROOM_UNKNOWN) // 2 if room is None else room
    count = max(1, min(wanted, MOST_COPIES, 1 + room // weights))
    try:
        modules = (module, *(copy.deepcopy(module) for _ in range(count - 1)))
    except Exception as error:
        # Compiled and offloaded modules refuse in many ways; the warm figure is better than none.
        return Rotation((module,), False, f"its weights cannot be copied ({type(error).__name__}), so caches were warm")
    if count == wanted:
        return Rotation(modules, cold=True)
    if count == MOST_COPIES:
        return Rotation(modules, False, "its weights are too few to be kept out of the cache")
    return Rotation(modules, False, f"{count} of {wanted} copies for cold caches, because memory is short")
