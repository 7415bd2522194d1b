"""The estimate of a model that is never loaded: a real run's figures, a closed form's, and a roofline's arithmetic."""

from __future__ import annotations

import io
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import closed_form
import families
import pytest
import torch
from families_base import IMAGE
from hypothesis import given
from hypothesis import strategies as st
from layerprof.hooks.shapes import ShapesHook
from rich.console import Console

from layerprof.errors import RequestError
from layerprof.estimate.estimate import estimate
from layerprof.estimate.ghost import Ghosts, is_ghost
from layerprof.estimate.rehearsal import sum_of_lower
from layerprof.estimate.result import Estimate
from layerprof.layers.find import find_layers
from layerprof.machine.gpus import gpu_by_name
from layerprof.readings import Work
from layerprof.records import IN_TURN, Phase
from layerprof.report.estimate import render

CONFIG: dict[str, Any] = json.loads((files("layerprof.models") / "qwen2_5_vl_3b.json").read_text())
LIKE_A_RUN = (
    *("qwen2_vl", "qwen2_5_vl", "llava", "idefics3", "gemma3", "mllama", "internvl", "llama", "gpt2", "t5"),
    *("blip2", "idefics2", "llava_next", "ovis2", "llama4", "deepseek_vl", "cohere2_vision", "aya_vision"),
    *("zamba2", "paligemma", "smolvlm", "llava_onevision"),
)


def known(flops: int | None) -> int:
    """Return FLOPs of which something must have been counted."""
    assert flops is not None
    return flops


@pytest.fixture(scope="module")
def golden() -> Estimate:
    """Estimate the 3B model at 448 pixels and 322 prompt tokens, with one decode step, on an H200."""
    return estimate("qwen2.5-vl-3b", image_size=448, text_tokens=66, new_tokens=2, gpu="H200")


def test_the_golden_numbers_come_out(golden: Estimate) -> None:
    """3160.91 GFLOP of prefill, vision 1342.91 of it, 6.267 for the token at KV length 323."""
    vision, prefill, decode = (known(golden.phases[phase].flops) for phase in IN_TURN)
    assert round((vision + prefill) / 1e9, 2) == 3160.91
    assert round(vision / 1e9, 2) == 1342.91
    assert round(decode / 1e9, 3) == 6.267
    assert golden.settings["prompt_tokens"] == 322


def test_a_hub_model_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network that is one message at once, and the hub's own client is not left to try again and again."""
    import huggingface_hub
    import transformers

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", lambda *_, **__: pytest.fail("asked again"))
    with pytest.raises(RequestError, match=r"cannot be reached .ConnectionError: no route") as caught:
        estimate("someone/something@abc")
    assert "demo" in caught.value.remedy


def test_many_rows_cost_as_often_as_much() -> None:
    """Rows of one length share nothing but weights: 700 of them are 700 times the work, at 115,000 positions too."""
    one, many = (known(estimate("demo", batch_size=rows, new_tokens=2).totals.flops) for rows in (1, 700))
    assert many == 700 * one


lines = st.tuples(st.integers(-50, 50), st.integers(-9, 9))


@given(lines, lines, st.integers(1, 40))
def test_a_long_answer_is_added_up_by_formula(one: tuple[int, int], other: tuple[int, int], steps: int) -> None:
    """The sum of the lower of two lines is that of adding step by step, wherever they cross."""
    by_step = sum(min(start + slope * step for start, slope in (one, other)) for step in range(1, steps + 1))
    assert sum_of_lower(one, other, steps) == by_step


def test_the_full_size_model_is_the_published_one(golden: Estimate) -> None:
    """3,754,622,976 parameters, in float16, and 36,864 bytes of cache per position."""
    assert golden.model["parameters"] == 3_754_622_976
    assert golden.memory.weights >= 2 * 3_754_622_976
    assert golden.memory.kv_cache == 36_864 * 323


