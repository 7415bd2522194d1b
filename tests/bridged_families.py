"""Families with a bridge from image to text: cross-attention, learned queries, perceivers; and BERTs that decode."""

from __future__ import annotations

from typing import Any

import torch
from families_base import IMAGE, TEXT, VISION, Family, make, pixels, prompt, text_config

BERT: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}


def blip() -> Family:
    """Build a BERT that decodes: self-attention and cross-attention side by side in each of its layers."""
    import transformers

    text = {**BERT, "encoder_hidden_size": 24, "sep_token_id": None}
    config = transformers.BlipConfig(vision_config=VISION, text_config=text)
    return Family(make("BlipForConditionalGeneration", config), {**prompt(0), "pixel_values": pixels(3)}, (2, 2))


def git() -> Family:
    """Build a decoder that calls itself an encoder, and reads its image in every prefill."""
    import transformers

    config = transformers.GitConfig(vision_config={**VISION}, **BERT)
    return Family(make("GitForCausalLM", config), {**prompt(0), "pixel_values": pixels(3)}, (2, 2))


def _query_transformer(model: str, config: str) -> Family:
    import transformers

    text = transformers.OPTConfig(
        vocab_size=128, hidden_size=32, word_embed_proj_dim=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=128, pad_token_id=0, bos_token_id=1, eos_token_id=None,
    )  # fmt: skip
    qformer = {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
        "encoder_hidden_size": 24, "vocab_size": 128,
    }  # fmt: skip
    cfg = getattr(transformers, config)(
        vision_config=VISION, qformer_config=qformer, text_config=text.to_dict(), num_query_tokens=3,
        image_token_index=IMAGE,
    )  # fmt: skip
    return Family(make(model, cfg), {**prompt(3), "pixel_values": pixels(3)}, (2, 2))


def blip2() -> Family:
    """Let queries read the image in a transformer of their own, which is a connector."""
    return _query_transformer("Blip2ForConditionalGeneration", "Blip2Config")


def instructblip() -> Family:
    """Let the queries read the instruction, too."""
    family = _query_transformer("InstructBlipForConditionalGeneration", "InstructBlipConfig")
    ids = torch.randint(3, 100, (2, 4))
    family.inputs.update(qformer_input_ids=ids, qformer_attention_mask=torch.ones_like(ids))
    return family


def kosmos2() -> Family:
    """Learned queries between the towers; sinusoidal positions."""
    import transformers

    text = {
        "vocab_size": 128, "embed_dim": 32, "layers": 2, "ffn_dim": 48, "attention_heads": 4,
        "max_position_embeddings": 128, "eos_token_id": None,
    }  # fmt: skip
    config = transformers.Kosmos2Config(vision_config=VISION, text_config=text, latent_query_num=3)
    made = prompt(3)
    mask = (made["input_ids"] == IMAGE).long()
    made["input_ids"][mask.bool()] = 5
    inputs = {**made, "pixel_values": pixels(3), "image_embeds_position_mask": mask}
    return Family(make("Kosmos2ForConditionalGeneration", config), inputs, (2, 2))


def vit_bert() -> Family:
    """Join a vision encoder and a BERT with cross-attention by VisionEncoderDecoderModel."""
    import transformers

    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        transformers.ViTConfig(**VISION), transformers.BertConfig(**BERT)
    )
    config.decoder_start_token_id, config.pad_token_id = 1, 0
    model = transformers.VisionEncoderDecoderModel(config)
    model.generation_config.decoder_start_token_id = 1
    model.generation_config.pad_token_id = 0
    return Family(model, {"pixel_values": pixels(3)}, (2, 2))


def idefics2() -> Family:
    """Build a perceiver as connector."""
    import transformers

    perceiver = {
        "hidden_size": 32, "resampler_n_latents": 3, "resampler_depth": 1, "resampler_n_heads": 2,
        "resampler_head_dim": 8, "num_key_value_heads": 1,
    }  # fmt: skip
    config = transformers.Idefics2Config(
        vision_config=VISION, perceiver_config=perceiver, text_config=text_config("MistralConfig"), image_token_id=IMAGE
    )
    return Family(make("Idefics2ForConditionalGeneration", config), {**prompt(3), "pixel_values": pixels(1, 3)}, (2, 2))


def aria() -> Family:
    """Build queries as projector, experts in the decoder."""
    import transformers

    vision = {"model_type": "idefics3_vision", **VISION}
    text = {**TEXT, "moe_num_experts": 4, "moe_topk": 2, "moe_num_shared_experts": 1, "head_dim": None}
    config = transformers.AriaConfig(
        vision_config=vision,
        text_config=transformers.AriaTextConfig(**text),
        image_token_index=IMAGE,
        projector_patch_to_query_dict={4: 3},
    )
    return Family(make("AriaForConditionalGeneration", config), {**prompt(3), "pixel_values": pixels(3)}, (2, 2))


def pix2struct() -> Family:
    """Build an encoder of flattened patches and a T5-like decoder."""
    import transformers

    vision = {
        "hidden_size": 32, "patch_embed_hidden_size": 12, "d_ff": 48, "d_kv": 8, "num_hidden_layers": 2,
        "num_attention_heads": 4, "seq_len": 16,
    }  # fmt: skip
    text = {
        "vocab_size": 128, "hidden_size": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4,
        "decoder_start_token_id": 1, "pad_token_id": 0, "eos_token_id": None, "use_cache": True,
    }  # fmt: skip
    config = transformers.Pix2StructConfig(vision_config=vision, text_config=text)
    patches = torch.rand(2, 9, 14)
    patches[..., :2] = 1
    inputs = {"flattened_patches": patches, "attention_mask": torch.ones(2, 9)}
    return Family(make("Pix2StructForConditionalGeneration", config), inputs, (2, 2))


BRIDGED = (blip, git, blip2, instructblip, kosmos2, vit_bert, idefics2, aria, pix2struct)
