"""Small random models of the families that people use, each with an input for `generate()` or a plain call.

All come from transformers' own classes, so the module trees, caches and attention paths are the real ones. `FAMILIES`
maps a name to a builder; `build(name, attention)` gives the model in evaluation mode and its inputs.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import bridged_families as bridged
import more_families as more
import simple_families as simple
import torch
from families_base import IMAGE, TEXT, VISION, Family, make, prompt, text_config
from torch import Tensor

warnings.filterwarnings("ignore", category=UserWarning, module="transformers")


def _qwen_vision(rows: int, h: int, w: int, kernel: int) -> dict[str, Tensor]:
    return {
        "pixel_values": torch.randn(rows * h * w, kernel),
        "image_grid_thw": torch.tensor([[1, h, w]] * rows),
    }


def _qwen(model: str, config: str, vision: dict[str, Any], text: dict[str, Any], grid: tuple[int, int]) -> Family:
    import transformers

    cfg = getattr(transformers, config)(
        text_config={**TEXT, "head_dim": None, **text},
        vision_config=vision,
        image_token_id=IMAGE,
        video_token_id=121,
        vision_start_token_id=122,
        vision_end_token_id=123,
        tie_word_embeddings=True,
    )
    built = make(model, cfg)
    made = prompt(grid[0] * grid[1] // 4)
    types = (made["input_ids"] == IMAGE).int()
    kernel = 3 * vision["temporal_patch_size"] * vision["patch_size"] ** 2
    pixels = _qwen_vision(2, *grid, kernel)
    return Family(built, {**made, **pixels, "mm_token_type_ids": types}, (vision["depth"], 2))


QWEN_VISION: dict[str, Any] = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_heads": 2,
    "out_hidden_size": 32,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "spatial_merge_size": 2,
    "in_channels": 3,
}
"""A tower of packed patches, merged 2 x 2."""


def _rope(*sections: int) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": list(sections)}}


def qwen2_vl() -> Family:
    """Full-attention vision blocks, M-RoPE decoder."""
    vision = {
        name: value for name, value in QWEN_VISION.items() if name not in ("out_hidden_size", "intermediate_size")
    }
    vision |= {"embed_dim": 32, "mlp_ratio": 2}
    return _qwen("Qwen2VLForConditionalGeneration", "Qwen2VLConfig", vision, _rope(1, 1, 2), (4, 4))


def qwen2_5_vl(**text: Any) -> Family:
    """Windowed and full vision blocks; a 6 x 4 grid of patches cuts a window."""
    vision = QWEN_VISION | {"depth": 3, "window_size": 56, "fullatt_block_indexes": [1]}
    text = _rope(1, 1, 2) | text
    return _qwen("Qwen2_5_VLForConditionalGeneration", "Qwen2_5_VLConfig", vision, text, (6, 4))


def qwen3_vl() -> Family:
    """Deepstack mergers beside the merger."""
    vision = QWEN_VISION | {"patch_size": 16, "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1]}
    text = {"head_dim": 8} | _rope(2, 1, 1)
    return _qwen("Qwen3VLForConditionalGeneration", "Qwen3VLConfig", vision, text, (4, 4))


def qwen3_vl_moe() -> Family:
    """Mixture of experts in the decoder: two of four run for each token."""
    vision = QWEN_VISION | {"patch_size": 16, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
    text = {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16} | _rope(2, 1, 1)
    return _qwen("Qwen3VLMoeForConditionalGeneration", "Qwen3VLMoeConfig", vision, text, (4, 4))


def _pair(
    model: str, config: str, vision: Any, text: Any, tokens: int, pixels: Tensor, images: dict[str, Any], **more: Any
) -> Family:
    import transformers

    cfg = getattr(transformers, config)(vision_config=vision, text_config=text, **more)
    return Family(make(model, cfg), {**prompt(tokens), "pixel_values": pixels, **images}, (2, 2))


def llava() -> Family:
    """CLIP tower, whose layer -2 feeds the projector: the last block still runs."""
    import transformers

    vision = transformers.CLIPVisionConfig(**VISION)
    pixels = torch.randn(2, 3, 28, 28)
    return _pair(
        "LlavaForConditionalGeneration",
        "LlavaConfig",
        vision,
        text_config("LlamaConfig"),
        4,
        pixels,
        {},
        image_token_index=IMAGE,
    )


def llava_onevision() -> Family:
    """SigLIP tower, tiles of one image beside its overview."""
    import transformers

    vision = transformers.SiglipVisionConfig(**VISION)
    vision.vision_use_head = False
    pixels = torch.randn(2, 2, 3, 28, 28)
    return _pair(
        "LlavaOnevisionForConditionalGeneration",
        "LlavaOnevisionConfig",
        vision,
        text_config("Qwen2Config"),
        10,
        pixels,
        {"image_sizes": torch.tensor([[28, 28]] * 2)},
        image_token_index=IMAGE,
        image_grid_pinpoints=[[28, 28]],
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )


def idefics3() -> Family:
    """Pixel shuffle connector."""
    import transformers

    vision = {**VISION, "image_size": 28}
    config = transformers.Idefics3Config(
        vision_config=vision,
        text_config=text_config("LlamaConfig"),
        scale_factor=2,
        image_token_id=IMAGE,
        tie_word_embeddings=False,
    )
    inputs = {**prompt(1), "pixel_values": torch.randn(2, 1, 3, 28, 28)}
    return Family(make("Idefics3ForConditionalGeneration", config), inputs, (2, 2))


def smolvlm() -> Family:
    """Idefics3's successor."""
    import transformers

    config = transformers.SmolVLMConfig(
        vision_config=VISION,
        text_config=text_config("LlamaConfig"),
        scale_factor=2,
        image_token_id=IMAGE,
        tie_word_embeddings=False,
    )
    inputs = {**prompt(1), "pixel_values": torch.randn(2, 1, 3, 28, 28)}
    return Family(make("SmolVLMForConditionalGeneration", config), inputs, (2, 2))


