"""What the small random models of the tests share: widths, builders, a prompt with a padded row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

TEXT: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}
"""A decoder of grouped heads that every Llama-like family understands."""

VISION: dict[str, Any] = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
"""A tower of 2 x 2 patches."""

IMAGE = 120
"""Id of the image token."""


@dataclass(frozen=True)
class Family:
    """A model and an input. `blocks` are the expected numbers of vision blocks and language blocks."""

    model: Any
    inputs: dict[str, Any]
    blocks: tuple[int, int]
    generates: bool = True


def text_config(cls: str, **more: Any) -> Any:
    """Build a text configuration from `TEXT`."""
    import transformers

    return getattr(transformers, cls)(**{**TEXT, **more})


def make(model: str, config: Any) -> Any:
    """Build a model of transformers with random weights."""
    import transformers

    return getattr(transformers, model)._from_config(config)


def prompt(images: int, rows: int = 2, text: int = 5) -> dict[str, Tensor]:
    """Make ids and mask of `rows` prompts with `images` image tokens each; the last row is left-padded by two."""
    torch.manual_seed(1)
    ids = torch.randint(3, 100, (rows, 2 + images + text))
    ids[:, 2 : 2 + images] = IMAGE
    mask = torch.ones_like(ids)
    if rows > 1:
        ids[-1, :2] = 0
        mask[-1, :2] = 0
    return {"input_ids": ids, "attention_mask": mask}


def pixels(*shape: int) -> Tensor:
    """Make images of two rows: 28 x 28 after one or two numbers, else of just that shape."""
    return torch.randn(2, *shape, 28, 28) if len(shape) < 3 else torch.randn(2, *shape)
