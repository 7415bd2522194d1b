"""Which weights an operator reads: every distinct view of a parameter or buffer, once a call of its layer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from layerprof.machine.internals import storage_key
from layerprof.machine.modules import is_uninitialised

Read = dict[tuple[Any, ...], int]
"""Views read so far in one call of a layer -> their bytes."""

ROWS = 3
"""Where a view of single rows has the bytes of all of them, behind the word `rows`."""


def nbytes(tensor: Tensor) -> int:
    """Bytes of a tensor's elements; of a quantised subclass those of the tensors inside it."""
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is not None and type(tensor) is not Tensor:
        inner = [getattr(tensor, name) for name in flatten()[0]]
        return sum(nbytes(part) for part in inner if isinstance(part, Tensor))
    return tensor.numel() * tensor.element_size()


class Weights:
    """The parameters and buffers of a model, told by the storage that an operand lives in.

    Telling by storage finds a weight through its transposed, sliced and detached views, and counts one expert's slice
    of a stacked weight as that slice only.
    """

    def __init__(self, model: nn.Module) -> None:
        held = [*model.parameters(), *model.buffers()]
        self._pending = [tensor for tensor in held if is_uninitialised(tensor)]
        self._storages = {_storage(tensor) for tensor in held if not is_uninitialised(tensor)}

    def read(self, tensors: Iterable[Tensor], seen: Read) -> None:
        """Note the weights among an operator's operands."""
        if self._pending:
            self._take_initialised()
        for tensor in tensors:
            storage = _storage(tensor)
            if storage in self._storages:
                seen[(storage, _offset(tensor), tensor.numel())] = nbytes(tensor)

    def _take_initialised(self) -> None:
        """Take in what had no memory yet when the model was looked at: lazy modules make theirs at their first call."""
        made = [tensor for tensor in self._pending if not is_uninitialised(tensor)]
        self._storages |= {_storage(tensor) for tensor in made}
        self._pending = [tensor for tensor in self._pending if is_uninitialised(tensor)] if made else self._pending

    def read_groups(self, weight: Tensor, ends: Tensor, seen: Read) -> None:
        """Note the matrices of a stacked weight that a grouped product reads: those of groups that are not empty.

        `ends` (groups,) is where each group's rows end, as grouped products are given it.
        """
        storage = _storage(weight)
        if storage in self._storages:
            rows = torch.diff(ends, prepend=ends.new_zeros(1))
            seen[(storage, _offset(weight), "groups")] = nbytes(weight) * int((rows > 0).sum()) // len(ends)

    def gather(self, source: Tensor, gathered: Tensor, seen: Read) -> bool:
        """Note the rows that an indexing operator takes from a weight; True when the source is one.

        As many rows as were asked for, at most the whole weight.
        """
        storage = _storage(source)
        if storage not in self._storages:
            return False
        most = nbytes(source)
        taken = gathered.numel() * source.element_size()
        merge(seen, {(storage, _offset(source), "rows", most): min(taken, most)})
        return True


def merge(seen: Read, more: Read) -> None:
    """Add what was read elsewhere in one call; a weight that was read there, too, counts once, as do all its rows."""
    for view, size in more.items():
        rows = len(view) > ROWS and view[ROWS - 1] == "rows"
        seen[view] = min(seen.get(view, 0) + size, view[ROWS]) if rows else size


def _storage(tensor: Tensor) -> int:
    try:
        return storage_key(tensor)
    except (NotImplementedError, RuntimeError):  # wrapper subclasses own no storage; sparse tensors neither
        return id(tensor)


def _offset(tensor: Tensor) -> int:
    try:
        return int(tensor.storage_offset())
    except (NotImplementedError, RuntimeError):
        return 0


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


def tensors_in(values: Iterable[Any]) -> list[Tensor]:
    """Tensors among an operator's operands, lists of tensors included."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += [part for part in value if isinstance(part, torch.Tensor)]
    return found
