"""Small random models of the families that people use, each with an input for `generate()` or a plain call.

All come from transformers' own classes, so the module trees, caches and attention paths are the real ones. `FAMILIES`
maps a name to a builder; `build(name, attention)` gives the model in evaluation mode and its inputs.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

warnings.filterwarnings("ignore", category=UserWarning, module="transformers")

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

    model: nn.Module
    inputs: dict[str, Any]
    blocks: tuple[int, int]
    generates: bool = True


def _text(cls: str, **more: Any) -> Any:
    import transformers

    return getattr(transformers, cls)(**{**TEXT, **more})


def _make(model: str, config: Any) -> Any:
    import transformers

    return getattr(transformers, model)._from_config(config) if hasattr(
        getattr(transformers, model), "_from_config"
    ) else getattr(transformers, model)(config)


def _prompt(images: int, rows: int = 2, text: int = 5) -> dict[str, Tensor]:
    """Ids and mask of `rows` prompts with `images` image tokens each; the last row is left-padded by two."""
    torch.manual_seed(1)
    ids = torch.randint(3, 100, (rows, 2 + images + text))
    ids[:, 2 : 2 + images] = IMAGE
    mask = torch.ones_like(ids)
    if rows > 1:
        ids[-1, :2] = 0
        mask[-1, :2] = 0
    return {"input_ids": ids, "attention_mask": mask}


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
    built = _make(model, cfg)
    prompt = _prompt(grid[0] * grid[1] // 4)
    types = (prompt["input_ids"] == IMAGE).int()
    kernel = 3 * vision["temporal_patch_size"] * vision["patch_size"] ** 2
    pixels = _qwen_vision(2, *grid, kernel)
    return Family(built, {**prompt, **pixels, "mm_token_type_ids": types}, (vision["depth"], 2))


def qwen2_vl() -> Family:
    """Full-attention vision blocks, M-RoPE decoder."""
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2}
    vision |= {"patch_size": 14, "temporal_patch_size": 2, "spatial_merge_size": 2, "in_channels": 3}
    text = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}}
    return _qwen("Qwen2VLForConditionalGeneration", "Qwen2VLConfig", vision, text, (4, 4))


def qwen2_5_vl(**text: Any) -> Family:
    """Windowed and full vision blocks; a 6 x 4 grid of patches cuts a window."""
    vision = {"depth": 3, "hidden_size": 32, "intermediate_size": 40, "num_heads": 2, "out_hidden_size": 32}
    vision |= {"patch_size": 14, "temporal_patch_size": 2, "spatial_merge_size": 2, "in_channels": 3}
    vision |= {"window_size": 56, "fullatt_block_indexes": [1]}
    text = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}} | text
    return _qwen("Qwen2_5_VLForConditionalGeneration", "Qwen2_5_VLConfig", vision, text, (6, 4))


def qwen3_vl() -> Family:
    """Deepstack mergers beside the merger."""
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 40, "num_heads": 2, "out_hidden_size": 32}
    vision |= {"patch_size": 16, "temporal_patch_size": 2, "spatial_merge_size": 2, "in_channels": 3}
    vision |= {"num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1]}
    text = {"head_dim": 8, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}}
    return _qwen("Qwen3VLForConditionalGeneration", "Qwen3VLConfig", vision, text, (4, 4))


def qwen3_vl_moe() -> Family:
    """Mixture of experts in the decoder: two of four run for each token."""
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 40, "num_heads": 2, "out_hidden_size": 32}
    vision |= {"patch_size": 16, "temporal_patch_size": 2, "spatial_merge_size": 2, "in_channels": 3}
    vision |= {"num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
    text = {"head_dim": 8, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}}
    text |= {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "decoder_sparse_step": 1}
    return _qwen("Qwen3VLMoeForConditionalGeneration", "Qwen3VLMoeConfig", vision, text, (4, 4))


def _pair(
    model: str, config: str, vision: Any, text: Any, tokens: int, pixels: Tensor, images: dict[str, Any], **more: Any
) -> Family:
    import transformers

    cfg = getattr(transformers, config)(vision_config=vision, text_config=text, **more)
    return Family(_make(model, cfg), {**_prompt(tokens), "pixel_values": pixels, **images}, (2, 2))


def llava() -> Family:
    """CLIP tower, whose layer -2 feeds the projector: the last block still runs."""
    import transformers

    vision = transformers.CLIPVisionConfig(**VISION)
    pixels = torch.randn(2, 3, 28, 28)
    return _pair("LlavaForConditionalGeneration", "LlavaConfig", vision, _text("LlamaConfig"), 4, pixels, {},
                 image_token_index=IMAGE)


def llava_onevision() -> Family:
    """SigLIP tower, tiles of one image beside its overview."""
    import transformers

    vision = transformers.SiglipVisionConfig(**VISION)
    vision.vision_use_head = False
    pixels = torch.randn(2, 2, 3, 28, 28)
    return _pair("LlavaOnevisionForConditionalGeneration", "LlavaOnevisionConfig", vision, _text("Qwen2Config"), 10,
                 pixels, {"image_sizes": torch.tensor([[28, 28]] * 2)}, image_token_index=IMAGE,
                 image_grid_pinpoints=[[28, 28]], vision_feature_layer=-1, vision_feature_select_strategy="full")


def idefics3() -> Family:
    """Pixel shuffle connector."""
    import transformers

    vision = {**VISION, "image_size": 28}
    config = transformers.Idefics3Config(vision_config=vision, text_config=_text("LlamaConfig"), scale_factor=2,
                                         image_token_id=IMAGE, tie_word_embeddings=False)
    inputs = {**_prompt(1), "pixel_values": torch.randn(2, 1, 3, 28, 28)}
    return Family(_make("Idefics3ForConditionalGeneration", config), inputs, (2, 2))


def smolvlm() -> Family:
    """Idefics3's successor."""
    import transformers

    config = transformers.SmolVLMConfig(vision_config=VISION, text_config=_text("LlamaConfig"), scale_factor=2,
                                        image_token_id=IMAGE, tie_word_embeddings=False)
    inputs = {**_prompt(1), "pixel_values": torch.randn(2, 1, 3, 28, 28)}
    return Family(_make("SmolVLMForConditionalGeneration", config), inputs, (2, 2))


