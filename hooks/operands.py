"""Operands of an operator as formulas take them: tensors as shapes, and what a formula's result depends on as a key."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from layerprof.flops.operators import Operands


def shapes(operands: Operands) -> dict[str, Any]:
    """Replace tensors by their shapes."""
    return {name: tuple(v.shape) if isinstance(v, Tensor) else v for name, v in operands.items()}


def signature(operands: Operands) -> tuple[Any, ...]:
    """Return what a formula's result depends on, hashable: shapes and plain numbers."""
    plain = (int, float, bool, str, type(None))
    return tuple(
        tuple(value.shape) if isinstance(value, Tensor) else value if isinstance(value, plain) else None
        for value in operands.values()
    )


def output_shape(output: Any) -> tuple[int, ...]:
    """Shape of an operator's (first) output."""
    first = output[0] if isinstance(output, (tuple, list)) and output else output
    return tuple(first.shape) if isinstance(first, Tensor) else ()
