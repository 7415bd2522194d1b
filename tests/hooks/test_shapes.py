"""FLOPs of what ran: equal to independent counters on every family, under every attention kernel, and balanced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import closed_form
import families
import pytest
import torch
from families_base import Family
from layerprof.hooks.shapes import ShapesHook
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from work_sums import parts

from layerprof.layers.find import find_layers
from layerprof.readings import Work, WorkReading
from layerprof.records import Phase

NAMES = sorted(families.FAMILIES)
RETURN_WEIGHTS = ("kosmos2", "pix2struct")
"""Families whose modules hand out attention's weights where a kernel gives them, which crosses their boundary."""
GENERATING = [name for name in NAMES if name not in ("clip_vision", "siglip_vision", "vit", "dinov2")]


def read(family: Family, new_tokens: int = 3, run: Callable[[Family, int], Any] = families.run) -> WorkReading:
    """Count one answer of a family."""
    hook = ShapesHook(family.model, find_layers(family.model))
    with hook, hook.batch(0, attention_mask=family.inputs.get("attention_mask")):
        run(family, new_tokens)
    return hook.reading()  # type: ignore[no-any-return]  # mypy knows hooks/ by another name


def triangular_solve(a: torch.Size, b: torch.Size, *_: Any, **__: Any) -> int:
    """Each unknown of each right-hand side takes off the products of those known before."""
    return b.numel() * (a[-1] - 1)


def oracle(name: str, new_tokens: int = 3) -> int:
    """Count with torch's own counter under eager attention; of gated delta rules it does not know the triangles."""
    family = families.build(name, "eager")
    family.model.requires_grad_(False)  # the counter's module tracker stumbles over learned queries otherwise
    if hasattr(family.model, "set_experts_implementation"):
        family.model.set_experts_implementation("eager")  # it does not know grouped products
    # Some models keep fused attention whatever they are told, and the counter does not know all of its kernels.
    told = {torch.ops.aten.linalg_solve_triangular: triangular_solve}
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False, custom_mapping=told) as counter:
        families.run(family, new_tokens)
    return int(counter.get_total_flops())


def of(reading: WorkReading, phase: Phase, *words: str) -> Work:
    """Sum the work of the layers whose names contain all words, in one phase."""
    found = [w for (name, p), w in reading.layers.items() if p is phase and all(word in name for word in words)]
    return sum(found, Work())


@pytest.mark.parametrize("name", NAMES)
def test_the_total_is_the_oracle_s_and_the_books_balance(name: str) -> None:
    """Under eager attention FlopCounterMode counts the same to the last digit; layers and rest add up to it."""
    reading = read(families.build(name, "eager"))
    assert reading.total_flops == oracle(name)
    assert parts(reading) == reading.total_flops
    assert reading.uncounted == {}


@pytest.mark.parametrize("name", [name for name in NAMES if name != "git"])  # GIT has no other attention than eager
def test_the_kernel_of_attention_changes_no_figure(name: str) -> None:
    """FLOPs, useful and causal part, and bytes of every layer are those of eager attention under SDPA too."""
    eager, fused = (read(families.build(name, attention)).layers for attention in ("eager", "sdpa"))
    if name in RETURN_WEIGHTS:
        eager, fused = ({k: replace(w, bytes_activations=0) for k, w in r.items()} for r in (eager, fused))
    assert fused == eager


def test_flex_attention_counts_the_same() -> None:
    """The higher-order operator is seen, with its causal mask as a function."""
    eager, flex = (read(families.build("llama", name)) for name in ("eager", "flex_attention"))
    assert {k: w.flops for k, w in flex.layers.items()} == {k: w.flops for k, w in eager.layers.items()}
    prefill = [of(r, Phase.PREFILL, "layers.0") for r in (eager, flex)]
    assert prefill[0] == prefill[1]