def paligemma() -> Family:
    """A prefix that sees itself whole."""
    import transformers

    vision = transformers.SiglipVisionConfig(**VISION, projection_dim=32, vision_use_head=False)
    family = _pair("PaliGemmaForConditionalGeneration", "PaliGemmaConfig", vision, _text("GemmaConfig"), 4,
                   torch.randn(2, 3, 28, 28), {}, image_token_id=IMAGE, projection_dim=32)
    family.inputs["token_type_ids"] = torch.zeros_like(family.inputs["input_ids"])
    return family


def gemma3() -> Family:
    """Sliding-window layers, and image tokens that see each other."""
    import transformers

    vision = transformers.SiglipVisionConfig(**VISION, vision_use_head=False)
    text = _text("Gemma3TextConfig", sliding_window=6, layer_types=["sliding_attention", "full_attention"])
    family = _pair("Gemma3ForConditionalGeneration", "Gemma3Config", vision, text, 4, torch.randn(2, 3, 28, 28), {},
                   image_token_id=IMAGE, mm_tokens_per_image=4)
    family.inputs["token_type_ids"] = (family.inputs["input_ids"] == IMAGE).int()
    return family


def internvl() -> Family:
    """Pixel-unshuffle projector."""
    vision = {**VISION, "image_size": [28, 28], "patch_size": [14, 14]}
    import transformers

    vision_config = transformers.InternVLVisionConfig(**vision)
    return _pair("InternVLForConditionalGeneration", "InternVLConfig", vision_config, _text("Qwen2Config"), 1,
                 torch.randn(2, 3, 28, 28), {}, image_token_id=IMAGE, downsample_ratio=0.5)


