"""Tokens and keys beside layers: what each call was given and what its attention may read, equal to counts by hand."""

from __future__ import annotations

from typing import Any

import families
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # torch's own documentation calls it so
from families_base import Family
from layerprof.hooks.shapes import ShapesHook
from paths import ROOT
from pruned_vlm import PATCH, PrunedVlm, block_flops
from torch import nn

from layerprof.layers.find import find_layers
from layerprof.layers.selector import select
from layerprof.readings import Work, WorkReading
from layerprof.records import Phase

VISION, PREFILL, DECODE = Phase.VISION, Phase.PREFILL, Phase.DECODE
Means = tuple[float | None, float | None]


class Parts(nn.Module):
    """Attends in two parts of its queries to all its positions, and to three of them apart."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Work on (1, 10, 8)."""
        heads = self.first(hidden_states).view(1, 10, 2, 4).transpose(1, 2)
        three = heads[..., :3, :].clone()
        first, second = (
            F.scaled_dot_product_attention(q, heads, heads) for q in (heads[..., :5, :], heads[..., 5:, :])
        )
        return torch.cat([first, second, F.scaled_dot_product_attention(heads, three, three)], -2)


def read(family: Family, new_tokens: int = 3, *, selector: str = "all", **more: Any) -> WorkReading:
    """Count one answer of a family."""
    model = family.model
    hook = ShapesHook(model, select(find_layers(model), selector, model))
    with hook, hook.batch(0, attention_mask=family.inputs.get("attention_mask")), torch.no_grad():
        if family.generates:
            exactly = {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens}
            model.generate(**family.inputs, **exactly, do_sample=False, **more)
        else:
            model(**family.inputs)
    assert hook.failure is None
    return hook.reading()  # type: ignore[no-any-return]  # mypy knows hooks/ by another name


def means(reading: WorkReading, phase: Phase, *words: str) -> set[Means]:
    """Return (tokens, keys) of the mean call of the layers whose names contain all words."""
    rows = [w for (name, p), w in reading.whole.items() if p is phase and all(word in name for word in words)]
    return {(work.tokens_per_call, work.kv_per_call) for work in rows}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_vision_language_model_by_hand(attention: str) -> None:
    """Two images of 6 x 4 patches, merged to 6 tokens each, in prompts of 13 positions; 3 tokens are written.

    Windowed blocks read the keys of all patches, as do full ones. The shorter prompt is padded to the longer.
    """
    reading = read(families.build("qwen2_5_vl", attention))
    assert means(reading, VISION, "patch_embed") == means(reading, VISION, "merger") == {(48, None)}
    assert means(reading, VISION, "blocks") == {(48, 48)}
    assert means(reading, PREFILL, "embed_tokens") == means(reading, PREFILL, "language_model.norm") == {(26, None)}
    assert means(reading, PREFILL, "layers") == {(26, 26)}
    assert means(reading, DECODE, "layers") == {(2, 2 * (14 + 15) / 2)}
    assert means(reading, PREFILL, "lm_head") == means(reading, DECODE, "lm_head") == {(2, None)}
    assert means(reading, DECODE, "rotary") == {(None, None)}


@pytest.mark.parametrize("name", ["llama", "gpt2", "mixtral", "deepseek_v3"])
def test_text_alone(name: str) -> None:
    """Two rows of 7 positions; experts and latent attention change nothing of it."""
    reading = read(families.build(name, "sdpa"))
    layer = ".h." if name == "gpt2" else "layers"
    assert means(reading, PREFILL, layer) == {(14, 14)}
    assert means(reading, DECODE, layer) == {(2, 17)}


def test_layers_without_attention_have_tokens_and_no_keys() -> None:
    """Of a hybrid decoder the linear-attention layers keep a state, no positions."""
    reading = read(families.build("qwen3_5", "sdpa"))
    assert means(reading, PREFILL, "layers") == {(22, None), (22, 22)}
    assert means(reading, DECODE, "layers") == {(2, None), (2, 25)}