def test_the_books_balance(golden: Estimate) -> None:
    """Layers and rest are the total to the last FLOP, and the rows are all there."""
    column = golden.ledger["flops"]
    assert column.residual == 0
    assert column.total == golden.totals.flops
    per_kind = {kind: sum(r.kind == kind for r in golden.layers) for kind in ("vision_block", "decoder_layer")}
    assert per_kind == {"vision_block": 32, "decoder_layer": 2 * 36}


@pytest.mark.parametrize(
    ("rows", "pixels", "text", "new_tokens"), [(1, 224, 100, 1), (3, 224, 70, 128), (2, 336, 70, 2), (1, 140, 7, 3)]
)
def test_the_whole_answer_is_the_closed_form(rows: int, pixels: int, text: int, new_tokens: int) -> None:
    """Batches, sizes, prompts and lengths of the full-size model, to the last digit."""
    got = estimate(CONFIG, batch_size=rows, image_size=pixels, text_tokens=text, new_tokens=new_tokens)
    side = pixels // 14
    prompt = text + (pixels // 28) ** 2
    form = closed_form.qwen2_5_vl(CONFIG, [(1, side, side)] * rows, rows, prompt, new_tokens)
    rotary = families.rotary_products(CONFIG, rows, prompt + new_tokens - 1)
    assert known(got.totals.flops) - form.total in rotary
    assert [r.flops for r in got.layers if r.kind == "vision_block"] == form.vision_blocks


@pytest.mark.parametrize(("rows", "pixels", "text", "new_tokens"), [(1, 224, 100, 2), (3, 336, 70, 128)])
def test_positions_beside_the_layers_of_the_full_size_model(rows: int, pixels: int, text: int, new_tokens: int) -> None:
    """Patches in the tower, the prompt in the prefill, one position a step, whose keys are those of half the answer."""
    got = estimate(CONFIG, batch_size=rows, image_size=pixels, text_tokens=text, new_tokens=new_tokens)
    patches, prompt = (pixels // 14) ** 2, text + (pixels // 28) ** 2
    shown = {(row.kind, row.phase): (row.tokens_per_call, row.kv_per_call) for row in got.layers}
    assert shown["patch_embed", Phase.VISION] == shown["merger", Phase.VISION] == (rows * patches, None)
    assert shown["vision_block", Phase.VISION] == (rows * patches, rows * patches)
    assert shown["decoder_layer", Phase.PREFILL] == (rows * prompt, rows * prompt)
    # Steps 1 to n read prompt + step keys: prompt + (n + 1) / 2 on average.
    assert shown["decoder_layer", Phase.DECODE] == (rows, rows * (prompt + new_tokens / 2))
    assert shown["lm_head", Phase.PREFILL] == shown["lm_head", Phase.DECODE] == (rows, None)
    assert shown["rotary", Phase.DECODE] == (None, None)


def test_what_both_towers_have_has_two_names() -> None:
    """Each tower's rotary is an account of its own, as in the books of a run, whatever work the version does there."""
    got = estimate("demo", batch_size=2, image_size=112, text_tokens=7, new_tokens=1)
    vision, language = (
        sum(known(row.flops) for row in got.layers if row.kind == "rotary" and row.tower == tower)
        for tower in ("vision", "language")
    )
    rest = got.ledger["flops"].rest
    assert (rest["vision rotary"], rest["language rotary"]) == (vision, language)
    assert set(rest) - {"vision rotary", "language rotary"} == {
        *("patch_embed", "merger", "embed_tokens", "norm", "lm_head")
    }
    assert got.ledger["flops"].residual == 0


@pytest.mark.parametrize("name", LIKE_A_RUN)
def test_an_estimate_is_what_a_real_run_counts(name: str) -> None:
    """FLOPs and bytes of every layer are those that the hook reads from real tensors, over seven tokens."""
    family = families.build(name, "sdpa")
    config = family.model.config
    pixels = 56 if name.startswith("qwen") else 28
    got = estimate(config, batch_size=2, image_size=pixels, text_tokens=6, new_tokens=7, dtype="fp32")
    inputs = _like(family.inputs, got)
    hook = ShapesHook(family.model, find_layers(family.model))
    with hook, torch.no_grad(), hook.batch(0, attention_mask=inputs["attention_mask"]):
        family.model.generate(**inputs, max_new_tokens=7, min_new_tokens=7, do_sample=False)
    real = hook.reading()
    rows = {(row.name, row.phase): row for row in got.layers}
    assert set(rows) == set(real.layers)
    for key, work in real.layers.items():
        assert (rows[key].calls, rows[key].flops, rows[key].flops_causal) == (work.calls, work.flops, work.flops_causal)
        assert rows[key].bytes_kv == work.bytes_kv
        assert rows[key].bytes_weights == work.bytes_weights
        assert (rows[key].tokens_per_call, rows[key].kv_per_call) == (work.tokens_per_call, work.kv_per_call)
    assert got.ledger["flops"].residual == 0


def _like(inputs: dict[str, Any], got: Estimate) -> dict[str, Any]:
    """Make real inputs of the estimate's sizes."""
    torch.manual_seed(0)
    image, prompt = got.settings["image_tokens"], got.settings["prompt_tokens"]
    ids = torch.randint(3, 100, (2, prompt))
    ids[:, 1 : 1 + image] = IMAGE
    types = torch.eq(ids, IMAGE).int()
    made = {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
    made |= {name: types for name in ("mm_token_type_ids", "token_type_ids") if name in inputs}
    if "image_grid_thw" in inputs:
        made["image_grid_thw"] = torch.tensor([[1, 4, 4]] * 2)
        made["pixel_values"] = torch.randn(32, inputs["pixel_values"].shape[1])
    if "cross_attention_mask" in inputs:
        made["cross_attention_mask"] = torch.ones(2, prompt, 1, 2, dtype=torch.long)
    return made


def test_a_long_answer_under_a_sliding_window_is_exact() -> None:
    """The window of 6 fills within the answer; every step was counted in the real run."""
    family = families.build("gemma3", "sdpa")
    got = estimate(family.model.config, text_tokens=1, image_size=28, new_tokens=9, dtype="fp32")
    inputs = _like({**family.inputs, "pixel_values": family.inputs["pixel_values"][:1]}, got)
    inputs |= {name: inputs[name][:1] for name in ("input_ids", "attention_mask", "token_type_ids")}
    hook = ShapesHook(family.model, find_layers(family.model))
    with hook, torch.no_grad(), hook.batch(0):
        family.model.generate(**inputs, max_new_tokens=9, min_new_tokens=9, do_sample=False)
    decode = sum((w for (_, phase), w in hook.reading().layers.items() if phase is Phase.DECODE), Work())
    assert got.phases[Phase.DECODE].flops == decode.flops
    assert sum(row.bytes_kv for row in got.layers if row.phase is Phase.DECODE) == decode.bytes_kv
    keys = [row.kv_per_call for row in got.layers if row.phase is Phase.DECODE and row.kv_per_call is not None]
    assert sum(keys) == decode.kv / 8


def test_the_roof_is_the_slower_of_compute_and_memory(golden: Estimate) -> None:
    """Each row's time is the larger of FLOPs over peak and bytes over bandwidth, its energy that time at full power."""
    for row in golden.layers:
        compute, memory = known(row.flops) / 989.4e12, row.bytes / 4.8e12
        assert row.time_bound_s == pytest.approx(max(compute, memory))
        assert row.energy_estimate_j == pytest.approx(max(compute, memory) * 700)
        assert row.bound == ("compute" if compute >= memory else "memory")


def test_blocks_of_the_prefill_are_bound_by_compute_and_the_decode_by_memory(golden: Estimate) -> None:
    """At batch 1 a decode step reads 6.17 GB of weights for 6.3 GFLOP."""
    bounds = {(row.kind, row.phase): row.bound for row in golden.layers}
    assert bounds["vision_block", Phase.VISION] == bounds["decoder_layer", Phase.PREFILL] == "compute"
    assert bounds["decoder_layer", Phase.DECODE] == bounds["lm_head", Phase.DECODE] == "memory"
    assert golden.phases[Phase.DECODE].bytes == pytest.approx(6.17e9, rel=0.01)


def test_a_dtype_without_a_unit_has_no_bound() -> None:
    """A T4 multiplies no bfloat16: no time is made up, and a note says so."""
    got = estimate("demo", dtype="bf16", gpu="T4")
    assert got.totals.time_bound_s is None
    assert got.layers[0].energy_estimate_j is None
    assert any("bf16" in note for note in got.notes)


def test_what_does_not_fit_is_said() -> None:
    """A 3B model in float32 with its cache is more than 8 GB."""
    got = estimate("qwen2.5-vl-3b", dtype="fp32", new_tokens=1, gpu="Jetson-Orin-Nano")
    assert got.memory.fits is False
    assert "NOT" in rendered(got, 80)


def rendered(it: Estimate, width: int) -> str:
    """Render to text of a width."""
    out = io.StringIO()
    render(it, Console(file=out, width=width))
    return out.getvalue()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_tables_fit_their_width(golden: Estimate, width: int) -> None:
    """No line is longer than the terminal, and each kind of layer and phase is in it."""
    lines = rendered(golden, width).splitlines()
    assert max(map(len, lines)) <= width
    for word in ("vision_block", "decoder_layer", "lm_head", "prefill", "decode", "residual 0 FLOP", "H200"):
        assert any(word in line for line in lines), word


def test_the_json_has_the_names_of_a_run(golden: Estimate) -> None:
    """Scripts read an estimate's layers like a run's."""
    stored = json.loads(golden.to_json())
    names = {"name", "tower", "kind", "index", "phase", "calls", "flops", "bytes", "bytes_weights", "bytes_kv"}
    assert names <= set(stored["layers"][0])
    assert Estimate.model_validate(stored) == golden


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "no-such-folder"}, "no model"),
        ({"model": "./nowhere/config.json"}, "no model"),
        ({"model": {"model_type": "nonsense"}}, "nonsense"),
        ({"model": {}}, "model_type None"),
        ({"image_size": 225}, "225"),
        ({"image_size": 0}, "0"),
        ({"batch_size": 0}, "--batch-size is 0"),
        ({"text_tokens": -1}, "--text-tokens is -1"),
        ({"new_tokens": 0}, "--new-tokens is 0"),
        ({"new_tokens": 10**9}, "--new-tokens is 1000000000"),
        ({"batch_size": 10**6, "text_tokens": 10**6}, "1,000,000,000,000 positions"),
        ({"dtype": "int8"}, "int8"),
        ({"gpu": "H900"}, "H900"),
    ],
)
def test_what_cannot_be_estimated_is_refused_with_a_remedy(changes: dict[str, Any], said: str) -> None:
    """One message and exit 2 for each mistake."""
    with pytest.raises(RequestError, match=said) as caught:
        estimate(changes.pop("model", "demo"), **changes)
    assert caught.value.exit_code == 2
    assert caught.value.remedy


