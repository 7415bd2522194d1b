"""Formulas against definitions and hand counts; operators find the right formula."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerprof.flops import formulas
from layerprof.flops.counted import Attention, Product
from layerprof.flops.operators import formula

# --- formulas ---------------------------------------------------------------------------------------------------


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(1, 4))
def test_a_matrix_product_is_two_flops_per_multiply_accumulate(m: int, k: int, n: int, b: int) -> None:
    """Every output element sums k products."""
    assert formulas.matmul(m, k, n, b) == 2 * sum(1 for _ in product(range(b), range(m), range(n), range(k)))
    assert formulas.contraction((b, m, n), k) == formulas.matmul(m, k, n, b)


def test_a_convolution_by_hand() -> None:
    """8 channels from 3 by a 2x2 kernel over a 4x5 output: 4*5*8 outputs of 3*2*2 products, for 2 images."""
    assert formulas.convolution((2, 3, 8, 10), (8, 3, 2, 2), (2, 8, 4, 5)) == 2 * 2 * (4 * 5 * 8) * (3 * 2 * 2)


def test_groups_divide_the_work_of_a_convolution() -> None:
    """A depthwise convolution has one input channel per output channel."""
    assert formulas.convolution((1, 8, 6), (8, 1, 3), (1, 8, 6)) == 2 * 8 * 6 * 3


def test_a_transposed_convolution_spreads_its_inputs() -> None:
    """Each of 5*5 inputs of 4 channels meets 6 output channels times a 3x3 kernel."""
    weight, output = (4, 6, 3, 3), (1, 6, 11, 11)
    assert formulas.convolution((1, 4, 5, 5), weight, output, transposed=True) == 2 * 25 * 4 * 6 * 9


def test_an_unbatched_convolution_has_no_row_dimension() -> None:
    """One image without a batch dimension is one image."""
    assert formulas.convolution((3, 8, 8), (8, 3, 2, 2), (8, 4, 4)) == formulas.convolution(
        (1, 3, 8, 8), (8, 3, 2, 2), (1, 8, 4, 4)
    )


@pytest.mark.parametrize(("width_qk", "width_v"), [(16, 16), (12, 8), (8, 12)])
def test_attention_is_scores_and_weighted_values(width_qk: int, width_v: int) -> None:
    """A score sums `width_qk` products; a value of a query sums as many as there are keys, `width_v` times a query."""
    rows, heads, queries, keys = 2, 4, 7, 11
    multiplied = sum(1 for _ in product(range(rows), range(heads), range(queries), range(keys), range(width_qk)))
    multiplied += sum(1 for _ in product(range(rows), range(heads), range(queries), range(width_v), range(keys)))
    assert formulas.attention(rows, heads, queries * keys, width_qk, width_v) == 2 * multiplied


@given(st.integers(1, 12), st.integers(0, 12), st.none() | st.integers(1, 8), st.booleans())
def test_visible_pairs_are_those_a_causal_mask_shows(queries: int, before: int, window: int | None, end: bool) -> None:
    """Query i stands at its position and sees itself and what is before, the newest `window` of them."""
    keys = queries + before
    first = before if end else 0
    expected = sum(
        1
        for i, k in product(range(queries), range(keys))
        if k <= first + i and (window is None or k > first + i - window)
    )
    assert formulas.visible_pairs(queries, keys, window=window, aligned_to_end=end) == expected


def test_packed_sequences_attend_within_themselves() -> None:
    """Windows of 4, 4 and 2 patches: 16 + 16 + 4 pairs."""
    assert formulas.varlen_pairs([4, 4, 2], [4, 4, 2]) == 36


# --- operators --------------------------------------------------------------------------------------------------


def count(name: str, operands: dict[str, Any], output: tuple[int, ...] = ()) -> Product | Attention:
    """Apply an operator's formula."""
    found = formula(name, tuple(operands))
    assert found is not None
    return found(operands, output)


