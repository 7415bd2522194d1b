"""Fused attention, forward and backward, and the encoder layers that torch runs as one operator.

Attention is told by its operands (query, key, value), so that kernels of packages that nobody listed are counted, too.
"""

from __future__ import annotations

from math import prod
from typing import Any

from layerprof.flops import formulas
from layerprof.flops.counted import Attention, Formula, Operands, Product, given
from layerprof.flops.ragged import LENGTHS, Sizes

CUMULATIVE_Q = ("cum_seq_q", "cu_seqlens_q", "cu_seq_q", "seqstart_q")
CUMULATIVE_K = ("cum_seq_k", "cu_seqlens_k", "cu_seq_k", "seqstart_k")
LONGEST_K = ("max_k", "max_seqlen_k", "max_seqlen_k_")
MASKS = ("attn_mask", "attn_bias", "bias", "mask")


def attention(*, heads_first: bool, backward: bool = False) -> Formula:
    """Return the formula of kernels that take (rows, heads, positions, width), or the positions before the heads.

    Those with cumulative lengths take all sequences behind one another: (positions, heads, width).
    """

    def count(operands: Operands, output: Any) -> Attention:
        q, k, v = (given(operands, long, long[0]) for long in ("query", "key", "value"))
        lengths = any(isinstance(operands.get(name), tuple) for name in CUMULATIVE_Q)
        if (lengths and not heads_first) or (len(q) == 3 and (lengths or not heads_first)):
            return Attention(1, q[-2], prod(q[:-2]), prod(k[:-2]), q[-1], v[-1], packed=True, backward=backward)
        if heads_first:
            heads = q[-3] if len(q) > 2 else 1
            return Attention(prod(q[:-3]), heads, q[-2], k[-2], q[-1], v[-1], backward=backward)
        return Attention(prod(q[:-3]), q[-2], q[-3], k[-3], q[-1], v[-1], backward=backward)

    return count


def by_operands(name: str, arguments: tuple[str, ...]) -> Formula | None:
    """Return the formula of a kernel outside torch if its arguments' names say that it is attention."""
    operands = set(arguments)
    if not ({"query", "key", "value"} <= operands or {"q", "k", "v"} <= operands):
        return None
    heads_first = "sdpa" in name or "scaled_dot_product" in name
    return attention(heads_first=heads_first, backward="backward" in name or "bwd" in name)


# --- attention with its projections ------------------------------------------------------------------------------


def projected_attention(queries: tuple[int, ...], keys: tuple[int, ...], width: int) -> int:
    """FLOPs of attention with its four square projections; `queries` and `keys` are each row's length.

    Products with the weights take real positions; scores and values are padded to the longest row, as torch pads them.
    """
    projections = 2 * width * width * (2 * sum(queries) + 2 * sum(keys))
    return projections + formulas.attention(
        len(queries), 1, max(queries, default=0) * max(keys, default=0), width, width
    )


def _lengths(operands: Operands, name: str) -> tuple[int, ...]:
    """Return each row's length, of a (rows, positions, width) operand or of a nested one."""
    nested: dict[str, Sizes] = operands.get(LENGTHS, {})
    if name in nested:
        return tuple(size[0] for size in nested[name])
    shape: tuple[int, ...] = operands[name]
    return (shape[-2],) * prod(shape[:-2])


def _multi_head(operands: Operands, output: Any) -> Product:
    lengths = _lengths(operands, "query"), _lengths(operands, "key")
    return Product(projected_attention(*lengths, operands["embed_dim"]), attended=_padded(lengths[1]))


def _encoder_layer(operands: Operands, output: Any) -> Product:
    """Attention with its projections, then two products with the feed-forward weights."""
    lengths = _lengths(operands, "src")
    feed_forward = 2 * sum(lengths) * (prod(operands["ffn_weight_1"]) + prod(operands["ffn_weight_2"]))
    attention = projected_attention(lengths, lengths, operands["embed_dim"])
    return Product(attention + feed_forward, attended=_padded(lengths))


def _padded(lengths: tuple[int, ...]) -> int:
    """Positions of rows that are padded to the longest."""
    return len(lengths) * max(lengths, default=0)


_HEADS_FIRST = (
    "aten::_scaled_dot_product_flash_attention",
    "aten::_scaled_dot_product_flash_attention_for_cpu",
    "aten::_scaled_dot_product_efficient_attention",
    "aten::_scaled_dot_product_cudnn_attention",
    "aten::_scaled_dot_product_fused_attention_overrideable",
)

FORMULAS: dict[str, Formula] = {
    **dict.fromkeys(
        (
            *_HEADS_FIRST,
            "aten::scaled_dot_product_attention",
            "aten::_scaled_dot_product_attention_math",
            "aten::_scaled_dot_product_attention_math_for_mps",
            "aten::_cudnn_attention_forward",
            "aten::_triton_scaled_dot_attention",
            "flex_attention",
        ),
        attention(heads_first=True),
    ),
    **dict.fromkeys(
        (
            "aten::_flash_attention_forward",
            "aten::_flash_attention_forward_no_dropout_inplace",
            "aten::_efficient_attention_forward",
        ),
        attention(heads_first=False),
    ),
    **dict.fromkeys(
        (*(f"{name}_backward" for name in _HEADS_FIRST), "aten::_cudnn_attention_backward"),
        attention(heads_first=True, backward=True),
    ),
    **dict.fromkeys(
        ("aten::_flash_attention_backward", "aten::_efficient_attention_backward"),
        attention(heads_first=False, backward=True),
    ),
    **dict.fromkeys(("aten::_native_multi_head_attention", "aten::_triton_multi_head_attention"), _multi_head),
    "aten::_transformer_encoder_layer_fwd": _encoder_layer,
}
"""Formula by operator name; `flex_attention` is torch's higher-order operator of that name."""
