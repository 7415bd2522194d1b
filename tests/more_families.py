"""Further families: tiles, packed patches, hybrid decoders, latent attention, experts, odd towers."""

from __future__ import annotations

from typing import Any

import torch
from families_base import IMAGE, TEXT, VISION, Family, make, pixels, prompt, text_config


def _siglip() -> Any:
    import transformers

    return transformers.SiglipVisionConfig(**VISION, vision_use_head=False)


def llava_next() -> Family:
    """Tiles of each image beside its overview, and a learned newline."""
    import transformers

    config = transformers.LlavaNextConfig(
        vision_config=transformers.CLIPVisionConfig(**VISION),
        text_config=text_config("LlamaConfig"),
        image_token_index=IMAGE,
        image_grid_pinpoints=[[28, 28]],
        vision_feature_layer=-1,
    )
    inputs = {**prompt(10), "pixel_values": pixels(2, 3), "image_sizes": torch.tensor([[28, 28]] * 2)}
    return Family(make("LlavaNextForConditionalGeneration", config), inputs, (2, 2))


def mistral3() -> Family:
    """Pixtral's tower, which packs images of any size into one sequence."""
    import transformers

    vision = transformers.PixtralVisionConfig(**{**VISION, "hidden_size": 32, "image_size": 56, "head_dim": 16})
    config = transformers.Mistral3Config(
        vision_config=vision, text_config=text_config("MistralConfig"), image_token_index=IMAGE, spatial_merge_size=2
    )
    inputs = {**prompt(4), "pixel_values": torch.randn(2, 3, 56, 56), "image_sizes": torch.tensor([[56, 56]] * 2)}
    return Family(make("Mistral3ForConditionalGeneration", config), inputs, (2, 2))


def ovis2() -> Family:
    """Build a visual vocabulary: patches are mixtures of its words."""
    import transformers

    vision = {**VISION, "vocab_size": 40, "hidden_stride": 2}
    config = transformers.Ovis2Config(
        vision_config=vision, text_config=text_config("Qwen2Config"), image_token_id=IMAGE,
        visual_indicator_token_ids=[110, 111, 112, 113, 114], vocab_size=128, hidden_size=32,
    )  # fmt: skip
    return Family(make("Ovis2ForConditionalGeneration", config), {**prompt(1), "pixel_values": pixels(3)}, (2, 2))


def llama4() -> Family:
    """Experts in every second layer, chunked attention, pixel shuffle in the tower."""
    import transformers

    vision = {
        **VISION, "vision_output_dim": 16, "projector_input_dim": 16, "projector_output_dim": 16,
        "pixel_shuffle_ratio": 0.5, "intermediate_size": 96,
    }  # fmt: skip
    text = {
        **TEXT, "intermediate_size_mlp": 48, "num_local_experts": 2, "num_experts_per_tok": 1,
        "interleave_moe_layer_step": 2, "attention_chunk_size": 64,
    }  # fmt: skip
    config = transformers.Llama4Config(vision_config=vision, text_config=text, image_token_index=IMAGE)
    return Family(make("Llama4ForConditionalGeneration", config), {**prompt(1), "pixel_values": pixels(3)}, (2, 2))


