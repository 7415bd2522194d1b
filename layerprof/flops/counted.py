"""What a count is: a matrix product or fused attention, and the formula that gives it from an operator's operands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from layerprof.flops import formulas

Operands = Mapping[str, Any]
"""Operands under the names of the operator's schema: tensors as shapes, lists as tuples, everything else as it is."""


@dataclass(frozen=True, slots=True)
class Product:
    """Matrix work that is no fused attention. `batched` is (batch, rows, inner, columns) of a batched product.

    `least` says that the operator's values decide how much it does, and that this is what it does at the least.
    `attended` are the positions whose keys attention inside it reads, in all rows.
    """

    flops: int
    batched: tuple[int, int, int, int] | None = None
    least: bool = False
    attended: int = 0


@dataclass(frozen=True, slots=True)
class Attention:
    """Fused attention. For packed sequences (`packed`) `rows` is 1 and `queries`, `keys` are sums over sequences."""

    rows: int
    heads: int
    queries: int
    keys: int
    width_qk: int
    width_v: int
    packed: bool = False
    backward: bool = False

    @property
    def flops(self) -> int:
        """As a dense kernel executes it; of packed sequences only once their lengths are known."""
        return self.of_pairs(self.rows, self.queries * self.keys)

    def of_pairs(self, rows: int, pairs: int) -> int:
        """FLOPs of these heads and widths for `rows` rows of `pairs` (query, key) pairs."""
        count = formulas.attention_backward if self.backward else formulas.attention
        return count(rows, self.heads, pairs, self.width_qk, self.width_v)


Formula = Callable[[Operands, Any], Product | Attention]
"""(operands, shape of the first output) -> the count. Raises any exception where it does not know such operands."""


def given(operands: Operands, *names: str) -> Any:
    """Return the first operand that is there, of several names for one thing. Raises KeyError where there is none."""
    for name in names:
        if operands.get(name) is not None:
            return operands[name]
    raise KeyError(names)
