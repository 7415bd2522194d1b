"""What the benchmarks run: the bundled Qwen2.5-VL with seeded inputs, the same in every row."""

from __future__ import annotations

from typing import Any

import torch
from rows import ROOT

FOLDER = ROOT / "layerprof" / "demo" / "model"
IMAGE_SIDE = 16
"""Patches along each side of the image: 224 x 224 pixels."""
QUESTION = 40
"""Text tokens of the prompt."""


def subject(device: str = "cpu", attention: str = "sdpa") -> tuple[Any, dict[str, Any]]:
    """Return the bundled model with seeded inputs of one image and a question."""
    from transformers import Qwen2_5_VLForConditionalGeneration

    load = Qwen2_5_VLForConditionalGeneration.from_pretrained
    model = load(FOLDER, dtype=torch.float32, attn_implementation=attention).eval().to(device)
    return model, {name: tensor.to(device) for name, tensor in image_and_question(model.config).items()}


def image_and_question(config: Any) -> dict[str, Any]:
    """Return one image and a question for any Qwen2.5-VL."""
    image, generator = config.image_token_id, torch.Generator().manual_seed(0)
    question = torch.randint(10, 200, (QUESTION,), generator=generator).tolist()
    ids = torch.tensor([[image] * (IMAGE_SIDE**2 // 4) + question])
    vision = config.vision_config
    patch = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.randn(IMAGE_SIDE**2, patch, generator=generator),
        "image_grid_thw": torch.tensor([[1, IMAGE_SIDE, IMAGE_SIDE]]),
        "mm_token_type_ids": (ids == image).int(),
    }


def words_only(inputs: dict[str, Any]) -> dict[str, Any]:
    """Return a prompt of the same length without an image."""
    ids = inputs["input_ids"].clone()
    ids[:] = ids[0, -1]
    return {"input_ids": ids, "attention_mask": inputs["attention_mask"]}


def answer(model: Any, inputs: dict[str, Any], tokens: int) -> Any:
    """Let the model write exactly so many tokens."""
    fixed = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}
    return model.generate(**inputs, **fixed, disable_compile=True)