def test_a_broken_configuration_file_is_refused(tmp_path: Path) -> None:
    """A folder whose config.json is cut short names the file."""
    (tmp_path / "config.json").write_text('{"model_type": "llama", ')
    with pytest.raises(RequestError, match=r"config\.json"):
        estimate(tmp_path)


def test_a_folder_with_a_configuration_is_enough(tmp_path: Path) -> None:
    """No weights, tokenizer or processor is looked for."""
    family = families.build("llama")
    (tmp_path / "config.json").write_text(family.model.config.to_json_string())
    assert known(estimate(tmp_path, new_tokens=2).totals.flops) > 0


def test_numbers_that_json_lacks_are_read(tmp_path: Path) -> None:
    """Transformers writes infinity in a way of its own; such a folder loads, and so it can be estimated."""
    import transformers

    config: Any = transformers.Mamba2Config(
        vocab_size=64, hidden_size=16, num_heads=4, head_dim=8, n_groups=1, state_size=4, num_hidden_layers=2,
        time_step_limit=(0.0, float("inf")),
    )  # fmt: skip
    config.save_pretrained(tmp_path)
    assert len([row for row in estimate(tmp_path, new_tokens=1).layers if row.kind == "decoder_layer"]) == 2


def test_a_configuration_that_its_own_class_refuses_is_told(tmp_path: Path) -> None:
    """Checks of transformers have error classes of their own; all of them end in one message."""
    (tmp_path / "config.json").write_text('{"model_type": "llama", "hidden_size": 30, "num_attention_heads": 4}')
    with pytest.raises(RequestError, match="llama"):
        estimate(tmp_path)


