"""Products with quantised weights of any package, told by their schemas; and what quantises, which is no work."""

from __future__ import annotations

from typing import Any

import pytest

from layerprof.flops.counted import Product
from layerprof.flops.operators import count, formula, role

M, N, K = 6, 32, 64
WORK = 2 * M * N * K

PRODUCTS: dict[str, tuple[dict[str, Any], Any]] = {
    "bitsandbytes::gemv_4bit": ({"A": (M, K), "B": (N * K // 2, 1), "shapeB": (N, K), "absmax": (32,)}, (M, N)),
    "bitsandbytes::gemm_4bit": ({"A": (2, M // 2, K), "B": (N * K // 2, 1), "shapeB": (N, K)}, (2, M // 2, N)),
    "bitsandbytes::int8_scaled_mm": ({"A": (M, K), "B": (N, K), "row_stats": (M,), "col_stats": (N,)}, (M, N)),
    "bitsandbytes::int8_linear_matmul": ({"A": (M, K), "B": (N, K), "out": (M, N)}, ()),
    "bitsandbytes::int8_mixed_scaled_mm": (
        {"A": (M, K), "CA": (M, K), "CB": (N, K), "SCA": (M,), "SCB": (N,), "outlier_cols": None},
        (M, N),
    ),
    "quanto::qbytes_mm": ({"A": (M, K), "B": (N, K), "scales": (N, 1)}, (M, N)),
    "quanto::gemm_f16i4_awq": ({"input": (M, K), "other": (N // 4, K), "other_scale": (1, N), "rows": M}, (M, N)),
    "torchao::int_scaled_matmul": ({"a": (M, K), "b": (K, N), "scales1": (M, 1)}, (M, N)),
    "torchao::float8_linear_cpu": ({"input": (M, K), "input_scales": (M,), "weight": (1, 1, K, N)}, (M, N)),
    # vLLM's and others' kernels: `size_*` where the weight is packed beyond recognition.
    "_C::gptq_marlin_gemm": ({"a": (M, K), "b_q_weight": (4, 64), "size_m": M, "size_n": N, "size_k": K}, (M, N)),
    "_C::marlin_gemm": ({"a": (M, K), "b_q_weight": (4, 64), "size_m": M, "size_n": N, "size_k": K}, (M, N)),
    "_C::gptq_gemm": ({"a": (M, K), "b_q_weight": (K // 8, N), "b_gptq_qzeros": (1, 4)}, (M, N)),
    "_C::awq_gemm": ({"input": (M, K), "qweight": (K, N // 8), "scales": (4, N), "split_k_iters": 8}, (M, N)),
    "_C::machete_mm": ({"a": (M, K), "b_q": (K // 8, N), "b_type": 4}, (M, N)),
    "_C::cutlass_scaled_mm": ({"out": (M, N), "a": (M, K), "b": (K, N), "a_scales": (M, 1)}, ()),
    "_C::cutlass_scaled_fp4_mm": ({"out": (M, N), "a": (M, K // 2), "b": (N, K // 2)}, ()),
    "_C::ggml_mul_mat_a8": ({"W": (N, 36), "X": (M, K), "type": 2, "row": N}, (M, N)),
    "sgl_kernel::fp8_scaled_mm": ({"mat_a": (M, K), "mat_b": (K, N), "scales_a": (M,)}, (M, N)),
    "exllama::gemm_half_q_half": ({"a": (M, K), "q_handle": 7, "c": (M, N), "force_cuda": False}, ()),
    "anybodys::w8a16_linear": ({"x": (M, K), "weight": (N, K), "scale": (N,)}, (M, N)),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_is_counted_at_its_logical_shapes(name: str) -> None:
    """2 FLOPs for each of M x N x K multiply-accumulates, however the weight is packed and wherever it is written."""
    operands, output = PRODUCTS[name]
    known = formula(name, tuple(operands))
    assert known is not None
    assert role(name, tuple(operands)) == "formula"
    assert count(name, known, operands, output) == Product(WORK)


def test_columns_that_stand_out_are_multiplied_once_more() -> None:
    """LLM.int8() takes outliers out of the 8-bit product and adds theirs in 16 bits: 3 of 64 columns here."""
    name = "bitsandbytes::int8_mixed_scaled_mm"
    operands = PRODUCTS[name][0] | {"outlier_cols": (3,)}
    known = formula(name, tuple(operands))
    assert known is not None
    assert count(name, known, operands, (M, N)) == Product(WORK + 2 * M * N * 3)


@pytest.mark.parametrize(
    "name",
    [
        "bitsandbytes::int8_vectorwise_quant",
        "bitsandbytes::int8_mm_dequant",
        "bitsandbytes::dequantize_4bit",
        "bitsandbytes::quantize_blockwise",
        "bitsandbytes::optimizer_update_8bit_blockwise",
        "quanto::quantize_affine",
        "quanto::unpack",
        "torchao::choose_qparams_affine",
        "torchao::dequantize_affine",
        "_C::awq_dequantize",
        "_C::dynamic_scaled_fp8_quant",
        "_C::silu_and_mul_quant",
        "_C::gptq_marlin_repack",
    ],
)
def test_to_make_codes_and_to_unmake_them_is_no_matrix_work(name: str) -> None:
    """They are elementwise: plain, and not named as missing."""
    assert role(name, ("input", "scale")) == "plain"


@pytest.mark.parametrize(
    "name", ["_C::moe_wna16_marlin_gemm", "_C::cutlass_sparse_scaled_mm", "vllm::grouped_mm_of_experts", "x::lora_gemm"]
)
def test_products_of_many_matrices_are_not_guessed(name: str) -> None:
    """What their work is, their shapes do not tell: they are named as not counted."""
    arguments = ("a", "b", "size_m", "size_n", "size_k")
    assert formula(name, arguments) is None
    assert role(name, arguments) == "unknown"


def test_operands_of_another_product_are_named_not_counted() -> None:
    """A kernel of that name whose activation has other rows than its output is not what it was taken for."""
    known = formula("torchao::swizzle_mm", ("mat1", "mat2"))
    assert known is not None
    assert count("torchao::swizzle_mm", known, {"mat1": (2, 2, 8, 8), "mat2": (K, N)}, (M, N)) is None
