"""The families without two towers: text-only decoders, an encoder-decoder, vision-only encoders."""

from __future__ import annotations

from typing import Any

import torch
from families_base import VISION, Family, make, prompt, text_config


def _decoder(model: str, config: str, **more: Any) -> Family:
    return Family(make(model, text_config(config, **more)), prompt(0), (0, 2))


def llama() -> Family:
    """Build a text-only decoder."""
    return _decoder("LlamaForCausalLM", "LlamaConfig")


def gpt2() -> Family:
    """Fused projections in `Conv1D`, learned positions, tied head."""
    import transformers

    config = transformers.GPT2Config(
        vocab_size=128,
        n_positions=128,
        n_embd=32,
        n_layer=2,
        n_head=4,
        bos_token_id=1,
        eos_token_id=None,
        pad_token_id=0,
    )
    return Family(make("GPT2LMHeadModel", config), prompt(0), (0, 2))


def mixtral() -> Family:
    """Build a text-only mixture of experts."""
    return _decoder("MixtralForCausalLM", "MixtralConfig", num_local_experts=4, num_experts_per_tok=2)


def t5() -> Family:
    """Build a text encoder and decoder with position biases and a shared embedding."""
    import transformers

    config = transformers.T5Config(
        vocab_size=128,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_decoder_layers=2,
        num_heads=4,
        pad_token_id=0,
        eos_token_id=None,
    )
    model = make("T5ForConditionalGeneration", config)
    model.generation_config.decoder_start_token_id = 0
    return Family(model, prompt(0), (0, 4))


def _encoder(model: str, config: str, **more: Any) -> Family:
    import transformers

    built = make(model, getattr(transformers, config)(**{**VISION, **more}))
    return Family(built, {"pixel_values": torch.randn(2, 3, 28, 28)}, (2, 0), generates=False)


def clip_vision() -> Family:
    """Build an encoder-only vision model."""
    return _encoder("CLIPVisionModel", "CLIPVisionConfig")


def siglip_vision() -> Family:
    """Build an encoder with an attention-pooling head of torch's own `MultiheadAttention`."""
    return _encoder("SiglipVisionModel", "SiglipVisionConfig")


def vit() -> Family:
    """Build an encoder whose blocks have no list of their own name."""
    return _encoder("ViTModel", "ViTConfig")


def dinov2() -> Family:
    """Build an encoder with layer scale."""
    return _encoder("Dinov2Model", "Dinov2Config", mlp_ratio=2)