def test_an_image_is_never_left_out_silently() -> None:
    """Chameleon's images become words of an autoencoder; a UDOP does not say how large its images are."""
    import transformers

    text = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1} | {
        "num_attention_heads": 2, "num_key_value_heads": 2, "vocabulary_map": {"<image>": 9, "IMGIMGAZ": 10},
    }  # fmt: skip
    words = {"resolution": 32, "base_channels": 32, "channel_multiplier": [1, 2], "num_res_blocks": 1} | {
        "embed_dim": 8, "num_embeddings": 1,
    }  # fmt: skip
    kind: Any = transformers.ChameleonConfig  # image_token_id is read, not declared
    chameleon = kind(vq_config=words, image_token_id=9, **text)
    got = estimate(chameleon, text_tokens=8, new_tokens=1)
    assert got.settings["prompt_tokens"] == 8 + (32 // 2) ** 2
    with pytest.raises(RequestError, match="how large its images are"):
        estimate(transformers.UdopConfig(d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=4, vocab_size=64))


def test_towers_of_one_size_say_so() -> None:
    """A tower made for 28 pixels cannot be given 224, and the estimate notes it."""
    got = estimate(families.build("llava").model.config, image_size=224, new_tokens=1)
    assert any("28 x 28" in note for note in got.notes)


def test_experts_run_evenly() -> None:
    """FLOPs are those of the chosen experts; the note says what their bytes rest on."""
    config = families.build("mixtral").model.config
    got = estimate(config, text_tokens=8, new_tokens=1, dtype="fp32")
    dense = estimate(families.build("llama").model.config, text_tokens=8, new_tokens=1, dtype="fp32")
    more = 8 * (2 * 2 * 3 * 32 * 48 - 2 * 3 * 32 * 48 + 2 * 32 * 4)
    layer = {
        it: next(known(r.flops) for r in e.layers if r.kind == "decoder_layer")
        for it, e in (("moe", got), ("llama", dense))
    }
    assert layer["moe"] == layer["llama"] + more
    assert any("Routing" in note for note in got.notes)


# --- devices ----------------------------------------------------------------------------------------------------


def test_peaks_are_in_the_order_that_everyone_knows() -> None:
    """Dense float16: a T4 below an L4 below an A100 below an H100; an H200 is an H100 with faster memory."""
    t4, l4, a100, h100, h200 = (gpu_by_name(name) for name in ("T4", "L4", "A100", "H100", "H200"))
    peaks = [gpu.peak("fp16") for gpu in (t4, l4, a100, h100)]
    assert peaks == sorted(peaks, key=lambda peak: peak or 0)
    assert h100.peak("fp16") == h200.peak("fp16")
    assert h100.bandwidth_bytes_s < h200.bandwidth_bytes_s


def test_complex_numbers_stay_without_storage() -> None:
    """Llama 4 turns queries as complex numbers; a view between the two kinds of ghosts is a ghost."""
    with Ghosts():
        large = torch.zeros(64, 1024, 2)
        turned = torch.view_as_complex(large) * torch.polar(torch.ones(1024), torch.zeros(1024))
        back = torch.view_as_real(turned).flatten(1)
    assert (turned.shape, turned.dtype) == ((64, 1024), torch.complex64)
    assert (back.shape, back.dtype, is_ghost(back)) == ((64, 2048), torch.float32, True)


def test_a_native_size_is_no_size_of_an_estimate() -> None:
    """It depends on the pictures, of which there are none."""
    with pytest.raises(RequestError, match="native leaves the size to the pictures") as caught:
        estimate("demo", image_size="native")
    assert "--image-size 224" in caught.value.remedy