@pytest.mark.parametrize(
    ("name", "operands", "output", "expected"),
    [
        ("aten::mm", {"self": (3, 4), "mat2": (4, 5)}, (3, 5), 2 * 3 * 4 * 5),
        ("aten::addmm", {"self": (5,), "mat1": (3, 4), "mat2": (4, 5)}, (3, 5), 2 * 3 * 4 * 5),
        ("aten::addmm_", {"self": (3, 5), "mat1": (3, 4), "mat2": (4, 5)}, (3, 5), 2 * 3 * 4 * 5),
        ("aten::bmm", {"self": (2, 3, 4), "mat2": (2, 4, 5)}, (2, 3, 5), 2 * 2 * 3 * 4 * 5),
        ("aten::baddbmm", {"self": (1,), "batch1": (2, 3, 4), "batch2": (2, 4, 5)}, (2, 3, 5), 2 * 2 * 3 * 4 * 5),
        ("aten::addbmm", {"self": (3, 5), "batch1": (2, 3, 4), "batch2": (2, 4, 5)}, (3, 5), 2 * 2 * 3 * 4 * 5),
        ("aten::linear", {"input": (2, 3, 4), "weight": (5, 4)}, (2, 3, 5), 2 * 2 * 3 * 4 * 5),
        ("aten::mv", {"self": (3, 4), "vec": (4,)}, (3,), 2 * 3 * 4),
        ("aten::dot", {"self": (4,), "tensor": (4,)}, (), 2 * 4),
        ("aten::_int_mm", {"self": (3, 4), "mat2": (4, 5)}, (3, 5), 2 * 3 * 4 * 5),
        ("aten::_weight_int8pack_mm", {"self": (3, 4), "mat2": (5, 4)}, (3, 5), 2 * 3 * 4 * 5),
        ("aten::_weight_int4pack_mm", {"self": (3, 64), "mat2": (1, 1, 32, 4)}, (3, 8), 2 * 3 * 64 * 8),
        ("aten::_grouped_mm", {"self": (7, 4), "mat2": (3, 4, 5)}, (7, 5), 2 * 7 * 4 * 5),
        ("aten::_grouped_mm", {"self": (3, 8), "mat2": (8, 5)}, (2, 3, 5), 2 * 3 * 8 * 5),
        ("quantized::linear_dynamic", {"X": (3, 4)}, (3, 5), 2 * 3 * 4 * 5),
        ("bitsandbytes::gemv_4bit", {"A": (1, 1, 64), "B": (2048, 1)}, (1, 1, 64), 2 * 64 * 64),
    ],
)  # fmt: skip
def test_products_by_hand(name: str, operands: dict[str, Any], output: tuple[int, ...], expected: int) -> None:
    """Whatever the packing of the weight, an output element sums as many products as the activation is wide."""
    assert count(name, operands, output).flops == expected


BHSD = {"query": (2, 8, 5, 16), "key": (2, 2, 9, 16), "value": (2, 2, 9, 16)}
BSHD = {"query": (2, 5, 8, 16), "key": (2, 9, 2, 16), "value": (2, 9, 2, 16)}


@pytest.mark.parametrize(
    ("name", "operands"),
    [
        *(
            (f"aten::_scaled_dot_product_{kernel}", BHSD)
            for kernel in (
                "attention_math",
                "flash_attention",
                "flash_attention_for_cpu",
                "efficient_attention",
                "cudnn_attention",
                "fused_attention_overrideable",
            )
        ),
        ("aten::scaled_dot_product_attention", BHSD),
        ("flex_attention", BHSD),
        ("aten::_flash_attention_forward", BSHD | {"cum_seq_q": None}),
        ("aten::_efficient_attention_forward", BSHD | {"cu_seqlens_q": None}),
        ("flash_attn::_flash_attn_forward", {"q": BSHD["query"], "k": BSHD["key"], "v": BSHD["value"]}),
        ("_flash_attn3_abc::fwd", {"q": BSHD["query"], "k": BSHD["key"], "v": BSHD["value"]}),
        ("xformers_flash::flash_fwd", BSHD),
    ],
)
def test_every_attention_kernel_counts_the_same(name: str, operands: dict[str, Any]) -> None:
    """Grouped key heads do not lower the work; the layout is each kernel's own."""
    assert count(name, operands, (2, 8, 5, 16)).flops == 4 * 2 * 8 * 5 * 9 * 16


UNEQUAL = {"query": (2, 8, 5, 24), "key": (2, 8, 9, 24), "value": (2, 8, 9, 16)}
UNEQUAL_BSHD = {"q": (2, 5, 8, 24), "k": (2, 9, 8, 24), "v": (2, 9, 8, 16)}
PACKED = {"q": (14, 8, 24), "k": (14, 8, 24), "v": (14, 8, 16), "cu_seqlens_q": (4,), "cu_seqlens_k": (4,)}


def test_keys_wider_than_values_give_attention_two_widths() -> None:
    """As in latent attention: 2 x 8 heads, 5 x 9 pairs, 24 products a score and 16 a weighted value."""
    for name, operands in (
        ("aten::scaled_dot_product_attention", UNEQUAL),
        ("flash_attn::_flash_attn_forward", UNEQUAL_BSHD),
    ):
        found = count(name, operands, (2, 8, 5, 16))
        assert found == Attention(2, 8, 5, 9, 24, 16)
        assert found.flops == 2 * 2 * 8 * 5 * 9 * (24 + 16)
    packed = count("flash_attn::_flash_attn_varlen_forward", PACKED)
    assert packed == Attention(1, 8, 14, 14, 24, 16, packed=True)


def test_packed_attention_gives_sums_over_its_sequences() -> None:
    """With cumulative lengths there are no rows: 14 queries and 14 keys in all."""
    operands = {"q": (14, 8, 16), "k": (14, 2, 16), "v": (14, 2, 16), "cu_seqlens_q": (4,), "cu_seqlens_k": (4,)}
    found = count("flash_attn::_flash_attn_varlen_forward", operands)
    assert found == Attention(1, 8, 14, 14, 16, 16, packed=True)


# --- kernels that only some machines run --------------------------------------------------------------------------

