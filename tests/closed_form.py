"""FLOPs by formula, from a model's configuration alone: what the product's counts are held against.

Plain arithmetic, and nothing of layerprof: 2 FLOPs per multiply-accumulate, matrix work only, padding counted,
attention as a dense kernel executes it (every query against every key). Configurations are those of transformers, as
mappings. A linear map of `n` positions from width a to width b is `2 n a b` everywhere below.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Config = Mapping[str, Any]
Grid = tuple[int, int, int]
"""(frames, height, width) of one image in patches: a row of `image_grid_thw`."""


# --- decoder layers -------------------------------------------------------------------------------------------------


def grouped_attention(text: Config, rows: int, queries: int, keys: int) -> int:
    """Self-attention with grouped key heads and its four projections; `queries` new positions see `keys` each.

    Query and output projections are D x HW, key and value projections D x KW; scores and weighted values cost
    `2 rows H queries keys W` each, however few key heads there are.
    """
    wide, heads, key_heads = text["hidden_size"], text["num_attention_heads"], text["num_key_value_heads"]
    width = text.get("head_dim") or wide // heads
    query_and_output = 2 * (2 * rows * queries * wide * heads * width)
    key_and_value = 2 * (2 * rows * queries * wide * key_heads * width)
    scores = 2 * rows * heads * queries * keys * width
    values = 2 * rows * heads * queries * keys * width
    return int(query_and_output + key_and_value + scores + values)


def latent_attention(text: Config, rows: int, positions: int) -> int:
    """Return a prefill's multi-head latent attention (DeepSeek-V2 and V3): scores and values have unequal widths.

    Queries come through a rank Rq to H heads of (P + R), keys and values through a rank Rkv (with R shared rotary
    numbers beside it) to H heads of P and V; the output projection is HV x D. Scores cost `2 rows H S^2 (P + R)`,
    weighted values `2 rows H S^2 V`. Source: DeepSeek-V3 Technical Report, section 2.1.1.
    """
    wide, heads, value = text["hidden_size"], text["num_attention_heads"], text["v_head_dim"]
    plain, rotary = text["qk_nope_head_dim"], text["qk_rope_head_dim"]
    query_rank, rank = text["q_lora_rank"], text["kv_lora_rank"]
    each = 2 * rows * positions
    queries = each * wide * query_rank + each * query_rank * heads * (plain + rotary)
    keys_and_values = each * wide * (rank + rotary) + each * rank * heads * (plain + value)
    scores = 2 * rows * heads * positions * positions * (plain + rotary)
    values = 2 * rows * heads * positions * positions * value
    return int(queries + keys_and_values + scores + values + each * heads * value * wide)


def gated_mlp(text: Config, positions: int) -> int:
    """Gate, up and down of a SwiGLU block: three matrices of D x M."""
    return int(3 * (2 * positions * text["hidden_size"] * text["intermediate_size"]))


def decoder_layer(text: Config, rows: int, queries: int, keys: int) -> int:
    """One Llama-like layer (Llama, Qwen2, Mistral): grouped attention and a gated MLP.

    A prefill of S positions has `queries = keys = S`, a decode step `queries = 1` and `keys` the cache with it.
    """
    return grouped_attention(text, rows, queries, keys) + gated_mlp(text, rows * queries)


def mixture_layer(text: Config, rows: int, queries: int, keys: int) -> int:
    """One layer of a mixture of experts (Mixtral): a router over all experts, and the chosen ones' gated MLPs."""
    positions = rows * queries
    router = 2 * positions * text["hidden_size"] * text["num_local_experts"]
    experts = text["num_experts_per_tok"] * gated_mlp(text, positions)
    return int(grouped_attention(text, rows, queries, keys) + router + experts)


def head(text: Config, positions: int) -> int:
    """Return the output head over `positions` scored positions."""
    return int(2 * positions * text["hidden_size"] * text["vocab_size"])


# --- Qwen2.5-VL -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """FLOPs of one `generate()` of Qwen2.5-VL, by layer; the whole batch.

    `vision_blocks` and `prefill_layers` hold one figure a layer, `decode_layers[t]` that of any one layer in decode
    step t + 1; `lm_head` is one step's, which scores one position a row.
    """

    patch_embed: int
    vision_blocks: list[int]
    merger: int
    prefill_layers: list[int]
    decode_layers: list[int]
    lm_head: int

    @property
    def vision(self) -> int:
        """The tower with its merger."""
        return self.patch_embed + sum(self.vision_blocks) + self.merger

    @property
    def prefill(self) -> int:
        """What runs before the first token: vision, prompt, one scored position a row."""
        return self.vision + sum(self.prefill_layers) + self.lm_head

    @property
    def decode(self) -> int:
        """All further tokens."""
        return sum(len(self.prefill_layers) * layer + self.lm_head for layer in self.decode_layers)

    @property
    def total(self) -> int:
        """The whole answer."""
        return self.prefill + self.decode


def qwen2_5_vl(config: Config, grids: Sequence[Grid], rows: int, prompt: int, new_tokens: int = 1) -> Answer:
    """Return what an answer of `new_tokens` tokens to `rows` prompts costs.

    `prompt` is their padded length with image tokens, `grids` are of all images of the batch. Source: the published
    architecture (Qwen2.5-VL Technical Report, section 2.1: windows of 112 pixels in all blocks but four, SwiGLU, a
    merger of 2 x 2 patches) and its `config.json`.
    """
    vision, text = config["vision_config"], config["text_config"]
    patches = sum(frames * height * width for frames, height, width in grids)
    wide, merged = vision["hidden_size"], vision["spatial_merge_size"] ** 2
    pixels = 3 * vision["temporal_patch_size"] * vision["patch_size"] ** 2
    # Query, key, value and output are wide x wide; the MLP is gated.
    linear = 2 * patches * (4 * wide * wide + 3 * wide * vision["intermediate_size"])
    blocks = []
    for index in range(vision["depth"]):
        lengths = _frames(grids) if index in vision["fullatt_block_indexes"] else _windows(vision, grids)
        blocks.append(linear + 4 * wide * sum(length**2 for length in lengths))
    joined = merged * wide
    return Answer(
        patch_embed=2 * patches * pixels * wide,
        vision_blocks=blocks,
        merger=2 * (patches // merged) * (joined * joined + joined * vision["out_hidden_size"]),
        prefill_layers=[decoder_layer(text, rows, prompt, prompt)] * text["num_hidden_layers"],
        decode_layers=[decoder_layer(text, rows, 1, prompt + step) for step in range(1, new_tokens)],
        lm_head=head(text, rows),
    )


def _frames(grids: Sequence[Grid]) -> list[int]:
    """Patches that see each other in a block of full attention: those of one frame."""
    return [height * width for frames, height, width in grids for _ in range(frames)]


def _windows(vision: Config, grids: Sequence[Grid]) -> list[int]:
    """Patches that see each other in a windowed block: every patch is put into the window that it lies in."""
    side = vision["window_size"] // vision["patch_size"]
    found: list[int] = []
    for frames, height, width in grids:
        window = Counter((row // side, column // side) for row in range(height) for column in range(width))
        found += list(window.values()) * frames
    return found
