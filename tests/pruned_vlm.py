"""A vision-language model that merges patches between vision blocks and drops image tokens between decoder layers.

As ToMe and FastV do: the first vision block's output is averaged in pairs; after `keep_after` decoder layers of the
prompt every second image token is dropped, so that later layers cache fewer positions. Nothing of it is told to
anybody: only the shapes show it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own documentation calls it so
from torch import Tensor, nn

WIDTH, HEADS, INNER, VOCABULARY, PATCH = 16, 2, 24, 40, 12


class Block(nn.Module):
    """Attention with an own cache of keys and values, and a feed-forward part; no biases, no norms."""

    def __init__(self, *, causal: bool) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.proj = nn.Linear(WIDTH, WIDTH, bias=False)
        self.up = nn.Linear(WIDTH, INNER, bias=False)
        self.down = nn.Linear(INNER, WIDTH, bias=False)
        self.causal = causal
        self.past: tuple[Tensor, Tensor] | None = None

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Attend to what is cached and to (rows, positions, features) themselves."""
        rows, positions, _ = hidden_states.shape
        heads = self.qkv(hidden_states).view(rows, positions, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        q, k, v = heads.unbind()
        if self.causal:
            if self.past is not None:
                k, v = torch.cat([self.past[0], k], -2), torch.cat([self.past[1], v], -2)
            self.past = k, v
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal and positions > 1)
        hidden_states = hidden_states + self.proj(attended.transpose(1, 2).reshape(rows, positions, WIDTH))
        mixed: Tensor = hidden_states + self.down(F.gelu(self.up(hidden_states)))
        return mixed


def block_flops(tokens: int, pairs: int) -> int:
    """Count a block by hand: its products over `tokens`, scores and values over (query, key) `pairs` of all rows."""
    return 2 * tokens * (3 * WIDTH * WIDTH + WIDTH * WIDTH + 2 * WIDTH * INNER) + 4 * pairs * WIDTH


class Visual(nn.Module):
    """Patches, two blocks with a merging of neighbours between them."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, WIDTH, PATCH, PATCH, bias=False)
        self.blocks = nn.ModuleList(Block(causal=False) for _ in range(3))

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Turn (rows, 3, height, width) into (rows, patches / 2, features)."""
        hidden = self.patch_embed(pixel_values).flatten(2).transpose(1, 2)
        for number, block in enumerate(self.blocks):
            hidden = block(hidden)
            if number == 0:
                hidden = hidden.unflatten(1, (-1, 2)).mean(2)
        merged: Tensor = hidden
        return merged


class PrunedVlm(nn.Module):
    """The whole model; `generate(pixel_values, input_ids, new_tokens)` puts the image before the text."""

    def __init__(self, *, keep_after: int | None = 2, layers: int = 4) -> None:
        super().__init__()
        self.visual = Visual()
        self.embed_tokens = nn.Embedding(VOCABULARY, WIDTH)
        self.layers = nn.ModuleList(Block(causal=True) for _ in range(layers))
        self.lm_head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.keep_after = keep_after

    def forward(self, hidden_states: Tensor, image: int = 0) -> Tensor:
        """Return logits of the last position; `image` positions of the prompt stand for the image."""
        for number, layer in enumerate(self.layers):
            if image and number == self.keep_after:
                hidden_states = torch.cat([hidden_states[:, :image:2], hidden_states[:, image:]], 1)
            hidden_states = layer(hidden_states)
        logits: Tensor = self.lm_head(hidden_states[:, -1:])
        return logits

    @torch.no_grad()
    def generate(self, pixel_values: Tensor, input_ids: Tensor, new_tokens: int) -> list[Tensor]:
        """Write greedily, from an empty cache."""
        for layer in self.layers:
            layer.past = None  # type: ignore[assignment]  # a ModuleList knows its parts as modules only
        image = self.visual(pixel_values)
        hidden = torch.cat([image, self.embed_tokens(input_ids)], 1)
        logits = self(hidden, image.shape[1])
        written = [logits.argmax(-1)]
        while len(written) < new_tokens:
            written.append(self(self.embed_tokens(written[-1])).argmax(-1))
        return written
