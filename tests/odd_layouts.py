"""Small models whose layers hold their positions elsewhere than most, or remember in another way than by a KV cache."""

from __future__ import annotations

from typing import Any

import transformers as t

SMALL: dict[str, Any] = {"vocab_size": 128, "hidden_size": 32, "num_hidden_layers": 2, "eos_token_id": None}
WRITES: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1}


def gemma3n() -> Any:
    """Hidden states of (altup, rows, positions, features)."""
    kinds = ["sliding_attention", "full_attention"]
    heads: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    config = t.Gemma3nTextConfig(
        **SMALL, **heads, vocab_size_per_layer_input=128, intermediate_size=[48] * 2, hidden_size_per_layer_input=8,
        laurel_rank=4, altup_num_inputs=3, num_kv_shared_layers=0, sliding_window=16, layer_types=kinds,
        activation_sparsity_pattern=[0.0] * 2, pad_token_id=0,
    )  # fmt: skip
    return t.Gemma3nForCausalLM(config)


def _sides(layers: str, **widths: int) -> dict[str, Any]:
    told = {layers.format(side): 2 for side in ("encoder", "decoder")}
    return told | {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in widths.items()}


def prophetnet() -> Any:
    """Hidden states of (rows, 3 streams of positions, features) in the decoder."""
    config = t.ProphetNetConfig(
        vocab_size=128, hidden_size=32, ngram=2, num_buckets=8, relative_max_distance=16, max_position_embeddings=64,
        num_encoder_layers=2, num_decoder_layers=2, num_encoder_attention_heads=4, num_decoder_attention_heads=4,
        encoder_ffn_dim=48, decoder_ffn_dim=48, eos_token_id=None, pad_token_id=0, decoder_start_token_id=1,
    )  # fmt: skip
    return t.ProphetNetForConditionalGeneration(config)


def fsmt() -> Any:
    """Hidden states of (positions, rows, features); the table that the decoder reads with writes, too."""
    config = t.FSMTConfig(
        langs=["en", "de"], src_vocab_size=128, tgt_vocab_size=128, d_model=32, max_position_embeddings=64,
        **_sides("{}_layers", ffn_dim=48, attention_heads=4), eos_token_id=None, **WRITES, decoder_start_token_id=2,
        forced_eos_token_id=None,
    )  # fmt: skip
    return t.FSMTForConditionalGeneration(config)


def bart() -> Any:
    """Build an encoder and a decoder that begins with one token."""
    config = t.BartConfig(
        vocab_size=128, d_model=32, max_position_embeddings=64, **_sides("{}_layers", ffn_dim=48, attention_heads=4),
        eos_token_id=None, **WRITES, decoder_start_token_id=2, forced_eos_token_id=None,
    )  # fmt: skip
    return t.BartForConditionalGeneration(config)


def whisper() -> Any:
    """Build an encoder of sound and a decoder."""
    config = t.WhisperConfig(
        vocab_size=128, d_model=32, num_mel_bins=8, max_source_positions=8, max_target_positions=64,
        **_sides("{}_layers", ffn_dim=48, attention_heads=4), eos_token_id=None, **WRITES, decoder_start_token_id=2,
        suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    return t.WhisperForConditionalGeneration(config)


def rwkv() -> Any:
    """Build a decoder that remembers in a list of states."""
    return t.RwkvForCausalLM(
        t.RwkvConfig(**SMALL, **WRITES, attention_hidden_size=32, intermediate_size=48, context_length=64)
    )


def mamba() -> Any:
    """Build a decoder that remembers in a cache without a length."""
    return t.MambaForCausalLM(t.MambaConfig(**SMALL, **WRITES, state_size=4))


def llama() -> Any:
    """Build a decoder as most are."""
    config = t.LlamaConfig(**SMALL, **WRITES, intermediate_size=48, num_attention_heads=4, num_key_value_heads=2)
    return t.LlamaForCausalLM(config)