def mllama() -> Family:
    """Cross-attention to image states in some decoder layers; two lists of vision blocks."""
    import transformers

    vision = transformers.models.mllama.configuration_mllama.MllamaVisionConfig(
        hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_global_layers=1, attention_heads=2,
        image_size=28, patch_size=14, max_num_tiles=2, vision_output_dim=48, intermediate_layers_indices=[0],
        supported_aspect_ratios=[[1, 1], [1, 2], [2, 1]])
    text = transformers.models.mllama.configuration_mllama.MllamaTextConfig(
        **{**TEXT, "head_dim": None, "num_hidden_layers": 3}, cross_attention_layers=[1],
        rope_parameters={"rope_type": "default", "rope_theta": 1e4})
    config = transformers.MllamaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE)
    prompt = _prompt(1)
    rows, length = prompt["input_ids"].shape
    inputs = {
        **prompt,
        "pixel_values": torch.randn(rows, 1, 2, 3, 28, 28),
        "aspect_ratio_ids": torch.ones(rows, 1, dtype=torch.long),
        "aspect_ratio_mask": torch.tensor([[[1, 0]]] * rows),
        "cross_attention_mask": torch.ones(rows, length, 1, 2, dtype=torch.long),
    }
    return Family(_make("MllamaForConditionalGeneration", config), inputs, (3, 3))


def florence2() -> Family:
    """An encoder-decoder language model behind a tower of convolutions and window attention."""
    import transformers

    vision = {"embed_dim": [8, 16], "num_heads": [2, 2], "num_groups": [2, 2], "depths": [1, 1], "window_size": 4,
              "patch_size": [7, 3], "patch_stride": [4, 2], "patch_padding": [3, 1], "patch_prenorm": [False, True],
              "projection_dim": 32, "max_position_embeddings": 50, "max_temporal_embeddings": 10}
    text = {"model_type": "bart", "vocab_size": 128, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2,
            "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48,
            "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = transformers.Florence2Config(vision_config=vision, text_config=text, image_token_id=IMAGE)
    inputs = {**_prompt(17), "pixel_values": torch.randn(2, 3, 32, 32)}
    return Family(_make("Florence2ForConditionalGeneration", config), inputs, (2, 4))


def _decoder(model: str, config: str, **more: Any) -> Family:
    return Family(_make(model, _text(config, **more)), _prompt(0), (0, 2))


def llama() -> Family:
    """A text-only decoder."""
    return _decoder("LlamaForCausalLM", "LlamaConfig")


def gpt2() -> Family:
    """Fused projections in `Conv1D`, learned positions, tied head."""
    import transformers

    config = transformers.GPT2Config(vocab_size=128, n_positions=128, n_embd=32, n_layer=2, n_head=4,
                                     bos_token_id=1, eos_token_id=None, pad_token_id=0)
    return Family(_make("GPT2LMHeadModel", config), _prompt(0), (0, 2))


def mixtral() -> Family:
    """A text-only mixture of experts."""
    return _decoder("MixtralForCausalLM", "MixtralConfig", num_local_experts=4, num_experts_per_tok=2)


def t5() -> Family:
    """A text encoder and decoder with position biases and a shared embedding."""
    import transformers

    config = transformers.T5Config(vocab_size=128, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_decoder_layers=2,
                                   num_heads=4, decoder_start_token_id=0, pad_token_id=0, eos_token_id=None)
    return Family(_make("T5ForConditionalGeneration", config), _prompt(0), (0, 4))


def _encoder(model: str, config: str, **more: Any) -> Family:
    import transformers

    built = _make(model, getattr(transformers, config)(**{**VISION, **more}))
    return Family(built, {"pixel_values": torch.randn(2, 3, 28, 28)}, (2, 0), generates=False)


def clip_vision() -> Family:
    """An encoder-only vision model."""
    return _encoder("CLIPVisionModel", "CLIPVisionConfig")


def siglip_vision() -> Family:
    """An encoder with an attention-pooling head of torch's own `MultiheadAttention`."""
    return _encoder("SiglipVisionModel", "SiglipVisionConfig")


def vit() -> Family:
    """An encoder whose blocks have no list of their own name."""
    return _encoder("ViTModel", "ViTConfig")


def dinov2() -> Family:
    """An encoder with layer scale."""
    return _encoder("Dinov2Model", "Dinov2Config", mlp_ratio=2)


FAMILIES: dict[str, Callable[[], Family]] = {
    f.__name__: f
    for f in (qwen2_vl, qwen2_5_vl, qwen3_vl, qwen3_vl_moe, llava, llava_onevision, idefics3, smolvlm, paligemma, gemma3,
              internvl, mllama, florence2, llama, gpt2, mixtral, t5, clip_vision, siglip_vision, vit, dinov2)
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
