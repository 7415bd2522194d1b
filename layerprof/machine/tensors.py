"""The memory behind a tensor: which tensors lie in it, how many bytes they are, and in which format.

A tensor may wrap others (a quantised subclass), or have others stand beside it (a parameter whose scales are in an
object of its own); to whoever asks for bytes it is all of those.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from math import prod
from typing import TYPE_CHECKING, Any

from layerprof.machine.internals import storage_key
from layerprof.machine.modules import is_uninitialised, told
from layerprof.machine.placement import dtype_name

if TYPE_CHECKING:
    from torch import Tensor

DEEPEST = 3
"""Levels of dictionaries, lists and objects beside a weight that are looked into for its scales."""

CODES = re.compile(r"u?int\d+$|qu?int\d+|float[468]_|bits\d")
"""Names of dtypes that hold codes, and no numbers of their own."""


def inside(tensor: Tensor) -> tuple[Tensor, ...]:
    """Return the tensors with memory that a tensor is: itself, those that it wraps, and those that stand beside it.

    Empty for a wrapper that does not show what it wraps.
    """
    import torch

    if type(tensor) in (torch.Tensor, torch.nn.Parameter):
        return (tensor,)
    flatten = told(tensor, "__tensor_flatten__")
    if flatten is not None:
        parts = [told(tensor, name) for name in flatten()[0]]
        return tuple(found for part in parts if isinstance(part, torch.Tensor) for found in inside(part))
    beside = tuple(part for value in attributes(tensor).values() for part in held_in(value))
    return (tensor, *beside) if owns_memory(tensor) else beside


def owns_memory(tensor: Tensor) -> bool:
    """Tell whether a tensor lies in memory of its own. Sparse and lazy ones are taken to, as are those of no device."""
    try:
        storage = tensor.untyped_storage()
        return storage.device.type == "meta" or not storage.nbytes() or bool(storage.data_ptr())
    except (NotImplementedError, ValueError):  # sparse, lazy
        return True
    except RuntimeError:  # a wrapper's storage only says how large it would be
        return False


def has_storage(tensor: Tensor) -> bool:
    """Tell whether a tensor has a storage that can be asked for: sparse ones have none, lazy ones not yet."""
    if is_uninitialised(tensor):
        return False
    try:
        tensor.untyped_storage()
    except (NotImplementedError, RuntimeError):
        return False
    return True


def storage_of(tensor: Tensor) -> int | None:
    """Return what tells a tensor's storage, None of one without: sparse ones, wrappers, lazy ones not yet."""
    try:
        return storage_key(tensor)
    except (NotImplementedError, RuntimeError, ValueError):
        return None


def nbytes(tensor: Tensor) -> int:
    """Bytes of a tensor's elements, repeated ones once; of a quantised weight those of all that it is stored as."""
    import torch

    if type(tensor) in (torch.Tensor, torch.nn.Parameter):
        return own_bytes(tensor)
    return sum(map(own_bytes, inside(tensor)))


def own_bytes(tensor: Tensor) -> int:
    """Bytes of a tensor's elements without what it wraps. An expanded dimension (stride 0) repeats the same memory."""
    size = tensor.numel() * tensor.element_size()
    if not size or tensor.is_contiguous():
        return size
    try:
        strides = tensor.stride()
    except (NotImplementedError, RuntimeError):
        return size
    if 0 not in strides:
        return size
    return prod(length for length, step in zip(tensor.shape, strides, strict=True) if step) * tensor.element_size()


def view_key(tensor: Tensor) -> tuple[int, int, int]:
    """Return what is equal for tensors that show the same part of the same memory: storage, offset and size in bytes.

    Those without a storage are told by themselves.
    """
    try:
        return storage_key(tensor), int(tensor.storage_offset()) * tensor.element_size(), own_bytes(tensor)
    except (NotImplementedError, RuntimeError, ValueError):
        return id(tensor), 0, own_bytes(tensor)


# --- what stands beside -----------------------------------------------------------------------------------------


def attributes(thing: object) -> dict[str, Any]:
    """Return what an object holds under names of its own; nothing where it does not tell."""
    found = told(thing, "__dict__")
    return dict(found) if isinstance(found, dict) else {}


def held_in(value: Any, depth: int = DEEPEST) -> Iterator[Tensor]:
    """Yield the tensors with memory in a value: dictionaries, lists and plain objects are looked into."""
    import torch

    if isinstance(value, torch.Tensor):
        yield from () if is_uninitialised(value) else inside(value)
    elif depth:
        for part in _parts(value):
            yield from held_in(part, depth - 1)


def _parts(value: Any) -> list[Any]:
    if isinstance(value, (list, tuple)):
        return list(value)
    if isinstance(value, dict):
        return list(value.values())
    return list(attributes(value).values()) if is_record(value) else []


def is_record(value: Any) -> bool:
    """Tell whether an object only holds things: no class, function, module, tensor or choice."""
    import torch

    holds = told(value, "__dict__") is not None
    return holds and not callable(value) and not isinstance(value, (torch.nn.Module, torch.Tensor, Enum))


# --- formats ----------------------------------------------------------------------------------------------------


def holds_codes(tensor: Tensor) -> bool:
    """Tell whether a tensor's elements are of a type made for codes: whole numbers, floats of 8 bits or less."""
    return bool(CODES.match(str(tensor.dtype).removeprefix("torch.")))


def dtype_format(tensor: Tensor) -> str:
    """Return our name for what a tensor's elements are: `fp16`, `fp8`, `int8` (with a sign or without)."""
    name = str(tensor.dtype).removeprefix("torch.")
    if found := re.match(r"float([468])_", name):
        return f"fp{found.group(1)}"
    return re.sub(r"^q?u?int(\d+)(x\d+)?$", r"int\1", dtype_name(tensor.dtype))
