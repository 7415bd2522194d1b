"""A random Qwen2.5-VL small enough for a test: a configuration, or a whole checkpoint with the bundled tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from layerprof import demo
from layerprof.data.spec import Dataset, Example
from layerprof.models.load import load_model
from layerprof.models.source import resolve
from layerprof.models.subject import Subject

CONFIG: dict[str, Any] = {
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "model_type": "qwen2_5_vl",
    "tie_word_embeddings": True,
    "text_config": {
        "model_type": "qwen2_5_vl_text",
        "vocab_size": 640,
        "hidden_size": 48,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 2, 2]},
    },
    "vision_config": {
        "model_type": "qwen2_5_vl_vision",
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 2,
        "patch_size": 14,
        "window_size": 112,
        "out_hidden_size": 48,
        "fullatt_block_indexes": [1],
    },
}
"""2 vision blocks (one windowed, one full), 2 decoder layers of grouped heads, tied embeddings."""

# Embedding 640 x 48; a decoder layer: q 48x48+48, k and v 48x24+24, o 48x48, mlp 3 x 48x64, 2 norms; a final norm.
TEXT_PARAMETERS = 640 * 48 + 2 * (48 * 48 + 48 + 2 * (48 * 24 + 24) + 48 * 48 + 3 * 48 * 64 + 2 * 48) + 48
# Patches 1176 x 32; a block: qkv 32x96+96, proj 32x32+32, mlp 2 x (32x48+48) + 48x32+32, two norms of 32; the merger:
# norm 32, 128x128+128, 128x48+48.
VISION_PARAMETERS = (
    1176 * 32
    + 2 * (32 * 96 + 96 + 32 * 32 + 32 + 2 * (32 * 48 + 48) + 48 * 32 + 32 + 2 * 32)
    + (32 + 128 * 128 + 128 + 128 * 48 + 48)
)
PARAMETERS = TEXT_PARAMETERS + VISION_PARAMETERS


def config_folder(folder: Path) -> Path:
    """Write a folder that holds the configuration alone."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def checkpoint_folder(folder: Path) -> Path:
    """Write a whole checkpoint: seeded weights (in shards), the bundled tokenizer and processor.

    Matrices are large beside the embeddings, so that answers turn on the whole prompt instead of repeating a token.
    """
    made = load_model(resolve(str(config_folder(folder)), weights="random", device="cpu", dtype="fp32", seed=5))
    with torch.no_grad():
        for name, weight in made.model.named_parameters():
            if weight.ndim > 1 and "embed_tokens" not in name:
                weight.mul_(100 / weight[0].numel() ** 0.5)
    made.model.save_pretrained(folder, max_shard_size="300KB")
    for file in demo.MODEL_FOLDER.iterdir():
        if file.name not in ("config.json", "model.safetensors", "generation_config.json"):
            shutil.copy(file, folder / file.name)
    return folder


def subject(folder: Path, **how: Any) -> Subject:
    """Load the checkpoint of a folder on the CPU, in fp32 unless asked otherwise."""
    return load_model(resolve(str(folder), **{"device": "cpu", "dtype": "fp32"} | how))


def picture(width: int = 64, height: int = 48) -> Image.Image:
    """Draw a picture with a left half and a right half."""
    image = Image.new("RGB", (width, height), (200, 30, 30))
    image.paste((30, 30, 200), (width // 2, 0, width, height))
    return image


def samples(questions: list[str], name: str = "textvqa", **more: Any) -> Dataset:
    """Make samples with these questions."""
    examples = tuple(
        Example(str(number), (picture,), question, references=("yes",), **more)
        for number, question in enumerate(questions)
    )
    return Dataset(name, "own", None, "own", None, 16, examples)