def glm4v() -> Family:
    """Packed patches, a convolution that merges them, two norms around the tower."""
    import transformers

    vision = {
        "depth": 2, "hidden_size": 32, "num_heads": 2, "image_size": 56, "patch_size": 14, "out_hidden_size": 32,
        "intermediate_size": 40, "spatial_merge_size": 2, "temporal_patch_size": 2,
    }  # fmt: skip
    text = {**TEXT, "head_dim": None, "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1]}}
    config = transformers.Glm4vConfig(
        vision_config=vision, text_config=text, image_token_id=IMAGE, video_token_id=121, image_start_token_id=122,
        image_end_token_id=123, video_start_token_id=124, video_end_token_id=125,
    )  # fmt: skip
    made = prompt(4)
    inputs = {
        **made, "pixel_values": torch.randn(2 * 16, 3 * 2 * 14 * 14), "image_grid_thw": torch.tensor([[1, 4, 4]] * 2),
        "mm_token_type_ids": (made["input_ids"] == IMAGE).int(),
    }  # fmt: skip
    return Family(make("Glm4vForConditionalGeneration", config), inputs, (2, 2))


def lfm2_vl() -> Family:
    """Short convolutions beside attention in one list of decoder layers."""
    import transformers

    vision = transformers.Siglip2VisionConfig(**{k: v for k, v in VISION.items() if k != "image_size"}, num_patches=16)
    vision.vision_use_head = False
    text = transformers.Lfm2Config(
        **{k: v for k, v in TEXT.items() if k != "head_dim"} | {"num_hidden_layers": 3},
        layer_types=["conv", "full_attention", "conv"], block_auto_adjust_ff_dim=False,
    )  # fmt: skip
    config = transformers.Lfm2VlConfig(
        vision_config=vision, text_config=text, image_token_id=IMAGE, projector_hidden_size=32, downsample_factor=2
    )
    inputs = {
        **prompt(4), "pixel_values": torch.randn(2, 16, 3 * 14 * 14), "spatial_shapes": torch.tensor([[4, 4]] * 2),
        "pixel_attention_mask": torch.ones(2, 16, dtype=torch.long),
    }  # fmt: skip
    return Family(make("Lfm2VlForConditionalGeneration", config), inputs, (2, 3))


def zamba2() -> Family:
    """State-space layers, some with a shared attention block before them."""
    return Family(
        make(
            "Zamba2ForCausalLM",
            text_config(
                "Zamba2Config",
                num_hidden_layers=4,
                layers_block_type=["linear_attention", "hybrid", "linear_attention", "hybrid"],
                mamba_d_state=8,
                mamba_headdim=8,
                n_mamba_heads=8,
                mamba_ngroups=1,
                num_mem_blocks=1,
                hybrid_layer_ids=[1, 3],
                use_mem_rope=True,
                chunk_size=8,
                num_key_value_heads=4,
                attention_head_dim=16,
                attention_hidden_size=64,
                use_long_context=False,
                use_shared_attention_adapter=False,
                adapter_rank=4,
                time_step_limit=None,
                add_bias_linear=False,
            ),
        ),
        prompt(0),
        (0, 4),
    )


def qwen3_5() -> Family:
    """Linear attention in all layers but each fourth."""
    import transformers

    vision = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 40, "num_heads": 2, "out_hidden_size": 32, "patch_size": 16,
        "temporal_patch_size": 2, "spatial_merge_size": 2, "in_channels": 3, "num_position_embeddings": 16,
    }  # fmt: skip
    text = {
        **TEXT, "num_hidden_layers": 3, "layer_types": ["linear_attention", "full_attention", "linear_attention"],
        "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
        "rope_parameters": {
            "rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 0], "partial_rotary_factor": 0.5
        },
    }  # fmt: skip
    config = transformers.Qwen3_5Config(
        vision_config=vision, text_config=text, image_token_id=IMAGE, video_token_id=121, vision_start_token_id=122,
        vision_end_token_id=123, tie_word_embeddings=True,
    )  # fmt: skip
    made = prompt(4)
    inputs = {
        **made, "pixel_values": torch.randn(2 * 16, 3 * 2 * 16 * 16), "image_grid_thw": torch.tensor([[1, 4, 4]] * 2),
        "mm_token_type_ids": (made["input_ids"] == IMAGE).int(),
    }  # fmt: skip
    return Family(make("Qwen3_5ForConditionalGeneration", config), inputs, (2, 3))


def fuyu() -> Family:
    """No vision blocks: patches go through one matrix into the decoder."""
    import transformers

    text = transformers.PersimmonConfig(
        **{k: v for k, v in TEXT.items() if k not in ("num_key_value_heads", "head_dim")}
    )
    config = transformers.FuyuConfig(text_config=text.to_dict(), patch_size=14, image_size=28, image_token_id=IMAGE)
    made = prompt(4)
    return Family(make("FuyuForCausalLM", config), {**made, "image_patches": torch.randn(2, 4, 588)}, (0, 2))


