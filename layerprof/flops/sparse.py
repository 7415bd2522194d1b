"""Products with sparse operands, by the values that are stored: 2 FLOPs for each that meets an element of the other.

Explicit zeros are stored values, and so are all elements of a stored block: the kernels multiply them.
"""

from __future__ import annotations

from math import prod
from typing import Any

from layerprof.flops import formulas
from layerprof.flops.counted import Formula, Operands, Product

NONZEROS = "nonzeros of"
"""Key beside the operands: {operand's name: stored values}, for sparse ones."""
MULTIPLIED = "pairs multiplied"
"""Key beside the operands, where two are sparse: pairs of stored values that meet, which their indices decide."""


def stored_product(nonzeros: int, columns: int) -> int:
    """FLOPs of a sparse matrix by a dense one: each stored value meets `columns` elements (or rows, from the right).

    Source: definition; e.g. Gustavson, "Two Fast Algorithms for Sparse Matrices" (1978), section 3.
    """
    return 2 * nonzeros * columns


def _product(first: str, second: str) -> Formula:
    """Return the formula of (…, m, k) x (k, n); the second may be a vector."""

    def count(operands: Operands, output: Any) -> Product:
        nonzeros, a, b = operands[NONZEROS], operands[first], operands[second]
        if first in nonzeros and second in nonzeros:
            return Product(2 * operands[MULTIPLIED])
        if first in nonzeros:
            return Product(stored_product(nonzeros[first], b[-1] if len(b) > 1 else 1))
        return Product(stored_product(nonzeros[second], prod(a[:-1])))

    return count


def _linear(operands: Operands, output: Any) -> Product:
    """`input` (…, k) by the transpose of `weight` (n, k)."""
    nonzeros, inputs, weight = operands[NONZEROS], operands["input"], operands["weight"]
    if "weight" not in nonzeros:
        return Product(stored_product(nonzeros["input"], weight[0]))
    if "input" in nonzeros:
        raise KeyError(MULTIPLIED)
    return Product(stored_product(nonzeros["weight"], prod(inputs[:-1])))


def _sampled(operands: Operands, output: Any) -> Product:
    """Count the elements that the sparse operand stores: each is a sum over the inner dimension."""
    return Product(formulas.contraction((operands[NONZEROS]["self"],), operands["mat1"][-1]))


def _reduced_backward(operands: Operands, output: Any) -> Product:
    wanted = sum(map(bool, operands["output_mask"]))
    return Product(wanted * stored_product(operands[NONZEROS]["self"], operands["weight"][-1]))


FORMULAS: dict[str, Formula] = {
    **dict.fromkeys(("aten::mm", "aten::bmm"), _product("self", "mat2")),
    **dict.fromkeys(
        ("aten::addmm", "aten::_sparse_addmm", "aten::hspmm", "aten::sspaddmm"),
        _product("mat1", "mat2"),
    ),
    "aten::mv": _product("self", "vec"),
    "aten::addmv": _product("mat", "vec"),
    "aten::linear": _linear,
    "aten::_sparse_mm": _product("sparse", "dense"),
    **dict.fromkeys(("aten::_sparse_sparse_matmul", "aten::_sparse_mm_reduce_impl"), _product("self", "other")),
    "aten::sparse_sampled_addmm": _sampled,
    "aten::_sparse_mm_reduce_impl_backward": _reduced_backward,
}
"""Formula by operator, where an operand is sparse."""


# --- two of four ------------------------------------------------------------------------------------------------


def _compressed(first: str) -> Formula:
    """Return the formula of a product with `first` (…, inner / 2): two of each four values are stored and multiplied.

    So it is half of the dense product, as the hardware executes it.
    """

    def count(operands: Operands, output: Any) -> Product:
        return Product(formulas.contraction(output, operands[first][-1]))

    return count


def _compressed_with_metadata(operands: Operands, output: Any) -> Product:
    """Count by the dense matrix (inner, columns): the compressed one holds its metadata, too."""
    return Product(formulas.contraction(output, operands["dense_B"][-2]) // 2)


TWO_OF_FOUR: dict[str, Formula] = {
    "aten::_sparse_semi_structured_linear": _compressed("weight"),
    "aten::_sparse_semi_structured_mm": _compressed("mat1"),
    "aten::_sparse_semi_structured_addmm": _compressed("mat1"),
    "aten::_cslt_sparse_mm": _compressed_with_metadata,
}
