"""Memory that no watched operator wrote, and one reads: something filled it that torch's operators do not show.

Kernels that are launched past the dispatcher (Triton's, those of an extension's own bindings) are given tensors of
`torch.empty` and fill them by address. Nobody sees them run; that their results are read gives them away.
"""

from __future__ import annotations

import re
from typing import Any
from weakref import ref

from layerprof.hooks.dispatch import Operator
from layerprof.hooks.storages import has_storage
from layerprof.hooks.weights import tensors_in
from torch import Tensor, UntypedStorage

from layerprof.machine.internals import storage_key

MAKES_EMPTY = frozenset(
    f"aten::{name}"
    for name in ("empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided")
)
SHAPE_ALONE = re.compile(r"aten::(new_\w+|\w+_like)$")
"""Operators that ask an operand for its shape and type, and read none of its numbers."""


class Unwritten:
    """The storages that were made empty and that no operator has written since."""

    def __init__(self) -> None:
        self._empty: dict[int, ref[UntypedStorage]] = {}

    def forget(self) -> None:
        """Begin anew: what is not watched may write."""
        self._empty.clear()

    def saw(self, operator: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> int:
        """Take in what an operator did; return how many of its operands somebody else has filled, each told once."""
        if operator.name in MAKES_EMPTY:
            self._made(output)
            return 0
        if not self._empty or SHAPE_ALONE.match(operator.name):
            return 0
        read = self._known([*args, *kwargs.values()])
        if not read:
            return 0
        # Operators of others write where their schema does not say so; what gives its operand back only looks at it.
        theirs = not operator.name.startswith("aten::")
        operands = operator.operands(args, kwargs)
        written = self._known([operands.get(name) for name in operator.written])
        looked_at = set() if operator.written else self._known([output])
        filled = set() if theirs else read - written - looked_at
        for key in read - looked_at:
            self._empty.pop(key, None)
        return len(filled)

    def _made(self, output: Any) -> None:
        if isinstance(output, Tensor) and not output.is_meta and has_storage(output) and output.numel():
            storage = output.untyped_storage()
            self._empty[storage_key(output)] = ref(storage)

    def _known(self, values: list[Any]) -> set[int]:
        """Return the keys of those that lie in memory which was made empty; another may have its address since."""
        found = set()
        for tensor in tensors_in(values):
            if not has_storage(tensor):
                continue
            key = storage_key(tensor)
            made = self._empty.get(key)
            if made is None:
                continue
            if made() is None:
                del self._empty[key]
            else:
                found.add(key)
        return found
