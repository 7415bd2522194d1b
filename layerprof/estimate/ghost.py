"""Tensors without memory: a model of any size is built and run in moments, to learn the shapes of what it does.

Inside `Ghosts()` every large floating-point tensor lies in one stretch of addresses that nobody ever writes, so that no
memory stands behind it, however large it is. It has a storage of its own, of the right size, and the strides of a real
one: what copies and what only looks is as it would be. Matrix work, attention and elementwise work on such tensors give
another of the right shape and compute nothing. Everything a model
decides by (token ids, masks, positions, lengths, image grids) is small, is not floating point or has no ghost in
it, and is computed as ever. So the control flow is the real one, whatever the model.

Values that are read off a ghost: floats are 0; of a choice among many (`topk`, as a router makes it) the picks go round
in turn, so that a mixture of experts is loaded evenly.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from math import prod
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from layerprof.machine.internals import Schema, answering, schema

LARGE = 1 << 16
"""Elements from which a new floating-point tensor is a ghost."""

FACTORIES = frozenset(f"aten::{name}" for name in ("empty", "zeros", "ones", "full", "rand", "randn"))
CHOICES = frozenset({"aten::topk", "aten::sort", "aten::argsort"})
BY_VALUE = frozenset({"aten::index", "aten::masked_select", "aten::nonzero", "aten::repeat_interleave"})
"""Operators whose output's shape may hang on the values of their integer or boolean operands."""
COMPLEX_VIEWS = {"aten::view_as_complex": torch.view_as_complex, "aten::view_as_real": torch.view_as_real}
SILENT_VIEW = "aten::_unsafe_view"
"""Looks at its operand's memory, and does not say so."""
STRETCHES = (1 << 46, 1 << 40, 1 << 36)
"""Bytes of addresses that are asked for: the first that the system grants holds the largest ghost."""
UNRESERVED = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)
"""Says that no memory need be kept for what is mapped; Python has the name from 3.13 on."""


@cache
def _stretch() -> mmap.mmap | None:
    """Return addresses that read as zeros; None where the system grants none."""
    for size in STRETCHES:
        try:
            return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | UNRESERVED)
        except (OSError, ValueError, OverflowError, AttributeError):
            continue
    return None


@cache
def _start() -> int:
    """Return the address at which every ghost begins; 0 where there are none of that kind."""
    stretch = _stretch()
    return 0 if stretch is None else torch.frombuffer(stretch, dtype=torch.uint8, count=1).data_ptr()


def ghost(shape: Sequence[int], dtype: torch.dtype, strides: Sequence[int] | None = None) -> Tensor:
    """Return zeros of a shape that take no memory, in a storage of their own; contiguous where no strides are given.

    Where no addresses are to be had, all of it is one element, and sizes of storages say nothing.
    """
    with torch.inference_mode(False), torch.no_grad():
        stretch = _stretch()
        elements = prod(shape) if strides is None else _extent(shape, strides)
        if stretch is None or not elements or elements * dtype.itemsize > len(stretch):
            return torch.zeros((), dtype=dtype).expand(tuple(shape))
        flat = torch.frombuffer(stretch, dtype=dtype, count=elements)
        return flat.view(tuple(shape)) if strides is None else flat.as_strided(tuple(shape), tuple(strides))


def _extent(shape: Sequence[int], strides: Sequence[int]) -> int:
    """Return how many elements of storage a tensor reaches over."""
    return 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True)) if prod(shape) else 0


def is_ghost(tensor: Tensor) -> bool:
    """Tell whether a floating-point (or complex) tensor of several elements has no memory behind it."""
    if not (tensor.is_floating_point() or tensor.is_complex()) or tensor.numel() < 2 or not _strided(tensor):
        return False
    if hasattr(tensor, "__tensor_flatten__"):
        return True  # a weight that is stored as codes (`ghost_weights`)
    if _start() and tensor.untyped_storage().data_ptr() == _start():
        return True
    return not any(stride for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1)


