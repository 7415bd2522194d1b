"""Operators -> formulas: which formula of `formulas.py` an executed operator takes, by its name and schema. No torch.

Operands arrive under the names of the operator's schema: tensors as shapes, everything else as it is. One rule covers
most products: every output element sums as many products as the activation's last dimension is long, whatever
the packing of the weight. Attention is told by its operands (query, key, value), so that kernels of packages that
nobody listed are counted as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

from layerprof.flops import formulas

Operands = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Product:
    """A matrix product or convolution. `batched` is (batch, rows, inner, columns) of a batched product, else None.

    `rows` is how many positions of the activation it works on, for telling padded ones.
    """

    flops: int
    rows: int
    batched: tuple[int, int, int, int] | None = None


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

    @property
    def flops(self) -> int:
        """As a dense kernel executes it; of packed sequences only once their lengths are known."""
        return formulas.attention(self.rows, self.heads, self.queries * self.keys, self.width_qk, self.width_v)


Formula = Callable[[Operands, Any], Product | Attention]
Role = Literal["formula", "gather", "softmax", "unknown", "plain"]


def _contraction(first: str) -> Formula:
    def count(operands: Operands, output: Any) -> Product:
        inner = operands[first][-1]
        return Product(formulas.contraction(output, inner), prod(operands[first][:-1]))

    return count


def _batched(first: str, second: str) -> Formula:
    def count(operands: Operands, output: Any) -> Product:
        (batch, rows, inner), columns = operands[first], operands[second][-1]
        return Product(formulas.matmul(rows, inner, columns, batch), batch * rows, (batch, rows, inner, columns))

    return count


def _grouped(first: str, second: str) -> Formula:
    def count(operands: Operands, output: Any) -> Product:
        a, b = operands[first], operands[second]
        # Two plain matrices: the groups cut the inner dimension, so all groups together do one product.
        work = formulas.matmul(a[0], a[1], b[1]) if len(a) == len(b) == 2 else formulas.contraction(output, a[-1])
        return Product(work, prod(a[:-1]))

    return count


def _summed_batch(operands: Operands, output: Any) -> Product:
    (batch, rows, inner), columns = operands["batch1"], operands["batch2"][-1]
    return Product(formulas.matmul(rows, inner, columns, batch), batch * rows)


def _convolution(operands: Operands, output: Any) -> Product:
    inputs = next(operands[name] for name in ("input", "self", "X") if name in operands)
    work = formulas.convolution(inputs, operands["weight"], output, transposed=bool(operands.get("transposed", False)))
    channels = output[1] if len(output) > 1 else 1
    return Product(work, prod(output) // max(channels, 1))


def _attention(heads_first: bool) -> Formula:
    def count(operands: Operands, output: Any) -> Attention:
        q, k, v = (operands[long] if long in operands else operands[long[0]] for long in ("query", "key", "value"))
        if (len(q) == 3 and not heads_first) or any(_is_shape(operands.get(name)) for name in CUMULATIVE_Q):
            return Attention(1, q[-2], prod(q[:-2]), prod(k[:-2]), q[-1], v[-1], packed=True)
        if heads_first:
            return Attention(prod(q[:-3]), q[-3] if len(q) > 2 else 1, q[-2], k[-2], q[-1], v[-1])
        return Attention(prod(q[:-3]), q[-2], q[-3], k[-3], q[-1], v[-1])

    return count


def _is_shape(value: Any) -> bool:
    return isinstance(value, tuple)


CUMULATIVE_Q = ("cum_seq_q", "cu_seqlens_q", "cu_seq_q", "seqstart_q")
CUMULATIVE_K = ("cum_seq_k", "cu_seqlens_k", "cu_seq_k", "seqstart_k")
LONGEST_K = ("max_k", "max_seqlen_k", "max_seqlen_k_")
MASKS = ("attn_mask", "attn_bias", "bias", "mask")

FORMULAS: dict[str, Formula] = {
    **dict.fromkeys(
        (
            "aten::mm",
            "aten::mv",
            "aten::dot",
            "aten::vdot",
            "aten::_int_mm",
            "aten::_scaled_mm",
            "aten::_scaled_mm_v2",
            "aten::_weight_int4pack_mm",
            "aten::_weight_int4pack_mm_for_cpu",
            "aten::_weight_int4pack_mm_with_scales_and_zeros",
            "aten::_weight_int8pack_mm",
            "aten::mkldnn_linear",
            "aten::_mixed_dtypes_linear",
        ),
        _contraction("self"),
    ),
    "aten::linear": _contraction("input"),
    "aten::addmm": _contraction("mat1"),
    "aten::_addmm_activation": _contraction("mat1"),
    "aten::addmv": _contraction("mat"),
    "aten::_dyn_quant_matmul_4bit": _contraction("inp"),
    "aten::bmm": _batched("self", "mat2"),
    "aten::baddbmm": _batched("batch1", "batch2"),
    "aten::addbmm": _summed_batch,
    "aten::_grouped_mm": _grouped("self", "mat2"),
    "aten::_scaled_grouped_mm": _grouped("self", "mat2"),
    "aten::_scaled_grouped_mm_v2": _grouped("self", "mat2"),
    "transformers::grouped_mm_fallback": _grouped("input", "weight"),
    "mkldnn::_linear_pointwise": _contraction("X"),
    "mkl::_mkl_linear": _contraction("X"),
    "quantized::linear": _contraction("X"),
    "quantized::linear_relu": _contraction("X"),
    "quantized::linear_dynamic": _contraction("X"),
    "quantized::linear_dynamic_fp16": _contraction("X"),
    "onednn::qlinear_pointwise": _contraction("qx"),
    "bitsandbytes::int8_linear_matmul": _contraction("A"),
    "bitsandbytes::int8_scaled_mm": _contraction("A"),
    "bitsandbytes::gemv_4bit": _contraction("A"),
    **dict.fromkeys(
        (
            "aten::convolution",
            "aten::_convolution",
            "aten::convolution_overrideable",
            "aten::conv1d",
            "aten::conv2d",
            "aten::conv3d",
            "aten::cudnn_convolution",
            "aten::cudnn_convolution_relu",
            "aten::miopen_convolution",
            "aten::mkldnn_convolution",
            "aten::thnn_conv2d",
            "aten::_slow_conv2d_forward",
            "aten::slow_conv3d_forward",
            "aten::_conv_depthwise2d",
            "aten::conv_depthwise3d",
            "aten::_nnpack_spatial_convolution",
            "mkldnn::_convolution_pointwise",
        ),
        _convolution,
    ),
    **dict.fromkeys(
        (
            "aten::scaled_dot_product_attention",
            "aten::_scaled_dot_product_attention_math",
            "aten::_scaled_dot_product_attention_math_for_mps",
            "aten::_scaled_dot_product_flash_attention",
            "aten::_scaled_dot_product_flash_attention_for_cpu",
            "aten::_scaled_dot_product_efficient_attention",
            "aten::_scaled_dot_product_cudnn_attention",
            "aten::_scaled_dot_product_fused_attention_overrideable",
            "aten::_cudnn_attention_forward",
            "flex_attention",
        ),
        _attention(heads_first=True),
    ),
    "aten::_flash_attention_forward": _attention(heads_first=False),
    "aten::_efficient_attention_forward": _attention(heads_first=False),
}
"""Formula by operator name; `flex_attention` is torch's higher-order operator of that name."""