def deepseek_vl() -> Family:
    """Build an aligner between SigLIP and Llama."""
    import transformers

    config = transformers.DeepseekVLConfig(
        vision_config={"model_type": "siglip_vision_model", **VISION, "vision_use_head": False},
        text_config={"model_type": "llama", **TEXT}, image_token_id=IMAGE,
    )  # fmt: skip
    return Family(make("DeepseekVLForConditionalGeneration", config), {**prompt(4), "pixel_values": pixels(3)}, (2, 2))


def cohere2_vision() -> Family:
    """Attention and MLP in parallel, scaled logits."""
    import transformers

    text = text_config("Cohere2Config", sliding_window=6, layer_types=["sliding_attention", "full_attention"])
    config = transformers.Cohere2VisionConfig(
        vision_config=_siglip(), text_config=text, image_token_id=IMAGE, downsample_factor=2,
        alignment_intermediate_size=40,
    )  # fmt: skip
    return Family(
        make("Cohere2VisionForConditionalGeneration", config), {**prompt(1), "pixel_values": pixels(3)}, (2, 2)
    )


def aya_vision() -> Family:
    """Pixel shuffle into a gated projector."""
    import transformers

    text = text_config("Cohere2Config", sliding_window=6, layer_types=["sliding_attention", "full_attention"])
    config = transformers.AyaVisionConfig(
        vision_config=_siglip(), text_config=text, image_token_index=IMAGE, downsample_factor=2,
        vision_feature_layer=-1,
        alignment_intermediate_size=40,  # type: ignore[call-arg]  # read by the model, not declared by the config
    )  # fmt: skip
    return Family(make("AyaVisionForConditionalGeneration", config), {**prompt(1), "pixel_values": pixels(3)}, (2, 2))


def gemma4() -> Family:
    """Embeddings per layer, clipped patches without a convolution, pooled positions."""
    import transformers

    vision = {
        "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 2, "head_dim": 16, "patch_size": 4, "pooling_kernel_size": 2,
        "position_embedding_size": 16,
    }  # fmt: skip
    text = {
        **TEXT, "vocab_size_per_layer_input": 128, "hidden_size_per_layer_input": 8, "sliding_window": 6,
        "layer_types": ["sliding_attention", "full_attention"], "global_head_dim": 8,
    }  # fmt: skip
    config = transformers.Gemma4Config(
        vision_config=vision, text_config=text, image_token_id=IMAGE, boi_token_id=121, eoi_token_id=122,
        video_token_id=123, audio_token_id=124, boa_token_id=125, eoa_token_index=126,
    )  # fmt: skip
    made = prompt(4)
    rows, columns = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
    inputs = {
        **made, "pixel_values": torch.rand(2, 16, 48),
        "image_position_ids": torch.stack([columns, rows], -1).reshape(1, 16, 2).repeat(2, 1, 1),
        "mm_token_type_ids": (made["input_ids"] == IMAGE).int(),
    }  # fmt: skip
    return Family(make("Gemma4ForConditionalGeneration", config), inputs, (2, 2))


def deepseek_v3() -> Family:
    """Multi-head latent attention: scores over a width of 12, values of 8. A dense layer, then one of experts."""
    import transformers

    config = transformers.DeepseekV3Config(
        vocab_size=128, hidden_size=32, intermediate_size=48, moe_intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4, n_routed_experts=4, n_shared_experts=1, num_experts_per_tok=2,
        n_group=1, topk_group=1, first_k_dense_replace=1, q_lora_rank=24, kv_lora_rank=16, qk_nope_head_dim=8,
        qk_rope_head_dim=4, v_head_dim=8, max_position_embeddings=128, pad_token_id=0, bos_token_id=1,
        eos_token_id=None,
    )  # fmt: skip
    return Family(make("DeepseekV3ForCausalLM", config), prompt(0), (0, 2))


MORE = (
    *(llava_next, mistral3, ovis2, llama4, glm4v, lfm2_vl, zamba2, qwen3_5, fuyu, deepseek_vl, cohere2_vision),
    *(aya_vision, gemma4, deepseek_v3),
)