def test_beams_are_rows() -> None:
    """Three beams of two prompts: the prompt is read in 6 rows, as are the steps."""
    reading = read(families.build("llama", "sdpa"), num_beams=3)
    assert means(reading, PREFILL, "layers") == {(6 * 7, 6 * 7)}
    assert means(reading, DECODE, "layers") == {(6, 6 * 8.5)}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_static_cache_counts_as_far_as_it_is_filled(attention: str) -> None:
    """The cache is allocated for the whole answer of 7 + 8 positions from the start."""
    reading = read(families.build("llama", attention), 9, cache_implementation="static", disable_compile=True)
    assert means(reading, PREFILL, "layers") == {(14, 14)}
    assert means(reading, DECODE, "layers") == {(2, 2 * sum(range(8, 16)) / 8)}


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_sliding_window_ends_what_may_be_read(attention: str, cache: str) -> None:
    """A window of 6 over prompts of 11: the prefill reads all keys, a step 6 of them; full layers grow."""
    more: dict[str, Any] = {} if cache == "dynamic" else {"cache_implementation": "static", "disable_compile": True}
    reading = read(families.build("gemma3", attention), **more)
    assert means(reading, PREFILL, "layers", "language") == {(22, 22)}
    assert means(reading, DECODE, "layers", "language") == {(2, 12), (2, 25)}


def test_a_decoder_reads_its_encoder_s_positions_beside_its_own() -> None:
    """Encoded prompts of 7 in two rows; the decoder begins with one position and writes three."""
    reading = read(families.build("t5", "eager"))
    assert means(reading, PREFILL, "encoder.block") == {(14, 14)}
    assert means(reading, PREFILL, "decoder.block") == {(2, 2 * (7 + 1))}
    assert means(reading, DECODE, "decoder.block") == {(2, 2 * (7 + 2.5))}


def test_cross_attention_reads_the_image() -> None:
    """One layer of Llama 3.2 attends to 2 tiles of 5 positions instead of the text."""
    reading = read(families.build("mllama", "sdpa"))
    assert means(reading, PREFILL, "language_model.layers") == {(16, 16), (16, 20)}
    assert means(reading, DECODE, "language_model.layers") == {(2, 2 * 9.5), (2, 20)}


def test_feature_maps_and_attention_over_channels() -> None:
    """Florence 2 goes from 8 x 8 to 4 x 4 positions; channels that attend to each other are no positions."""
    reading = read(families.build("florence2", "sdpa"))
    assert means(reading, VISION, "vision_tower", "blocks") == {(128, 128), (32, 32)}
    assert means(reading, VISION, "convs") == {(128, None), (32, None)}


def test_packed_images_and_pooled_ones() -> None:
    """Pixtral packs two images of 16 patches into one row; SigLIP's pooling asks once of each image's 4 patches."""
    assert means(read(families.build("mistral3", "sdpa")), VISION, "layers") == {(32, 32)}
    assert means(read(families.build("siglip_vision", "sdpa")), VISION, "head") == {(8, 8)}


def test_submodules_say_what_they_were_given() -> None:
    """A projection and a norm of single heads have the layer's positions; attention is where the keys are read."""
    reading = read(families.build("qwen3_vl", "sdpa"), selector="all,*.self_attn,*.self_attn.*")
    assert means(reading, PREFILL, "layers.0.self_attn.q_proj") == {(22, None)}
    assert means(reading, PREFILL, "layers.0.self_attn.q_norm") == {(22, None)}
    attention = [w for (name, p), w in reading.whole.items() if p is PREFILL and name.endswith("layers.0.self_attn")]
    assert [(w.tokens_per_call, w.kv_per_call) for w in attention] == [(22, 22)]
    assert reading.layers == read(families.build("qwen3_vl", "sdpa")).layers


def test_keys_that_several_operators_read_count_once() -> None:
    """Queries in two parts read the same 10 keys of a row; other keys of the call are beside them."""
    model = nn.Sequential(Parts(), Parts())
    hook = ShapesHook(model, find_layers(model))
    with hook, hook.batch(0), torch.no_grad():
        model[0](torch.ones(1, 10, 8))
    reading = hook.reading()
    assert [(w.tokens, w.kv) for w in reading.whole.values()] == [(10, 13)]


