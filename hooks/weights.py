"""Which weights an operator reads: every distinct view of a parameter or buffer, once a call of its layer."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from layerprof.machine import stored
from layerprof.machine.modules import is_uninitialised
from layerprof.machine.tensors import inside, nbytes, storage_of, view_key

Read = dict[tuple[Any, ...], int]
"""Views read so far in one call of a layer -> their bytes."""

View = tuple[int, int, int]
"""A part of a piece of memory: storage, offset, size in bytes."""

ROWS = 3
"""Where a view of single rows has the bytes of all of them, behind the word `rows`."""
PACKED = torch.uint8
"""The type of codes that are packed several to an element; activations of products never have it."""


class Weights:
    """What a model's weights are stored as, told by the storage that an operand lies in.

    Telling by storage finds a weight through its transposed, sliced and detached views, and counts one expert's slice
    of a stacked weight as that slice only. A quantised weight is read when its codes are, with all that it is stored
    as: scales and zero points in their share of the codes.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._objects = count()
        self.refresh()

    def renew(self) -> None:
        """Look at the model anew where it holds other tensors, or holds them elsewhere, than at the last look.

        What packages keep beside parameters of their own kind does not show there, so those are looked at each time.
        """
        if self._moving or _places(self._model) != self._looked_at:
            self.refresh()

    def refresh(self) -> None:
        """Look at the model anew: some packages rewrite or unpack their weights in the model's first call."""
        self._looked_at = _places(self._model)
        self._pending = [tensor for tensor in _held(self._model) if is_uninitialised(tensor)]
        self._codes: dict[int, tuple[View, int]] = {}
        plain, beside = set[int](), set[int]()
        for weight in (weight for module in self._model.modules() for weight in stored.of_module(module)):
            codes = weight.codes
            if codes is None:
                plain.update(map(_storage, weight.tensors))
            else:
                self._codes[_storage(codes)] = view_key(codes), weight.bytes
                beside.update(map(_storage, weight.tensors))
        self._plain = plain - self._codes.keys()
        self._beside = beside - self._codes.keys() - self._plain
        moving = [parameter for parameter in self._model.parameters() if _may_move(parameter)]
        self._moving = [(parameter, _storage(parameter)) for parameter in moving]

    def read(self, tensors: Iterable[Tensor], seen: Read) -> None:
        """Note the weights among an operator's operands."""
        if self._pending:
            self._take_initialised()
        for tensor in tensors:
            for part in inside(tensor):
                self._read(part, seen)

    def _read(self, tensor: Tensor, seen: Read) -> None:
        storage = _storage(tensor)
        if storage in self._plain:
            key = view_key(tensor)
            seen[key] = key[-1]
        elif storage in self._codes:
            self._read_codes(storage, view_key(tensor), seen)
        elif self._moving and tensor.dtype is PACKED and storage not in self._beside and self._moved():
            self.refresh()
            for old in [view for view in seen if view[0] not in self._plain | self._codes.keys()]:
                del seen[old]  # what it was made of, in the same call
            self._read(tensor, seen)

    def _read_codes(self, storage: int, view: View, seen: Read) -> None:
        """Note a part of a weight's codes, or all of them: then its parts are no reads of their own."""
        whole, size = self._codes[storage]
        if view == whole:
            for part in [other for other in seen if other[0] == storage]:
                del seen[part]
        if whole not in seen:
            seen[view] = _part(size, view[-1], whole[-1])

    def _moved(self) -> bool:
        return any(_storage(parameter) != storage for parameter, storage in self._moving)

    def _take_initialised(self) -> None:
        """Take in what had no memory yet when the model was looked at: lazy modules make theirs at their first call."""
        if not all(is_uninitialised(tensor) for tensor in self._pending):
            self.refresh()

    def read_packed(self, value: torch.ScriptObject, seen: Read) -> None:
        """Note a matrix that an operator is given as an object of C++: no two of them can be told to be the same."""
        seen["packed", next(self._objects)] = stored.of_packed(value).packed

    def read_groups(self, weight: Tensor, ends: Tensor, seen: Read) -> None:
        """Note the matrices of a stacked weight that a grouped product reads: those of groups that are not empty.

        `ends` (groups,) is where each group's rows end, as grouped products are given it.
        """
        rows = torch.diff(ends, prepend=ends.new_zeros(1))
        for storage, offset, size in self._known(weight):
            seen[storage, offset, "groups"] = _part(size, int((rows > 0).sum()), len(ends))

    def gather(self, source: Tensor, gathered: Tensor, seen: Read) -> bool:
        """Note the rows that an indexing operator takes from a weight; True when the source is one.

        As many rows as were asked for, at most the whole weight.
        """
        known = self._known(source)
        for storage, offset, most in known:
            taken = _part(most, gathered.numel(), source.numel())
            merge(seen, {(storage, offset, "rows", most): min(taken, most)})
        return bool(known)

    def _known(self, tensor: Tensor) -> list[View]:
        """Return the weight that a tensor is, or is a view of, with the bytes that it is stored in."""
        found = []
        for storage, offset, size in map(view_key, inside(tensor)):
            if storage in self._plain:
                found.append((storage, offset, size))
            elif storage in self._codes:
                whole, stored_size = self._codes[storage]
                found.append((storage, offset, _part(stored_size, size, whole[-1])))
        return found


def _part(size: int, part: int, of: int) -> int:
    """Return a share of bytes; all of them where the whole is nothing."""
    return size * part // of if of else size


def _held(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def _places(model: nn.Module) -> list[tuple[int, int]]:
    """Return which tensors a model holds, and where they lie."""
    return [(id(tensor), _storage(tensor)) for tensor in _held(model)]


def _may_move(parameter: Tensor) -> bool:
    """Tell whether a parameter is a package's own kind with memory of its own, which it may change for other memory."""
    return type(parameter) is not nn.Parameter and any(part is parameter for part in inside(parameter))


def merge(seen: Read, more: Read) -> None:
    """Add what was read elsewhere in one call; a weight that was read there, too, counts once, as do all its rows."""
    for view, size in more.items():
        rows = len(view) > ROWS and view[ROWS - 1] == "rows"
        seen[view] = min(seen.get(view, 0) + size, view[ROWS]) if rows else size


def _storage(tensor: Tensor) -> int:
    key = storage_of(tensor)
    return id(tensor) if key is None else key


def boundary_bytes(values: Any, seen: set[int] | None = None) -> int:
    """Bytes of the tensors that cross a layer's boundary, in or out, each once.

    Masks are left out (whether one is made depends on the attention kernel), and KV caches, which count as KV.
    """
    seen = set() if seen is None else seen
    if isinstance(values, Tensor):
        if id(values) in seen or isinstance(values, nn.Parameter):
            return 0
        seen.add(id(values))
        return nbytes(values)
    if isinstance(values, dict):
        kept = [v for name, v in values.items() if not (isinstance(name, str) and "mask" in name)]
        return sum(boundary_bytes(v, seen) for v in kept)
    if isinstance(values, (tuple, list)):
        return sum(boundary_bytes(v, seen) for v in values)
    return 0


def packed_in(values: Iterable[Any]) -> list[torch.ScriptObject]:
    """Objects of C++ among an operator's operands, lists of them included."""
    parts = (part for value in values for part in (value if isinstance(value, (list, tuple)) else (value,)))
    return [part for part in parts if isinstance(part, torch.ScriptObject)]


def tensors_in(values: Iterable[Any]) -> list[Tensor]:
    """Tensors among an operator's operands, lists of tensors included."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += [part for part in value if isinstance(part, torch.Tensor)]
    return found