def _strided(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided and not tensor.is_nested


def have_sizes() -> bool:
    """Tell whether storages of ghosts have the sizes of real ones."""
    return _stretch() is not None


class Ghosts:
    """Answers operators on ghosts by shape; `widest_bytes` is the most that one of them reads and writes."""

    def __init__(self) -> None:
        self.widest_bytes = 0
        self._answers: dict[Any, tuple[Any, int]] = {}
        self._mode = answering(self._run)

    def __enter__(self) -> Self:
        self._mode.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._mode.__exit__(kind, error, trace)

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operator for real, or answer it by the shape of what it would give."""
        told = schema(func)
        assert told is not None  # torch hands operators that take functions to those alone who ask for them
        if told.view or told.name == SILENT_VIEW:
            between = COMPLEX_VIEWS.get(told.name)
            if between is not None and is_ghost(args[0]) and not any(args[0].stride()):
                return _stand_in(between(args[0].to("meta")), None)  # one element has no second one for the other part
            return func(*args, **kwargs)
        if told.written and args and isinstance(args[0], Tensor) and is_ghost(args[0]):
            return args[0]
        if _makes_large(told.name, args, kwargs):
            return ghost(args[0], kwargs.get("dtype") or torch.get_default_dtype())
        if not any(isinstance(leaf, Tensor) and is_ghost(leaf) for leaf in _leaves((*args, *kwargs.values()))):
            return func(*args, **kwargs)
        return self._answer(func, told, args, kwargs)

    def _answer(self, func: Any, told: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        leaves = _leaves((*args, *kwargs.values()))
        key = None if told.name in BY_VALUE else (func, *(_trait(leaf) for leaf in leaves))
        known = self._answers.get(key) if key is not None else None
        if known is None:
            template = _template(func, told, args, kwargs)
            known = template, _bytes(leaves) + _bytes(_leaves((template,)))
            if key is not None:
                self._answers[key] = known
        self.widest_bytes = max(self.widest_bytes, known[1])
        choices = args[0].shape[-1] if told.name in CHOICES else None
        return _mapped(lambda leaf: _stand_in(leaf, choices) if isinstance(leaf, Tensor) else leaf, known[0])


def _makes_large(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Tell whether a factory is asked for a large floating-point tensor."""
    if name not in FACTORIES or prod(args[0]) < LARGE:
        return False
    filled = args[1] if name == "aten::full" and len(args) > 1 else None
    dtype = kwargs.get("dtype") or (torch.get_default_dtype() if filled is None else torch.tensor(filled).dtype)
    return bool(dtype.is_floating_point)


def _leaves(values: Iterable[Any]) -> list[Any]:
    """Operands with lists taken apart, each after its length."""
    found: list[Any] = []
    for value in values:
        if isinstance(value, (list, tuple)):
            found += (len(value), *_leaves(value))
        else:
            found.append(value)
    return found


def _mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """Change every leaf of an operand or output, through lists, tuples and dictionaries."""
    if isinstance(value, dict):
        return {name: _mapped(change, part) for name, part in value.items()}
    if isinstance(value, tuple):
        return tuple(_mapped(change, part) for part in value)
    return [_mapped(change, part) for part in value] if isinstance(value, list) else change(value)


def _trait(leaf: Any) -> Any:
    """Say what an answer depends on: shapes and types of tensors, values of everything else."""
    if isinstance(leaf, Tensor):
        return tuple(leaf.shape), leaf.stride() if _strided(leaf) else leaf.layout, leaf.dtype
    return type(leaf), leaf if isinstance(leaf, (int, float, str, torch.dtype)) else repr(leaf)


def _template(func: Any, told: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Give the operator's outputs on the meta device; where shapes hang on values, run it and keep its shapes."""

    def abstract(value: Any) -> Any:
        if isinstance(value, Tensor) and not _strided(value):
            return torch.empty(value.shape, dtype=value.dtype, device="meta")
        if isinstance(value, Tensor):
            return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
        return torch.device("meta") if isinstance(value, torch.device) else value

    if told.name == "aten::_grouped_mm" and args[1].ndim == 3:  # its own rule asks for real memory layouts
        return torch.empty(*args[0].shape[:-1], args[1].shape[-1], dtype=args[0].dtype, device="meta")
    meta_args, meta_kwargs = _mapped(abstract, (args, kwargs))
    if "device" in told.arguments:
        meta_kwargs["device"] = torch.device("meta")
    try:
        return func(*meta_args, **meta_kwargs)
    except (NotImplementedError, RuntimeError):
        return _mapped(lambda v: v.to("meta") if isinstance(v, Tensor) else v, func(*args, **kwargs))


def _stand_in(template: Tensor, choices: int | None) -> Tensor:
    if template.is_floating_point() or template.is_complex():
        return ghost(template.shape, template.dtype, template.stride())
    if choices:
        return (torch.arange(template.numel(), dtype=template.dtype) % choices).view(template.shape)
    return torch.zeros(template.shape, dtype=template.dtype)


def _bytes(leaves: list[Any]) -> int:
    """Bytes of the activations among an operator's operands or outputs."""
    tensors = [v for v in leaves if isinstance(v, Tensor) and not isinstance(v, torch.nn.Parameter)]
    return sum(t.numel() * t.element_size() for t in tensors)