def test_flex_attention_reads_what_eager_attention_does() -> None:
    """Its mask is a function of positions."""
    eager, flex = (read(families.build("llama", name)) for name in ("eager", "flex_attention"))
    assert {key: (w.tokens, w.kv) for key, w in eager.whole.items()} == {
        key: (w.tokens, w.kv) for key, w in flex.whole.items()
    }


# --- tokens that are merged and dropped between layers --------------------------------------------------------------


def pruned(rows: int = 2, new_tokens: int = 4, keep_after: int | None = 2) -> WorkReading:
    """Answer prompts of 8 x 4 patches (16 image tokens once merged) and 5 words."""
    torch.manual_seed(0)
    model = PrunedVlm(keep_after=keep_after).eval()
    hook = ShapesHook(model, find_layers(model))
    with hook, hook.batch(0):
        model.generate(torch.randn(rows, 3, 8 * PATCH, 4 * PATCH), torch.ones(rows, 5, dtype=torch.long), new_tokens)
    assert hook.failure is None
    return hook.reading()  # type: ignore[no-any-return]  # mypy knows hooks/ by another name


def test_merged_patches_show_beside_vision_blocks_and_in_their_work() -> None:
    """32 patches enter the first block, 16 each later one: half the tokens, and less than half the work."""
    rows, reading = 2, pruned()
    blocks = {name: work for (name, phase), work in reading.whole.items() if phase is VISION}
    assert blocks["visual.patch_embed"].tokens_per_call == rows * 32
    shown = [(blocks[f"visual.blocks.{i}"].tokens_per_call, blocks[f"visual.blocks.{i}"].kv_per_call) for i in range(3)]
    assert shown == [(64, 64), (32, 32), (32, 32)]
    assert blocks["visual.blocks.0"].flops == block_flops(rows * 32, rows * 32 * 32)
    assert blocks["visual.blocks.1"].flops == block_flops(rows * 16, rows * 16 * 16)


def test_dropped_image_tokens_show_beside_decoder_layers_and_in_their_work() -> None:
    """21 positions enter two layers, 13 the others (8 of 16 image tokens): in prefill and, cached, in every step."""
    rows, reading = 2, pruned()
    for number, positions in enumerate((21, 21, 13, 13)):
        prefill, decode = (reading.whole[f"layers.{number}", phase] for phase in (PREFILL, DECODE))
        assert (prefill.tokens_per_call, prefill.kv_per_call) == (rows * positions, rows * positions)
        assert prefill.flops == block_flops(rows * positions, rows * positions**2)
        steps = [positions + step for step in (1, 2, 3)]
        assert (decode.tokens_per_call, decode.kv_per_call) == (rows, rows * sum(steps) / 3)
        assert decode.flops == sum(block_flops(rows, rows * keys) for keys in steps)


def test_without_pruning_all_layers_are_alike() -> None:
    """The same model that drops nothing: its later layers do what its first do."""
    layers = [w for (name, phase), w in pruned(keep_after=None).whole.items() if "layers" in name and phase is PREFILL]
    assert [(w.tokens_per_call, w.flops) for w in layers] == [(42, block_flops(42, 2 * 21**2))] * 4


def test_the_example_of_the_docs_is_this_model() -> None:
    """The table of docs/flops.md is what is counted here."""
    lines = (ROOT / "docs" / "flops.md").read_text().splitlines()
    example = [
        line for line in lines if line.startswith(("| vision block ", "| decoder layer ")) and line.count("|") == 7
    ]
    found = pruned().whole
    names = ("visual.blocks.0", "visual.blocks.2", "layers.1", "layers.3")
    rows = [next(work for (name, phase), work in found.items() if name == n and phase is not DECODE) for n in names]
    figures = [(w.tokens, w.kv, w.flops, w.flops // w.tokens) for w in rows]
    assert [tuple(int(c.replace(",", "")) for c in line.split("|")[3:7]) for line in example] == figures


# --- means ----------------------------------------------------------------------------------------------------------


def test_sums_over_calls_give_the_mean_of_one() -> None:
    """Chunks of 4 and 3 positions: 3.5 a call on average; nothing counted is no figure."""
    assert (Work(2, tokens=4 + 3).tokens_per_call, Work(2, kv=4 + 7).kv_per_call) == (3.5, 5.5)
    assert (Work(2).tokens_per_call, Work().kv_per_call) == (None, None)