# --- the closed form of Qwen2.5-VL ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("new_tokens", "attention"), [(1, "eager"), (4, "sdpa")])
def test_qwen_layer_by_layer_is_the_closed_form(new_tokens: int, attention: str) -> None:
    """Windowed and full blocks, merger, a left-padded batch and its decode steps, all from the configuration alone."""
    family = families.build("qwen2_5_vl", attention)
    reading = read(family, new_tokens)
    rows, prompt = family.inputs["input_ids"].shape
    grids = [tuple(grid) for grid in family.inputs["image_grid_thw"].tolist()]
    form = closed_form.qwen2_5_vl(family.model.config.to_dict(), grids, rows, prompt, new_tokens)
    blocks = [of(reading, Phase.VISION, f"blocks.{i}").flops for i in range(3)]
    assert blocks == form.vision_blocks
    assert of(reading, Phase.VISION, "patch_embed").flops == form.patch_embed
    assert of(reading, Phase.VISION, "merger").flops == form.merger
    assert [of(reading, Phase.PREFILL, f"layers.{i}").flops for i in range(2)] == form.prefill_layers
    assert of(reading, Phase.PREFILL, "lm_head").flops == form.lm_head
    rotary = {phase: of(reading, phase, "language", "rotary_emb").flops for phase in (Phase.PREFILL, Phase.DECODE)}
    config = family.model.config.to_dict()
    assert rotary[Phase.PREFILL] in families.rotary_products(config, rows, prompt)
    assert rotary[Phase.DECODE] in families.rotary_products(config, rows, new_tokens - 1)
    assert of(reading, Phase.DECODE).flops == form.decode + rotary[Phase.DECODE]
    assert reading.total_flops == form.total + sum(rotary.values())


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_queries_wider_than_values_are_counted_as_they_are(attention: str) -> None:
    """In latent attention scores run over a width of 12 and weighted values over 8: a dense layer by its formula."""
    family = families.build("deepseek_v3", attention)
    rows, prompt = family.inputs["input_ids"].shape
    config = family.model.config.to_dict()
    expected = closed_form.latent_attention(config, rows, prompt) + closed_form.gated_mlp(config, rows * prompt)
    assert of(read(family, 1), Phase.PREFILL, "layers.0").flops == expected


def text_batch(lengths: list[int]) -> dict[str, torch.Tensor]:
    """Make left-padded prompts of the given lengths."""
    longest = max(lengths)
    mask = torch.tensor([[0] * (longest - n) + [1] * n for n in lengths])
    return {"input_ids": torch.full((len(lengths), longest), 7) * mask, "attention_mask": mask}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("lengths", [[6], [6, 6], [9, 2, 5]])
def test_useful_and_causal_work_of_a_padded_batch(attention: str, lengths: list[int]) -> None:
    """Real queries meet real keys; a causal prompt shows n (n + 1) / 2 pairs. Decode hides nothing but padding."""
    model = families.build("llama", attention).model
    rows, longest, real = len(lengths), max(lengths), sum(lengths)
    reading = read(Family(model, text_batch(lengths), (0, 2)), 3)
    linear = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48)  # q and o, k and v of two key heads, gate up and down
    pairs_useful = sum(n * n for n in lengths)
    prefill = of(reading, Phase.PREFILL, "layers.0")
    assert prefill.flops == closed_form.decoder_layer(model.config.to_dict(), rows, longest, longest)
    assert prefill.flops_useful == real * linear + 4 * 32 * pairs_useful
    assert prefill.flops_causal == rows * longest * linear + 4 * 32 * rows * longest * (longest + 1) // 2
    decode = of(reading, Phase.DECODE, "layers.1")
    seen = sum(longest + step for step in (1, 2))
    assert decode.flops == decode.flops_causal == 2 * rows * linear + 4 * 32 * rows * seen
    assert decode.flops_useful == 2 * rows * linear + 4 * 32 * sum(n + step for n in lengths for step in (1, 2))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_cache_of_fixed_length_executes_its_whole_length(attention: str) -> None:
    """A decode step meets every slot, filled or not; the useful and the causal part are those of the filled ones."""
    model = families.build("llama", attention).model
    inputs = text_batch([5, 5])

    def run(family: Family, new_tokens: int) -> None:
        with torch.no_grad():
            family.model.generate(
                **family.inputs, max_new_tokens=new_tokens, min_new_tokens=new_tokens, do_sample=False,
                cache_implementation="static",
            )  # fmt: skip

    static, growing = read(Family(model, inputs, (0, 2)), 3, run), read(Family(model, inputs, (0, 2)), 3)
    for phase in (Phase.PREFILL, Phase.DECODE):
        one, other = of(static, phase, "layers.0"), of(growing, phase, "layers.0")
        # SDPA cuts the unfilled slots off in a prefill without padding.
        assert one.flops > other.flops or (phase is Phase.PREFILL and attention == "sdpa")
        assert one.flops_useful == other.flops_useful
        assert one.bytes_kv == other.bytes_kv
    assert of(static, Phase.DECODE, "layers.0").flops_causal == of(growing, Phase.DECODE, "layers.0").flops_causal


def test_a_prefix_that_sees_itself_hides_nothing() -> None:
    """PaliGemma's prompt is bidirectional, so its causal count is the executed one; LLaVA's is not."""
    pali, llava = (of(read(families.build(n)), Phase.PREFILL, "language_model.layers") for n in ("paligemma", "llava"))
    assert pali.flops_causal == pali.flops
    assert llava.flops_causal < llava.flops