def paligemma() -> Family:
    """Build a decoder whose prefix sees itself whole."""
    import transformers

    vision = transformers.SiglipVisionConfig(**VISION, vision_use_head=False)
    vision.projection_dim = 32
    family = _pair(
        "PaliGemmaForConditionalGeneration",
        "PaliGemmaConfig",
        vision,
        text_config("GemmaConfig"),
        4,
        torch.randn(2, 3, 28, 28),
        {},
        image_token_id=IMAGE,
        projection_dim=32,
    )
    family.inputs["token_type_ids"] = torch.zeros_like(family.inputs["input_ids"])
    return family


def gemma3() -> Family:
    """Sliding-window layers, and image tokens that see each other."""
    import transformers

    vision = transformers.SiglipVisionConfig(**VISION, vision_use_head=False)
    text = text_config("Gemma3TextConfig", sliding_window=6, layer_types=["sliding_attention", "full_attention"])
    family = _pair(
        "Gemma3ForConditionalGeneration",
        "Gemma3Config",
        vision,
        text,
        4,
        torch.randn(2, 3, 28, 28),
        {},
        image_token_id=IMAGE,
        mm_tokens_per_image=4,
    )
    family.inputs["token_type_ids"] = (family.inputs["input_ids"] == IMAGE).int()
    return family


def internvl() -> Family:
    """Pixel-unshuffle projector."""
    vision = {**VISION, "image_size": [28, 28], "patch_size": [14, 14]}
    import transformers

    vision_config = transformers.InternVLVisionConfig(**vision)
    return _pair(
        "InternVLForConditionalGeneration",
        "InternVLConfig",
        vision_config,
        text_config("Qwen2Config"),
        1,
        torch.randn(2, 3, 28, 28),
        {},
        image_token_id=IMAGE,
        downsample_ratio=0.5,
    )


