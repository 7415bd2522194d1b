"""Nested tensors: rows of different lengths in one operand, and the products that run over them.

A nested operand's shape is its components behind one another, (all positions, width), with which products of a dense
weight need no more; the components' own sizes stand beside it under `LENGTHS`.
"""

from __future__ import annotations

from math import prod
from typing import Any

from layerprof.flops import formulas
from layerprof.flops.counted import Formula, Operands, Product

LENGTHS = "lengths of"
"""Key beside the operands: {nested operand's name: its components' sizes, None where only their sum is known}."""

Sizes = tuple[tuple[int, ...], ...]


def behind_one_another(sizes: Sizes) -> tuple[int, ...]:
    """Shape of all components as one matrix; () where their widths differ."""
    if len({size[-1:] for size in sizes}) != 1 or not sizes[0]:
        return ()
    return sum(prod(size[:-1]) for size in sizes), sizes[0][-1]


def _pairwise(first: str, second: str) -> Formula:
    """Each component of one operand by the same component of the other."""

    def count(operands: Operands, output: Any) -> Product:
        pairs = zip(operands[LENGTHS][first], operands[LENGTHS][second], strict=True)
        return Product(sum(formulas.matmul(a[-2], a[-1], b[-1], prod(a[:-2])) for a, b in pairs))

    return count


def _attention(operands: Operands, output: Any) -> Product:
    """Each row (heads, positions, width) attends within itself."""
    rows = list(zip(*(operands[LENGTHS][name] for name in ("query", "key", "value")), strict=True))
    flops = sum(formulas.attention(1, q[0], q[1] * k[1], q[2], v[2]) for q, k, v in rows)
    return Product(flops, attended=sum(k[1] for _, k, _ in rows))


OWN: dict[str, Formula] = {
    "aten::bmm": _pairwise("self", "mat2"),
    "aten::matmul": _pairwise("self", "other"),
    **dict.fromkeys(
        (
            "aten::scaled_dot_product_attention",
            "aten::_scaled_dot_product_attention_math",
            "aten::_scaled_dot_product_flash_attention",
            "aten::_scaled_dot_product_efficient_attention",
            "aten::_scaled_dot_product_cudnn_attention",
        ),
        _attention,
    ),
}
"""Formulas that need the components' sizes, by operator."""

BY_SHAPE = frozenset(
    {
        "aten::linear",
        "aten::addmm",
        "aten::linear_backward",
        "aten::_native_multi_head_attention",
        "aten::_triton_multi_head_attention",
        "aten::_transformer_encoder_layer_fwd",
    }
)
"""Operators whose usual formula is right for nested operands: by all positions, or since it knows of `LENGTHS`."""
