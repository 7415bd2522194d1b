"""Formulas against definitions, hand counts and published figures; operators find the right formula."""

from __future__ import annotations

import json
from importlib.resources import files
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerprof.flops import formulas
from layerprof.flops.operators import Attention, Product, formula, role

CONFIG: dict[str, Any] = json.loads((files("layerprof.models") / "qwen2_5_vl_3b.json").read_text())


def square(pixels: int, images: int = 1) -> list[tuple[int, int, int]]:
    """Return the patch grids of square images."""
    return [(1, pixels // 14, pixels // 14)] * images


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


def test_attention_is_scores_and_weighted_values() -> None:
    """4 B Hq Sq Sk D, as two batched products of the same size."""
    scores = formulas.matmul(7, 16, 11, batch=2 * 4)
    values = formulas.matmul(7, 11, 16, batch=2 * 4)
    assert formulas.attention(2, 4, 7 * 11, 16, 16) == scores + values == 4 * 2 * 4 * 7 * 11 * 16


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


# --- the closed form of Qwen2.5-VL-3B, against published and independently counted figures ----------------------------


@pytest.mark.parametrize(
    ("rows", "pixels", "text", "expected"),
    [
        (1, 224, 100, 1_250_302_099_456),
        (3, 224, 70, 3_243_580_981_248),
        (2, 336, 70, 3_903_461_261_312),
        (1, 448, 70, 3_183_870_607_360),
    ],
)
def test_the_closed_form_gives_the_counted_prefill(rows: int, pixels: int, text: int, expected: int) -> None:
    """Figures that FlopCounterMode counted on the full-size model with eager attention."""
    prompt = text + (pixels // 28) ** 2
    assert formulas.qwen2_5_vl_closed_form(CONFIG, square(pixels, rows), rows, prompt).prefill == expected


def test_the_golden_numbers_at_448_pixels() -> None:
    """3160.91 GFLOP of prefill at 322 tokens, 6.267 for one decode token at KV length 323, and their parts."""
    form = formulas.qwen2_5_vl_closed_form(CONFIG, square(448), 1, 322, new_tokens=2)
    giga = {
        "prefill": form.prefill,
        "vision": form.vision,
        "patch_embed": form.patch_embed,
        "merger": form.merger,
        "windowed": form.vision_blocks[0],
        "full": form.vision_blocks[7],
        "layer": form.prefill_layers[0],
        "decode": form.decode,
        "decode layer": form.decode_layers[0],
        "head": form.lm_head,
    }
    assert {name: round(value / 1e9, 3) for name, value in giga.items()} == {
        "prefill": 3160.91,
        "vision": 1342.911,
        "patch_embed": 3.083,
        "merger": 18.79,
        "windowed": 40.653,
        "full": 45.686,
        "layer": 50.483,
        "decode": 6.267,
        "decode layer": 0.157,
        "head": 0.622,
    }


def test_the_closed_form_grows_with_the_answer() -> None:
    """From 1 to 128 new tokens at 224 pixels: 1.250 to 2.043 TFLOP."""
    totals = [formulas.qwen2_5_vl_closed_form(CONFIG, square(224), 1, 164, n).total for n in (1, 16, 32, 64, 100, 128)]
    assert [round(total / 1e12, 3) for total in totals] == [1.25, 1.344, 1.443, 1.643, 1.868, 2.043]


def test_windows_at_the_edges_are_smaller() -> None:
    """At 140 pixels, 5 merged patches a side: windows of 64, 16, 16 and 4 patches attend among themselves."""
    form = formulas.qwen2_5_vl_closed_form(CONFIG, square(140), 1, 1)
    linear = 39_372_800 * 100
    assert form.vision_blocks[0] == linear + 4 * 1280 * (64**2 + 16**2 + 16**2 + 4**2)
    assert form.vision_blocks[7] == linear + 4 * 1280 * 100**2


def test_the_bundled_configuration_has_the_published_number_of_parameters() -> None:
    """Counted from the configuration by hand: 3,754,622,976 with the head tied to the embedding."""
    text, vision = CONFIG["text_config"], CONFIG["vision_config"]
    d, m, kv = text["hidden_size"], text["intermediate_size"], 2 * 128
    layer = 2 * d * d + 2 * d * kv + d + 2 * kv + 3 * d * m + 2 * d
    language = text["vocab_size"] * d + text["num_hidden_layers"] * layer + d
    v, n = vision["hidden_size"], vision["intermediate_size"]
    block = 4 * v * v + 4 * v + 3 * v * n + 2 * n + v + 2 * v
    merger = v + (4 * v) ** 2 + 4 * v + 4 * v * d + d
    assert language + vision["depth"] * block + merger + 3 * 2 * 14 * 14 * v == 3_754_622_976


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


def test_packed_attention_gives_sums_over_its_sequences() -> None:
    """With cumulative lengths there are no rows: 14 queries and 14 keys in all."""
    operands = {"q": (14, 8, 16), "k": (14, 2, 16), "v": (14, 2, 16), "cu_seqlens_q": (4,), "cu_seqlens_k": (4,)}
    found = count("flash_attn::_flash_attn_varlen_forward", operands)
    assert found == Attention(1, 8, 14, 14, 16, 16, packed=True)


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("aten::mm", ("self", "mat2"), "formula"),
        ("aten::_cdist_forward", ("x1", "x2"), "unknown"),
        ("aten::mkldnn_rnn_layer", ("input",), "unknown"),
        ("aten::_fft_r2c", ("self",), "unknown"),
        ("aten::_sparse_semi_structured_linear", ("input", "weight"), "unknown"),
        ("mykernels::fused_mlp", ("x", "w1", "w2"), "unknown"),
        ("gptq::marlin_gemm", ("a", "b_q_weight"), "unknown"),
        ("aten::add", ("self", "other"), "plain"),
        ("aten::silu", ("self",), "plain"),
        ("aten::native_layer_norm", ("input",), "plain"),
        ("aten::upsample_bilinear2d", ("input",), "plain"),
        ("aten::cumsum", ("self",), "plain"),
        ("aten::gammaln", ("self",), "plain"),
        ("aten::addcmul", ("self",), "plain"),
        ("aten::index_add", ("self",), "plain"),
        ("prim::device", ("a",), "plain"),
        ("profiler::_record_function_enter_new", ("name",), "plain"),
        ("c10d::allreduce_", ("tensors",), "plain"),
        ("torchvision::deform_conv2d", ("input", "weight"), "unknown"),
        ("aten::embedding", ("weight", "indices"), "gather"),
        ("aten::_softmax", ("self",), "softmax"),
    ],
)
def test_what_may_be_matrix_work_without_a_formula_is_told_apart(
    name: str, arguments: tuple[str, ...], expected: str
) -> None:
    """Nothing that multiplies matrices passes silently, and elementwise operators are no noise."""
    assert role(name, arguments) == expected
