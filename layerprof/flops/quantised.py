"""Products with quantised weights in packages outside torch, told by their schemas; and what quantises, which is none.

The work is that of the product at its operands' logical shapes, whatever the packing: what a kernel does to make
numbers of codes is elementwise. Names of kernels change from package to package (bitsandbytes, quanto, torchao, GPTQ,
AWQ, Marlin, Machete, CUTLASS), what they are given hardly does.
"""

from __future__ import annotations

import re
from math import prod
from typing import Any

from layerprof.flops import formulas
from layerprof.flops.counted import Formula, Operands, Product

PRODUCT = re.compile(
    r"(^|_|[a-z0-9])(mm|gemm|gemv|matmul|mul_mat)(_|\d|$)|(^|_)(q?linear|gemm\w*|half_q_half)(_|$)", re.I
)
"""Names of kernels that multiply."""
OTHER = re.compile(
    r"group|moe|expert|sparse|_24|conv|lora|grad|backward|bwd|attn|attention|embedding|(re|pre|un)?pack(_|ed_weights?$|$)"
    r"|support|plan|prepare|schedule|workspace|shuffle|reorder|heuristic|reduce|scatter|gather|ragged|batched|rnn|lstm|gru"
    r"|(^|_)(fft|conv\d?d|dot|outer|kron|solve)(_|$)",
    re.I,
)
"""Names among them of more than one plain product, or of none: those stay without a formula."""
TWO_A_BYTE = re.compile(r"fp4_mm|mm_fp4|fp4_gemm|gemm_fp4|fp4_fp4|f4_?f4", re.I)
"""Kernels whose activations are packed as well: two numbers of 4 bits to a byte."""

SIZES = ("size_m", "size_n", "size_k")
ACTIVATIONS = (
    *("input", "inputs", "self", "a", "A", "x", "X", "_A", "mat1", "act", "activation", "activations", "hidden_states"),
    *("inp", "qx", "qa", "in_feats", "_in_feats", "lhs", "mat_a", "input_tensor"),
)
WEIGHTS = (
    *("weight", "weights", "b", "B", "w", "W", "other", "mat2", "mat_b", "mat_B", "rhs", "qweight", "q_weight", "w_q"),
    *("b_q_weight", "b_qweight", "b_weight", "b_q", "B_q", "qw", "qB", "kernel", "_kernel", "quant_weight", "weight_q"),
    *("weight_packed", "packed_weight", "packed_weights", "B_packed", "weight_data", "int_weight", "q_handle"),
)
MADE = ("out", "c", "C", "output", "D", "d", "_out_feats", "c_or_none")
"""Under which names operators take activations, the weight, and where to write the product."""

QUANTISES = re.compile(
    r"(^|_|[a-z\d])(de)?quant(i[sz]e[dr]?)?(_|\d|$)|choose_(q?params|scale)|int8_mm_dequant|(^|_)qdq(_|$)|repack|optimizer_update",
    re.I,
)
"""Names of what makes codes of numbers, or numbers of codes; and of steps of optimisers that keep codes."""


def by_operands(name: str, arguments: tuple[str, ...]) -> Formula | None:
    """Return the formula of a product outside torch, if its name and its arguments' names say that it is one."""
    own = name.rpartition("::")[2]
    if own in BY_NAME:
        return BY_NAME[own]
    if not PRODUCT.search(own) or OTHER.search(own) or own == "int8_mm_dequant":
        return None
    if set(SIZES) <= set(arguments):
        return _by_sizes
    first = next((one for one in arguments if one in ACTIVATIONS), None)
    if first is None or not any(one in WEIGHTS for one in arguments):
        return None
    return product(first, 2 if TWO_A_BYTE.search(own) else 1)


def is_plain(name: str) -> bool:
    """Tell whether an operator outside torch only quantises or the reverse: elementwise work, and no product."""
    own = name.rpartition("::")[2]
    return bool(QUANTISES.search(own)) and (own == "int8_mm_dequant" or not PRODUCT.search(own))


def product(first: str, times: int = 1) -> Formula:
    """Return the formula of a product of operand `first`, whose elements hold `times` numbers each, with a weight.

    Raises ValueError where the activation's rows are not those of the product.
    """

    def count(operands: Operands, output: Any) -> Product:
        rows, made = operands[first], made_by(operands, output)
        if not made or prod(rows[:-1]) != prod(made[:-1]):
            raise ValueError("no product of rows with a matrix")
        return Product(formulas.contraction(made, times * rows[-1]))

    return count


def made_by(operands: Operands, output: Any) -> Any:
    """Return the shape of a product: of the output, or of the operand that it is written to where none is given."""
    return output or next((operands[name] for name in MADE if isinstance(operands.get(name), tuple)), ())


def _by_sizes(operands: Operands, output: Any) -> Product:
    rows, columns, inner = (operands[name] for name in SIZES)
    return Product(formulas.matmul(rows, inner, columns))


def _with_outliers(operands: Operands, output: Any) -> Product:
    """Count 8-bit products, and once more in 16 bits those columns of the activation that stand out."""
    outliers = operands.get("outlier_cols") or (0,)
    return Product(formulas.contraction(output, operands["A"][-1] + prod(outliers)))


BY_NAME: dict[str, Formula] = {
    "int8_mixed_scaled_mm": _with_outliers,
    "gemm_half_q_half": product("a"),
    "gemv_4bit": product("A"),
    "gemm_4bit": product("A"),
}
"""Formula by name, whatever the package."""
