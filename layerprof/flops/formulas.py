"""Shapes -> FLOPs and bytes: pure formulas, 2 FLOPs per multiply-accumulate, matrix work only.

Attention is counted as executed by a dense kernel: every query against every key, causal halving not applied.
`visible_pairs` gives what a causal mask leaves, for the column beside it. Elementwise work counts as bytes, not FLOPs.
The closed form of Qwen2.5-VL at the end is an oracle of its own: from a configuration, without a model or an operator.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

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


# --- the closed form of Qwen2.5-VL -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ClosedForm:
    """FLOPs of one `generate()` of Qwen2.5-VL, by layer; the whole batch, padding counted.

    `vision_blocks`, `prefill_layers` hold one figure per layer; `decode_layers[t]` is one layer's figure in decode step
    t + 1 (all decoder layers are alike); `lm_head` is one step's, for one scored position per row.
    """

    patch_embed: int
    vision_blocks: tuple[int, ...]
    merger: int
    prefill_layers: tuple[int, ...]
    decode_layers: tuple[int, ...]
    lm_head: int

    @property
    def vision(self) -> int:
        """The vision tower with its merger."""
        return self.patch_embed + sum(self.vision_blocks) + self.merger

    @property
    def prefill(self) -> int:
        """Vision, prompt and the first token's head: what runs before the first token."""
        return self.vision + sum(self.prefill_layers) + self.lm_head

    @property
    def decode(self) -> int:
        """All decode steps."""
        return sum(len(self.prefill_layers) * layer + self.lm_head for layer in self.decode_layers)

    @property
    def total(self) -> int:
        """The whole answer."""
        return self.prefill + self.decode


def qwen2_5_vl_closed_form(
    config: Mapping[str, Any],
    grids: Sequence[tuple[int, int, int]],
    rows: int,
    prompt: int,
    new_tokens: int = 1,
) -> ClosedForm:
    """Count Qwen2.5-VL's FLOPs from its configuration (a `config.json` as a mapping).

    `grids` is `image_grid_thw`, one (frames, height, width) in patches per image of the batch; `prompt` the padded
    prompt length S including image tokens; `new_tokens` how many tokens `generate()` writes (the first one comes from
    the prefill). Derived from the published architecture: windows of 112 px with 4 exceptions, SwiGLU, grouped
    key heads, one scored position per step. Source: `modeling_qwen2_5_vl.py` of transformers, ops written out by hand.
    """
    vision, text = config["vision_config"], config["text_config"]
    patches = sum(t * h * w for t, h, w in grids)
    wide, inner = vision["hidden_size"], vision["intermediate_size"]
    linear = matmul(patches, wide, 4 * wide) + matmul(patches, wide, 3 * inner)
    whole = sum(length * length for length in _frame_lengths(grids))
    windowed = sum(length * length for length in _window_lengths(vision, grids))
    full_blocks = set(vision["fullatt_block_indexes"])
    blocks = tuple(linear + 4 * wide * (whole if i in full_blocks else windowed) for i in range(vision["depth"]))
    kernel = vision.get("in_channels", 3) * vision["temporal_patch_size"] * vision["patch_size"] ** 2
    merged = vision["spatial_merge_size"] ** 2
    context = wide * merged
    merger = matmul(patches // merged, context, context + vision["out_hidden_size"])

    def layer(queries: int, keys: int) -> int:
        heads, width = text["num_attention_heads"], text["hidden_size"] // text["num_attention_heads"]
        queries_and_output = matmul(rows * queries, text["hidden_size"], 2 * heads * width)
        keys_and_values = matmul(rows * queries, text["hidden_size"], 2 * text["num_key_value_heads"] * width)
        mlp = matmul(rows * queries, text["hidden_size"], 3 * text["intermediate_size"])
        return queries_and_output + keys_and_values + mlp + attention(rows, heads, queries * keys, width, width)

    return ClosedForm(
        patch_embed=matmul(patches, kernel, wide),
        vision_blocks=blocks,
        merger=merger,
        prefill_layers=(layer(prompt, prompt),) * text["num_hidden_layers"],
        decode_layers=tuple(layer(1, prompt + step) for step in range(1, new_tokens)),
        lm_head=matmul(rows, text["hidden_size"], text["vocab_size"]),
    )


def _frame_lengths(grids: Sequence[tuple[int, int, int]]) -> list[int]:
    """Patches of each frame: full attention stays within one."""
    return [h * w for t, h, w in grids for _ in range(t)]


def _window_lengths(vision: Mapping[str, Any], grids: Sequence[tuple[int, int, int]]) -> list[int]:
    """Patches of each attention window; those at the right and lower edges are smaller."""
    merge = vision["spatial_merge_size"]
    side = vision["window_size"] // merge // vision["patch_size"]
    lengths = []
    for t, h, w in grids:
        down, across = (_cut(n // merge, side) for n in (h, w))
        lengths += [a * b * merge * merge for _ in range(t) for a in down for b in across]
    return lengths


def _cut(length: int, side: int) -> list[int]:
    return [min(side, length - start) for start in range(0, length, side)]