GROUPED = frozenset({"aten::_grouped_mm", "transformers::grouped_mm_fallback"})
"""Products of rows sorted by group with one matrix of a stack each; their `offs` are where the groups end."""

GATHERS = frozenset({"aten::embedding", "aten::index", "aten::index_select", "aten::gather", "aten::embedding_bag"})
SOFTMAXES = frozenset({"aten::_softmax", "aten::_safe_softmax", "aten::softmax"})
KNOWN = frozenset(
    {"aten", "prim", "prims", "rngprims", "profiler", "torchvision", "image", "inductor", "mkldnn", "cuda", "streams"}
    | {"c10d", "c10d_functional", "_c10d_functional", "fsdp", "symm_mem"}
)
"""Namespaces in which an operator without a formula is matrix work only if its name says so."""

MATRIX_WORK = re.compile(
    r"(^|_|[a-z])(mm|bmm|matmul|gemm|gemv|qlinear|rnn|gru|lstm)(_|\d|$)|(^|_)(linear|mv|dot|inner|trilinear|bilinear"
    r"|einsum|cdist|attn|attention|fft_\w+)(_|$)|conv(_?(1|2|3)d|olution|_tbc|_transpose)|(^|_)sdpa|multi_head"
)
NOT_WORK = re.compile(
    r"prepack|unpack|pack_|reorder|backward|_choice|plan_cache|flatten_weight|_cell$|upsample|fftfreq|fftshift"
)


def role(name: str, arguments: tuple[str, ...]) -> Role:
    """Say what an operator is to the count, from its full name (`namespace::name`) and its schema's argument names."""
    if formula(name, arguments) is not None:
        return "formula"
    if name in GATHERS:
        return "gather"
    if name in SOFTMAXES:
        return "softmax"
    space, _, own = name.rpartition("::")
    if NOT_WORK.search(own):
        return "plain"
    return "unknown" if (space and space not in KNOWN) or MATRIX_WORK.search(own) else "plain"


def formula(name: str, arguments: tuple[str, ...]) -> Formula | None:
    """Find an operator's formula; attention kernels outside torch are told by their operands' names."""
    known = FORMULAS.get(name) or FORMULAS.get(name.removesuffix("_"))
    if known is not None or name.startswith("aten::"):
        return known
    operands = set(arguments)
    if {"query", "key", "value"} <= operands or {"q", "k", "v"} <= operands:
        return _attention(heads_first="sdpa" in name or "scaled_dot_product" in name)
    return None
