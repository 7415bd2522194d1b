"""How many positions attention reads, from what its operators were given."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from layerprof.machine.internals import storage_key

WITH_HEADS = 4
"""Sizes of an operand in which heads stand apart from rows."""


@dataclass(frozen=True, slots=True)
class Heads:
    """An operator of attention: `batch` matrices of (queries, width) by (keys, width), of all rows and heads.

    `rows` are those of the batch where they stand apart from heads, else 0.
    """

    batch: int
    rows: int
    queries: int
    keys: int
    width: int

    def positions(self, seen: int, tokens: int, features: int) -> int:
        """Return the positions that are read in all rows, `seen` of the keys in each.

        `tokens` and `features` are the sizes of what the layer was given. Where rows do not stand apart they are told
        by it: queries are all of its positions, or keys are; else it attends to what it was given. Attention over
        channels (each one's values at all positions against each other's) reads no positions: 0.
        """
        if self.rows:
            heads = self.batch // self.rows
            over_channels = self.rows * self.width == tokens and heads * self.queries == features
            return 0 if over_channels and self.rows * self.queries != tokens else self.rows * seen
        for size in (self.queries, self.keys):
            rows, rest = divmod(tokens, max(size, 1))
            if rows and not rest and self.batch % rows == 0:
                return rows * seen
        return tokens or seen


def place(keys: Any) -> Hashable:
    """Return what is equal for views of the same keys; keys that lie nowhere (ghosts of an estimate) are themselves."""
    if not isinstance(keys, Tensor):
        return id(keys)
    try:
        lies = any(keys.stride())
        return (storage_key(keys), keys.storage_offset(), keys.numel()) if lies else id(keys)
    except (NotImplementedError, RuntimeError):  # subclasses that hold other tensors
        return id(keys)
