"""What the work of a call depends on, as far as its arguments tell: shapes and plain values, hashable."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from enum import Enum
from typing import Any

from layerprof.machine.internals import modes_aside
from layerprof.models.packed import PAGED, packed_of

Shapes = tuple[tuple[int, ...], ...]

DEEPEST = 6
"""Levels of nesting that are looked into; deeper arguments are not known by their outside."""


class _UnknownError(Exception):
    """An argument whose outside does not tell what work it makes."""


def signature(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Hashable | None:
    """Return what is equal for calls of one module that do the same work, but for what it keeps and what values decide.

    Shapes, dtypes and places of tensors, values of those of one element (on a CPU, where to ask waits for nothing),
    lengths of KV caches and of packed sequences, plain values, and the modes that torch is in. None where an argument
    is of a kind that tells nothing by its outside (an object of the user's own, a cache of fixed length).
    """
    try:
        return (_of(args, 0), _of(kwargs, 0), _modes(), packed_of(kwargs))
    except Exception:  # arguments are the user's, and of any kind
        return None


def shapes_in(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Shapes:
    """Return the shapes of the tensors that a layer is given."""
    import torch

    values = (*args, *kwargs.values()) if kwargs else args
    return tuple([value.shape for value in values if type(value) is torch.Tensor and not value.is_nested])


def outline(value: Any) -> Hashable:
    """Return the structure of an answer with the shapes in it; of an unknown object its class only."""
    if isinstance(value, Mapping):
        return tuple((str(key), outline(part)) for key, part in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(outline(part) for part in value)
    return (type(value).__name__, tuple(getattr(value, "shape", ())))


def _modes() -> Hashable:
    import torch

    casts = tuple((kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in ("cpu", "cuda"))
    return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), casts, torch.get_default_dtype()


def _of(value: Any, depth: int) -> Hashable:
    import torch

    if isinstance(value, torch.Tensor):
        return _tensor(value)
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, Enum, torch.dtype, torch.device)):
        return type(value), value
    if depth > DEEPEST:
        raise _UnknownError
    if isinstance(value, Mapping):
        return type(value), tuple((key, _of(part, depth + 1)) for key, part in value.items())
    if isinstance(value, (list, tuple)):
        return type(value), tuple(_of(part, depth + 1) for part in value)
    return _cache(value, depth)


def _tensor(value: Any) -> Hashable:
    import torch

    if type(value) not in (torch.Tensor, torch.nn.Parameter) or value.layout != torch.strided or value.is_nested:
        raise _UnknownError
    told = tuple(map(_plain, value.shape)), value.dtype, value.device, value.requires_grad
    return (*told, _switch(value)) if value.device.type == "cpu" and value.numel() == 1 else told


def _switch(value: Any) -> Hashable:
    """Return the value of a tensor of one element, which may be what a model goes by; a token is none of those."""
    import torch

    if value.ndim and not (value.dtype.is_floating_point or value.dtype == torch.bool):
        return None
    with modes_aside():
        found: Hashable = value.item()
    return found


def _plain(size: Any) -> int:
    if type(size) is not int:  # a symbol: to ask for its value would tie whatever is being traced to it
        raise _UnknownError
    return size


def _cache(value: Any, depth: int) -> Hashable:
    """Return what tells a growing KV cache: its length, and the shapes of its first and last layers."""
    halves = [getattr(value, name, None) for name in ("self_attention_cache", "cross_attention_cache")]
    if None not in halves:
        return type(value), tuple(_of(half, depth + 1) for half in halves)
    if type(value).__name__ == PAGED:  # its pages stay, and what of them is read stands beside it
        return PAGED
    layers = getattr(value, "layers", None)
    if layers is None or not hasattr(value, "get_seq_length"):
        raise _UnknownError
    if any(getattr(layer, "max_cache_len", None) is not None for layer in layers):
        raise _UnknownError  # its filled length may lie on a device, and to ask would wait for it
    keys = [getattr(layer, "keys", None) for layer in (*layers[:1], *layers[-1:])]
    return type(value), len(layers), _plain(value.get_seq_length()), tuple(k if k is None else k.shape for k in keys)