def test_sliding_windows_show_fewer_pairs() -> None:
    """Gemma 3's first layer looks back over 6 positions, its second over all; both compute the same products."""
    reading = read(families.build("gemma3"))
    windowed, whole = (of(reading, Phase.PREFILL, f"language_model.layers.{i}") for i in range(2))
    assert windowed.flops == whole.flops
    assert windowed.flops_causal < whole.flops_causal


def test_vision_is_all_useful() -> None:
    """Images have no padding here, and no causal mask."""
    for name in GENERATING:
        work = of(read(families.build(name)), Phase.VISION)
        assert work.flops == work.flops_useful == work.flops_causal


def test_several_images_and_frames_and_an_odd_grid() -> None:
    """Two images of different size in one prompt: the closed form of their grids."""
    family = families.build("qwen2_5_vl", "sdpa")
    grids = [(1, 6, 4), (1, 8, 10)]
    tokens = [t * h * w // 4 for t, h, w in grids]
    ids = torch.tensor([[5, *([120] * tokens[0]), 6, *([120] * tokens[1]), 7]])
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == 120).int(),
        "image_grid_thw": torch.tensor(grids),
        "pixel_values": torch.randn(sum(t * h * w for t, h, w in grids), 1176),
    }
    reading = read(Family(family.model, inputs, (3, 2)), 2)
    config = family.model.config.to_dict()
    form = closed_form.qwen2_5_vl(config, grids, 1, ids.shape[1], 2)
    assert reading.total_flops - form.total in families.rotary_products(config, 1, ids.shape[1] + 1)


# --- mixtures of experts, beams, modes of torch --------------------------------------------------------------------


@pytest.mark.parametrize("implementation", ["eager", "batched_mm", "grouped_mm"])
def test_only_the_experts_that_ran_are_counted(implementation: str) -> None:
    """Two of four experts a token, however they are dispatched."""
    family = families.build("mixtral")
    family.model.set_experts_implementation(implementation)
    reading = read(family, 1)
    rows, prompt = family.inputs["input_ids"].shape
    expected = closed_form.mixture_layer(family.model.config.to_dict(), rows, prompt, prompt)
    assert of(reading, Phase.PREFILL, "layers.0").flops == expected


def test_beams_multiply_the_rows() -> None:
    """Two beams of two rows are four rows."""

    def run(family: Family, new_tokens: int) -> None:
        with torch.no_grad():
            family.model.generate(**family.inputs, max_new_tokens=2, min_new_tokens=2, num_beams=2, do_sample=False)

    one, two = read(families.build("llama"), 2), read(families.build("llama"), 2, run)
    for phase in (Phase.PREFILL, Phase.DECODE):
        assert of(two, phase, "layers").flops == 2 * of(one, phase, "layers").flops
        assert of(two, phase, "layers").flops_useful == 2 * of(one, phase, "layers").flops_useful


def test_inference_mode_counts_the_same() -> None:
    """There composite operators reach the counter whole."""

    def run(family: Family, new_tokens: int) -> None:
        with torch.inference_mode():
            family.model.generate(
                **family.inputs, max_new_tokens=new_tokens, min_new_tokens=new_tokens, do_sample=False
            )

    for attention in ("eager", "sdpa"):
        assert (
            read(families.build("llama", attention), 3, run).layers == read(families.build("llama", attention)).layers
        )


def test_compiled_layers_are_counted_operator_by_operator() -> None:
    """Compilation is put aside for the count, whether of the model, its decoder or its blocks."""
    expected = read(families.build("llama")).total_flops
    whole, inner, blocks = (families.build("llama").model for _ in range(3))
    inner.model.compile()
    for layer in blocks.model.layers:
        layer.compile()
    for model in (torch.compile(whole), inner, blocks):
        assert read(Family(model, families.build("llama").inputs, (0, 2))).total_flops == expected


def test_autocast_and_half_precision_change_no_flops() -> None:
    """The shapes are the same in bfloat16; the bytes of weights halve."""
    half = families.build("qwen2_5_vl")
    half.model.to(torch.bfloat16)
    half.inputs["pixel_values"] = half.inputs["pixel_values"].bfloat16()
    one, two = read(families.build("qwen2_5_vl")), read(half)
    assert one.total_flops == two.total_flops
    assert of(one, Phase.PREFILL, "layers").bytes_weights == 2 * of(two, Phase.PREFILL, "layers").bytes_weights
