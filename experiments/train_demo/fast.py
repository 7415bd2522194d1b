"""The forward pass of a small Qwen2.5-VL for training: the model's own weights, batched over square images of one size.

The library's forward splits the vision attention into one call per window and builds position ids row by row. Here all
images of a batch have one size, so windows are a batch axis and one set of rotary angles serves every row. The results
equal the library's (`check.py` compares them); a trained checkpoint is used through the library only.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the name everyone knows)
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

CELL = 28
"""Pixels a side of one image token."""


def norm(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply an RMS norm."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    return F.rms_norm(x, weight.shape, weight, 1e-6)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of x (..., positions, head_dim) with angles (positions, head_dim)."""
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-right, left), dim=-1) * sin


def mlp(layer: Any, x: Tensor) -> Tensor:
    """Apply a SwiGLU block."""
    out: Tensor = layer.down_proj(F.silu(layer.gate_proj(x)) * layer.up_proj(x))
    return out


@cache
def _window_order(side: int) -> tuple[Tensor, Tensor]:
    """(order of the cells by window, its inverse) of a square image of `side` pixels."""
    grid = torch.tensor([[1, side // 14, side // 14]])
    order, _ = get_vision_window_index(grid, spatial_merge_size=2, window_size=112, patch_size=14)
    return order, torch.argsort(order)


@cache
def _patch_positions(side: int) -> Tensor:
    grid = torch.tensor([[1, side // 14, side // 14]])
    return get_vision_position_ids(grid, 2)


def patches(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 images (B, S, S, 3) -> normalised patches (B, (S/14)^2, 588), in the processor's order."""
    batch, side = images.shape[0], images.shape[1]
    x = (images.float() / 255 - mean) / std
    cells = side // CELL
    x = x.view(batch, cells, 2, 14, cells, 2, 14, 3).permute(0, 1, 4, 2, 5, 7, 3, 6)
    return x.reshape(batch, cells * cells * 4, 588)


def vision(visual: Any, x: Tensor, side: int) -> Tensor:
    """Patches (B, P, 588) -> image tokens in raster order (B, P/4, out_hidden)."""
    order, inverse = (index.to(x.device) for index in _window_order(side))
    batch, count, _ = x.shape
    cells = count // 4
    # The processor repeats a still image along time, so the two temporal halves of the kernel simply add up.
    x = F.linear(x, visual.patch_embed.proj.weight.sum(2).flatten(1))
    cos, sin = visual.rotary_pos_emb(x, _patch_positions(side).to(x.device))
    cos, sin = (angle.view(cells, 4, -1)[order].reshape(count, -1) for angle in (cos, sin))
    x = x.view(batch, cells, 4, -1)[:, order].reshape(batch, count, -1)
    for number, block in enumerate(visual.blocks):
        group = count if number in visual.fullatt_block_indexes else 64
        x = x + _vision_attention(block.attn, norm(block.norm1, x), cos, sin, group)
        x = x + mlp(block.mlp, norm(block.norm2, x))
    merged = visual.merger.mlp(norm(visual.merger.ln_q, x).view(batch, cells, -1))
    return merged[:, inverse]


def _vision_attention(attention: Any, x: Tensor, cos: Tensor, sin: Tensor, group: int) -> Tensor:
    batch, count, width = x.shape
    qkv = attention.qkv(x).view(batch, count, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    q, k, v = rotate(qkv[0], cos, sin), rotate(qkv[1], cos, sin), qkv[2]
    shape = (batch * attention.num_heads, count // group, group, width // attention.num_heads)
    mixed = F.scaled_dot_product_attention(q.reshape(shape), k.reshape(shape), v.reshape(shape))
    mixed = mixed.view(batch, attention.num_heads, count, -1).transpose(1, 2).reshape(batch, count, width)
    out: Tensor = attention.proj(mixed)
    return out


def text_positions(prefix: int, cells: int, length: int) -> Tensor:
    """M-RoPE positions (3, 1, length) of: `prefix` text tokens, a cells x cells image, text to the end."""
    before = torch.arange(prefix).expand(3, -1)
    row, column = torch.meshgrid(torch.arange(cells), torch.arange(cells), indexing="ij")
    picture = torch.stack((torch.zeros(cells * cells, dtype=torch.long), row.flatten(), column.flatten())) + prefix
    after = torch.arange(length - prefix - cells * cells).expand(3, -1) + prefix + cells
    return torch.cat((before, picture, after), dim=1)[:, None]


def language(text: Any, x: Tensor, positions: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Embeddings (B, S, hidden) -> (normed final states, states after each layer); rows are padded on the right.

    Causal attention never looks right, so right padding needs no mask while training.
    """
    cos, sin = (angle[0] for angle in text.rotary_emb(x, positions))
    states: list[Tensor] = []
    for layer in text.layers:
        x = x + _text_attention(layer.self_attn, norm(layer.input_layernorm, x), cos, sin)
        x = x + mlp(layer.mlp, norm(layer.post_attention_layernorm, x))
        states.append(x)
    return norm(text.norm, x), states


def _text_attention(attention: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    batch, length, _ = x.shape
    groups = attention.num_key_value_groups

    def heads(projected: Tensor) -> Tensor:
        return projected.view(batch, length, -1, attention.head_dim).transpose(1, 2)

    q = rotate(heads(attention.q_proj(x)), cos, sin)
    k = rotate(heads(attention.k_proj(x)), cos, sin).repeat_interleave(groups, dim=1)
    v = heads(attention.v_proj(x)).repeat_interleave(groups, dim=1)
    mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    out: Tensor = attention.o_proj(mixed.transpose(1, 2).reshape(batch, length, -1))
    return out