def mllama() -> Family:
    """Cross-attention to image states in some decoder layers; two lists of vision blocks."""
    import transformers

    vision = transformers.models.mllama.configuration_mllama.MllamaVisionConfig(
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_global_layers=1,
        attention_heads=2,
        image_size=28,
        patch_size=14,
        max_num_tiles=2,
        vision_output_dim=48,
        intermediate_layers_indices=[0],
        supported_aspect_ratios=[[1, 1], [1, 2], [2, 1]],
    )
    text = transformers.models.mllama.configuration_mllama.MllamaTextConfig(
        **{**TEXT, "head_dim": None, "num_hidden_layers": 3},
        cross_attention_layers=[1],
        rope_parameters={"rope_type": "default", "rope_theta": 1e4},
    )
    config = transformers.MllamaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE)
    made = prompt(1)
    rows, length = made["input_ids"].shape
    inputs = {
        **made,
        "pixel_values": torch.randn(rows, 1, 2, 3, 28, 28),
        "aspect_ratio_ids": torch.ones(rows, 1, dtype=torch.long),
        "aspect_ratio_mask": torch.tensor([[[1, 0]]] * rows),
        "cross_attention_mask": torch.ones(rows, length, 1, 2, dtype=torch.long),
    }
    return Family(make("MllamaForConditionalGeneration", config), inputs, (3, 3))


def florence2() -> Family:
    """Build an encoder-decoder language model behind a tower of convolutions and window attention."""
    import transformers

    vision = {
        "embed_dim": [8, 16],
        "num_heads": [2, 2],
        "num_groups": [2, 2],
        "depths": [1, 1],
        "window_size": 4,
        "patch_size": [7, 3],
        "patch_stride": [4, 2],
        "patch_padding": [3, 1],
        "patch_prenorm": [False, True],
        "projection_dim": 32,
        "max_position_embeddings": 50,
        "max_temporal_embeddings": 10,
    }
    text = {
        "model_type": "bart",
        "vocab_size": 128,
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 48,
        "max_position_embeddings": 128,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    config = transformers.Florence2Config(vision_config=vision, text_config=text, image_token_id=IMAGE)
    inputs = {**prompt(17), "pixel_values": torch.randn(2, 3, 32, 32)}
    return Family(make("Florence2ForConditionalGeneration", config), inputs, (2, 4))


FAMILIES: dict[str, Callable[[], Family]] = {
    builder.__name__: builder
    for builder in (
        *(qwen2_vl, qwen2_5_vl, qwen3_vl, qwen3_vl_moe, llava, llava_onevision, idefics3, smolvlm, paligemma, gemma3),
        *(internvl, mllama, florence2),
        *(simple.llama, simple.gpt2, simple.mixtral, simple.t5),
        *(simple.clip_vision, simple.siglip_vision, simple.vit, simple.dinov2),
        *bridged.BRIDGED,
        *more.MORE,
    )
}


def build(name: str, attention: str = "eager") -> Family:
    """Build a family with seeded random weights under an attention implementation."""
    torch.manual_seed(0)
    family = FAMILIES[name]()
    family.model.eval()
    family.model.set_attn_implementation(attention)
    return family


def run(family: Family, new_tokens: int = 3) -> Any:
    """Run `generate()` greedily for a fixed number of tokens, or call an encoder once."""
    with torch.no_grad():
        if not family.generates:
            return family.model(**family.inputs)
        return family.model.generate(
            **family.inputs, max_new_tokens=new_tokens, min_new_tokens=new_tokens, do_sample=False
        )


def rotary_products(config: dict[str, Any], rows: int, positions: int) -> tuple[int, int]:
    """Return what M-RoPE's frequencies may count: nothing, or an outer product for each of its three grids.

    Some versions of transformers multiply positions and frequencies as matrices, of inner dimension one, others
    element by element, which is no matrix work.
    """
    text = config["text_config"]
    head = text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"]
    return 0, 2 * 3 * rows * positions * (head // 2)