QKV = {"query": (2, 8, 5, 16), "key": (2, 8, 9, 16), "value": (2, 8, 9, 12)}
PAIRS = 2 * 8 * 5 * 9
LSTM_WEIGHTS = ((12, 4), (12, 3), (12,), (12,)) * 2


@pytest.mark.parametrize(
    "name",
    [
        *(
            f"aten::_scaled_dot_product_{kernel}_backward"
            for kernel in (
                "flash_attention",
                "flash_attention_for_cpu",
                "efficient_attention",
                "cudnn_attention",
                "fused_attention_overrideable",
            )
        ),
        "aten::_cudnn_attention_backward",
    ],
)
def test_every_attention_s_backward_counts_five_products(name: str) -> None:
    """Three over the width of queries and keys, two over that of values; an undefined list of lengths is none."""
    assert count(name, QKV | {"cum_seq_q": (0,)}).flops == 2 * PAIRS * (3 * 16 + 2 * 12)


@pytest.mark.parametrize(
    "name",
    [
        "aten::_flash_attention_backward",
        "aten::_efficient_attention_backward",
        "flash_attn::_flash_attn_backward",
        "_flash_attn3_abc::bwd",
    ],
)
def test_backward_kernels_with_positions_first(name: str) -> None:
    """(rows, positions, heads, width), or packed sequences behind one another."""
    operands = {"query": (2, 5, 8, 16), "key": (2, 9, 8, 16), "value": (2, 9, 8, 16)}
    assert count(name, operands).flops == 10 * PAIRS * 16
    packed = dict.fromkeys(operands, (14, 8, 16)) | {"cu_seqlens_q": (4,)}
    assert count(name, packed) == Attention(1, 8, 14, 14, 16, 16, packed=True, backward=True)


@pytest.mark.parametrize(
    ("name", "operands", "output", "expected"),
    [
        ("aten::_cudnn_rnn", {"input": (5, 2, 4), "weight": LSTM_WEIGHTS}, (5, 2, 6), 2 * 10 * 2 * 12 * 7),
        (
            "aten::_cudnn_rnn_backward",
            {"input": (5, 2, 4), "weight": LSTM_WEIGHTS, "output_mask": (True, True, True, True)},
            (5, 2, 4),
            2 * 2 * 10 * 2 * 12 * 7,
        ),
        (
            "aten::_cudnn_rnn_backward",
            {"input": (5, 2, 4), "weight": LSTM_WEIGHTS, "output_mask": (True, True, True, False)},
            (5, 2, 4),
            2 * 10 * 2 * 12 * 7,
        ),
        ("aten::lstm", {"data": (8, 4), "params": ((12, 4), (12, 3))}, (8, 3), 2 * 8 * 12 * 7),
        ("aten::conv_tbc", {"self": (5, 2, 3), "weight": (2, 3, 4)}, (4, 2, 4), 2 * 4 * 2 * 4 * 2 * 3),
        ("aten::mkldnn_linear_backward_input", {"grad_output": (3, 5), "weight": (5, 4)}, (3, 4), 2 * 3 * 5 * 4),
        (
            "aten::mkldnn_linear_backward_weights",
            {"grad_output": (3, 5), "input": (3, 4), "weight": (5, 4)},
            (5, 4),
            2 * 3 * 5 * 4,
        ),
        (
            "aten::linear_backward",
            {"self": (3, 4), "grad_output": (3, 5), "weight": (5, 4), "output_mask": (True, False, True)},
            (3, 4),
            2 * 3 * 5 * 4,
        ),
        ("aten::_sparse_semi_structured_linear", {"input": (3, 64), "weight": (8, 32)}, (3, 8), 2 * 3 * 8 * 32),
        ("aten::_sparse_semi_structured_mm", {"mat1": (8, 32), "mat2": (64, 3)}, (8, 3), 2 * 3 * 8 * 32),
        ("aten::_cslt_sparse_mm", {"compressed_A": (9, 32), "dense_B": (64, 3)}, (8, 3), 2 * 3 * 8 * 32),
        ("bitsandbytes::gemm_4bit", {"A": (3, 64), "B": (256, 1)}, (3, 8), 2 * 3 * 64 * 8),
        (
            "bitsandbytes::int8_mixed_scaled_mm",
            {"A": (3, 64), "CA": (3, 64), "CB": (8, 64), "outlier_cols": (2,)},
            (3, 8),
            2 * 3 * (64 + 2) * 8,
        ),
        (
            "aten::_native_multi_head_attention",
            {"query": (3, 5, 8), "key": (3, 7, 8), "value": (3, 7, 8), "embed_dim": 8},
            (3, 5, 8),
            2 * 8 * 8 * (2 * 15 + 2 * 21) + 4 * 3 * 5 * 7 * 8,
        ),
    ],
)
def test_products_of_other_machines_by_hand(
    name: str, operands: dict[str, Any], output: tuple[int, ...], expected: int
) -> None:
    """Networks of cuDNN by their weights, 2:4 products by the half that is stored, 8 bits with their outliers."""
    assert count(name, operands, output).flops == expected
