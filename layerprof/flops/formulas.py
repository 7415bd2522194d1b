"""Shapes -> FLOPs and bytes: pure formulas, 2 FLOPs per multiply-accumulate, matrix work only.

Attention is counted as executed by a dense kernel: every query against every key, causal halving not applied.
`visible_pairs` gives what a causal mask leaves, for the column beside it. Elementwise work counts as bytes, not FLOPs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod

Shape = Sequence[int]

CONVENTION = "2 FLOPs per multiply-accumulate, causal attention not halved, padding counted, matrix work only"
"""What every run says of its FLOPs."""


def matmul(rows: int, inner: int, columns: int, batch: int = 1) -> int:
    """FLOPs of `batch` products (rows, inner) x (inner, columns): one multiply-accumulate per output and inner index.

    Source: definition; the same as torch.utils.flop_counter's `mm_flop` and `bmm_flop`.
    """
    return 2 * batch * rows * inner * columns


def contraction(output: Shape, inner: int) -> int:
    """FLOPs of any product whose every output element sums `inner` products: linear, matmul, mv, dot, grouped mm."""
    return 2 * prod(output) * inner


def convolution(inputs: Shape, weight: Shape, output: Shape, *, transposed: bool = False) -> int:
    """FLOPs of a convolution of any dimension; groups show in the weight's shape.

    `inputs` (N, C_in, *spatial), `weight` (C_out, C_in / groups, *kernel), `output` (N, C_out, *spatial); a transposed
    one has weight (C_in, C_out / groups, *kernel) and spreads every input element over the kernel instead.
    Source: torch.nn.Conv2d's definition; the same as torch.utils.flop_counter's `conv_flop_count`.
    """
    unbatched = len(inputs) < len(weight)
    places = inputs if transposed else output
    spatial = places[1:] if unbatched else (places[0], *places[2:])
    return 2 * prod(spatial) * prod(weight)


def attention(rows: int, heads: int, pairs: int, width_qk: int, width_v: int) -> int:
    """FLOPs of scores and weighted values: 2 x rows x heads x pairs x (width_qk + width_v).

    `heads` are query heads (grouped key heads do not lower the work), `pairs` the (query, key) pairs that are computed:
    queries x keys for a dense kernel. With equal widths this is 4 x B x Hq x Sq x Sk x D.
    """
    return 2 * rows * heads * pairs * (width_qk + width_v)


def attention_backward(rows: int, heads: int, pairs: int, width_qk: int, width_v: int) -> int:
    """FLOPs of fused attention's backward: five products where the forward has two.

    Scores again, and the gradients of queries and keys, run over `width_qk`; those of the weights and of the values
    over `width_v`. Source: Dao, "FlashAttention-2" (2023), algorithm 2 (2.5 times the forward); the same as
    torch.utils.flop_counter's `sdpa_backward_flop`.
    """
    return 2 * rows * heads * pairs * (3 * width_qk + 2 * width_v)


def convolution_backward(inputs: Shape, weight: Shape, output: Shape, *, transposed: bool, wanted: int) -> int:
    """FLOPs of a convolution's backward: each `wanted` gradient, of inputs and of weight, is one convolution's work.

    Every product of an input element and a weight comes up once in either, whatever the strides and groups. That of the
    bias is a sum. Source: torch.utils.flop_counter's `conv_backward_flop`.
    """
    return wanted * convolution(inputs, weight, output, transposed=transposed)


def visible_pairs(queries: int, keys: int, *, window: int | None = None, aligned_to_end: bool = True) -> int:
    """(query, key) pairs that a causal mask leaves: the i-th query sees the keys up to its own position.

    The queries are the last of the `keys` positions (a KV cache before them), or the first where `aligned_to_end` is
    False (torch's `is_causal` with unequal lengths). `window` limits each to that many newest keys.
    """
    offset = keys - queries if aligned_to_end else 0
    total = 0
    if window is None and offset >= 0 and offset + queries <= keys:
        return queries * offset + queries * (queries + 1) // 2
    for i in range(queries):
        seen = min(max(offset + i + 1, 0), keys)
        total += seen if window is None else min(seen, window)
    return total


def varlen_pairs(queries: Iterable[int], keys: Iterable[int]) -> int:
    """(query, key) pairs of packed sequences, each of which attends within itself; arguments are lengths."""
    return sum(q * k for q, k in zip(queries, keys, strict=True))
