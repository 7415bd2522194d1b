"""What a call was given, read off its arguments without running a line of the caller's code.

A model may be given anything: tensors in tuples, named tuples, dataclasses and dictionaries, packed sequences, nested
and sparse tensors, arrays of other libraries, objects whose `shape` is no shape or raises. What cannot be read is left
out; nothing here raises, and no property, method or function mode of the caller's is asked.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from itertools import islice
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any, NamedTuple

from layerprof.machine import internals

TOKENS = ("input_ids", "inputs", "inputs_embeds")
HIDDEN = ("hidden_states", "hidden", "x", "src", "tgt", *TOKENS)
ASIDE = ("mask", "bias", "position", "cos", "sin", "cache")
"""Parts of the names of arguments that are no hidden states, whatever their shape."""

DEEPEST = 3
WIDEST = 16
"""How deep a structure is read, and how many of its parts."""


class Operand(NamedTuple):
    """One tensor, or what looks like one. A size that is no plain number (ragged, symbolic) is None.

    `packed` is the number of positions of a packed sequence, whose tensor holds them one after another.
    """

    shape: tuple[int | None, ...]
    integer: bool
    packed: int | None = None


def operand(value: Any) -> Operand | None:
    """Read one value; None where it is no tensor, or does not tell its shape."""
    try:
        found = _of_tensor(value) if _is_a(value, "Tensor") else _of_lookalike(value)
    except Exception:  # nested tensors refuse their sizes; whatever a tensor's class raises is not the caller's matter
        return None
    if found is None:
        return None
    shape, integer = found
    return Operand(tuple(size if type(size) is int else None for size in shape), integer)


def _is_a(value: Any, kind: str) -> bool:
    """Ask the type alone: `isinstance` would ask the value, which may be a proxy that wakes up at that."""
    import torch
    from torch.nn.utils.rnn import PackedSequence

    return issubclass(type(value), torch.Tensor if kind == "Tensor" else PackedSequence)


def _of_tensor(value: Any) -> tuple[tuple[Any, ...], bool]:
    with internals.no_torch_function():
        dtype = value.dtype
        return tuple(value.shape), not (dtype.is_floating_point or dtype.is_complex)


def _of_lookalike(value: Any) -> tuple[tuple[Any, ...], bool] | None:
    shape = _plain(value, "shape")
    if not isinstance(shape, tuple):
        return None
    kind = _plain(_plain(value, "dtype"), "kind")
    return shape, isinstance(kind, str) and kind in "iub"


def _plain(value: Any, name: str) -> Any:
    """Return an attribute that is stored, or given by C code (numpy's); a property of the caller's is not run."""
    found = inspect.getattr_static(value, name, None)
    if isinstance(found, GetSetDescriptorType | MemberDescriptorType):
        return found.__get__(value, type(value))
    return found


def operands(value: Any, depth: int = DEEPEST) -> Iterator[Operand]:
    """Yield the tensors in a value, in order: itself, or those in its parts."""
    found = operand(value)
    if found is not None:
        yield found
        return
    lengths = _packed_lengths(value)
    for part in islice(_parts(value) if depth else (), WIDEST):
        for inner in operands(part, depth - 1):
            yield inner if lengths is None else Operand(inner.shape, inner.integer, lengths)


def _packed_lengths(value: Any) -> int | None:
    """Positions of a `PackedSequence`: it holds one batch size for each."""
    sizes = operand(value.batch_sizes) if _is_a(value, "PackedSequence") else None
    return sizes.shape[0] if sizes is not None and sizes.shape else None


def _parts(value: Any) -> Iterator[Any]:
    """Yield the parts of a structure: of tuples, lists, dictionaries and dataclasses, and of what derives from them."""
    kind = type(value)
    if issubclass(kind, tuple):
        return tuple.__iter__(value)
    if issubclass(kind, list):
        return list.__iter__(value)
    if issubclass(kind, dict):
        return iter(dict.values(value))
    if dataclasses.is_dataclass(kind):
        return (_plain(value, field.name) for field in dataclasses.fields(kind))
    return iter(())


def hidden(args: tuple[Any, ...], kwargs: Mapping[str, Any], *, features: bool = False) -> Operand | None:
    """Return what a layer works on: its first tensor with two sizes or more; masks and positions are passed over.

    With `features`, whole numbers (token ids) are passed over, too.
    """
    named = [kwargs[name] for name in HIDDEN if name in kwargs]
    others = [value for name, value in kwargs.items() if name not in HIDDEN and not any(x in name for x in ASIDE)]
    for value in (*args, *named, *others):
        for found in operands(value):
            if len(found.shape) >= 2 and not (features and found.integer):
                return found
    return None


def token_ids(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return (rows, positions) of the token ids that a call was given; None where they are not told."""
    first = [kwargs[name] for name in ("input_ids", "input", "inputs", "x") if name in kwargs]
    for value in (*first, *args[:1]):
        found = operand(value)
        if found is not None and found.integer and len(found.shape) in (1, 2):
            rows, positions = (1, *found.shape)[-2:]
            return (rows, positions) if rows is not None and positions is not None else None
    return None


def rows_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """Return the batch size of a call: the first size of its first tensor; token ids are asked before anything else."""
    first = [kwargs[name] for name in TOKENS if name in kwargs]
    for value in (*first, *args, *kwargs.values()):
        for found in operands(value):
            if found.shape and found.shape[0] is not None:
                return found.shape[0]
    return 1
