"""`--attention`: what may be asked of each tower, what is refused before a model is loaded, what really runs."""

from __future__ import annotations

import importlib.util
from typing import Any

import families
import pytest
import torch

from layerprof.attention import TowerAttention, parse, shown
from layerprof.errors import RequestError
from layerprof.layers.attention import attention
from layerprof.machine import placement
from layerprof.models import attention as attentions
from layerprof.models.load import load_model
from layerprof.models.source import resolve


def demo(**how: Any) -> Any:
    """Load the bundled model on the CPU."""
    return load_model(resolve("demo", device="cpu", **how))


def refused(name: str = "demo", **how: Any) -> RequestError:
    """Return the error of a request for a model on the CPU."""
    with pytest.raises(RequestError) as caught:
        resolve(name, **{"device": "cpu"} | how)
    return caught.value


# --- what may be written ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "vision", "language", "one_way"),
    [
        ("auto", None, None, "auto"),
        ("sdpa", "sdpa", "sdpa", "sdpa"),
        (" SDPA ", "sdpa", "sdpa", "sdpa"),
        ("flash_attention_2", "flash", "flash", "flash"),
        ("vision=sdpa,language=flash3", "sdpa", "flash3", "vision=sdpa,language=flash3"),
        ("language=flash3, vision=sdpa", "sdpa", "flash3", "vision=sdpa,language=flash3"),
        ("vision=flash", "flash", None, "vision=flash"),
        ("vision=auto,language=eager", None, "eager", "language=eager"),
        ("vision=sdpa,language=sdpa", "sdpa", "sdpa", "sdpa"),
        ("language=kernels-community/flash-attn2", None, "kernels-community/flash-attn2", None),
    ],
)
def test_one_name_is_for_both_towers_and_each_tower_may_have_its_own(
    text: str, vision: str | None, language: str | None, one_way: str | None
) -> None:
    """However it is written, there is one way to write what is meant."""
    asked = parse(text)
    assert asked == TowerAttention(vision, language)
    assert str(asked) == (one_way or text)
    assert parse(str(asked)) == asked


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("spda", "Did you mean 'sdpa'"),
        ("flahs", "Did you mean 'flash'"),
        ("paged|sdpa", "Choose one of: auto, eager, sdpa, flash, flash3, flex"),
        ("visoin=sdpa", "Did you mean 'vision'"),
        ("audio=sdpa", "Choose vision or language"),
        ("vision=sdpa,vision=eager", "names vision twice"),
        ("vision=", "is not of the form"),
        ("sdpa,language=eager", "is not of the form"),
        ("sdpa,eager", "is not of the form"),
        ("vision=egaer", "Did you mean 'eager'"),
    ],
)
def test_a_mistake_is_told_with_the_nearest(text: str, said: str) -> None:
    """Names, towers, and what is of no form at all."""
    with pytest.raises(RequestError) as caught:
        parse(text)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("ran", "words"),
    [
        ({"vision": "sdpa", "language": "sdpa"}, "sdpa"),
        ({"vision": "sdpa", "language": "eager"}, "vision sdpa, language eager"),
        ({"language": "flash"}, "language flash"),
        ("flash_attention_2", "flash"),
        (None, ""),
        ({}, ""),
    ],
)
def test_what_ran_is_told_in_few_words(ran: object, words: str) -> None:
    """Once where the towers agree; of older runs, which knew one name for the whole model, that."""
    assert shown(ran) == words


# --- what runs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "optimization", "vision", "language"),
    [
        ("auto", "eager", "eager", "eager"),
        ("auto", "sdpa", "sdpa", "sdpa"),
        ("auto", "compile", "sdpa", "sdpa"),
        ("sdpa", "eager", "sdpa", "sdpa"),
        ("vision=sdpa", "eager", "sdpa", "eager"),
        ("language=eager", "sdpa", "sdpa", "eager"),
        ("vision=eager,language=sdpa", "eager", "eager", "sdpa"),
        ("eager", "compile", "eager", "eager"),
    ],
)
@pytest.mark.parametrize("weights", ["pretrained", "random"])
def test_each_tower_runs_what_it_was_told(
    asked: str, optimization: str, vision: str, language: str, weights: str
) -> None:
    """Read off the modules that run it; what is not asked for is what the optimisation says."""
    subject = demo(attention=asked, optimization=optimization, weights=weights)
    assert attention(subject.model) == {"vision": vision, "language": language}
    assert str(subject.attention) == str(TowerAttention(vision, language))


def test_answers_are_the_same_under_any_mix() -> None:
    """The bundled model writes the same tokens whichever way its towers attend."""
    written = {}
    for asked in ("eager", "sdpa", "vision=sdpa,language=eager", "vision=eager,language=sdpa"):
        model = demo(attention=asked).model
        ids = torch.arange(20, 40)[None]
        written[asked] = model.generate(input_ids=ids, max_new_tokens=6, do_sample=False)[0].tolist()
    assert len({tuple(tokens) for tokens in written.values()}) == 1


@pytest.mark.parametrize("name", sorted(families.FAMILIES))
def test_every_family_tells_what_each_tower_runs(name: str) -> None:
    """Under eager attention, every module that attends is eager, but for torch's own; towers are those with blocks."""
    family = families.build(name, "eager")
    ran = attention(family.model)
    attends = {"vision": family.blocks[0], "language": family.blocks[1]}
    assert set(ran) == {tower for tower, blocks in attends.items() if blocks}
    for told in ran.values():
        assert told in ("eager", "eager + nn.MultiheadAttention")


SPLIT = ("llava", "qwen3_vl", "gemma3", "internvl", "smolvlm", "florence2", "mllama", "vit_bert", "blip2", "pix2struct")


@pytest.mark.parametrize("name", SPLIT)
@pytest.mark.parametrize(("vision", "language"), [("sdpa", "eager"), ("eager", "sdpa")])
def test_parts_of_a_configuration_are_found_whatever_their_names(name: str, vision: str, language: str) -> None:
    """vision_config and text_config, encoder and decoder, a query transformer: each part has its tower's attention."""
    config = families.FAMILIES[name]().model.config
    planned = attentions.plan(TowerAttention(vision, language), "eager", config)
    model = type(families.FAMILIES[name]().model)._from_config(config, attn_implementation=planned.told)
    assert attention(model) == {"vision": vision, "language": language}


def test_parts_inside_parts_have_their_towers_too() -> None:
    """An omni model's thinker holds a tower of pictures, one of sound and one of text."""
    import transformers

    told = attentions.plan(TowerAttention("sdpa", "eager"), "eager", transformers.Qwen2_5OmniConfig()).told
    assert isinstance(told, dict)
    assert told["thinker_config"] == {
        "": "eager",
        "text_config": "eager",
        "vision_config": "sdpa",
        "audio_config": "eager",
    }


def test_a_module_that_attends_its_own_way_is_told_as_what_it_does() -> None:
    """GIT's decoder computes a softmax whatever its configuration says; its vision tower goes by the configuration."""
    model = families.build("git", "eager").model
    for module in model.modules():
        if hasattr(module, "config"):
            module.config._attn_implementation = "sdpa"
    assert attention(model) == {"vision": "sdpa", "language": "eager"}
    planned = attentions.plan(TowerAttention("sdpa", "sdpa"), "eager", model.config)
    (sentence,) = attentions.differences(planned, attention(model))
    assert sentence == "The language tower runs eager attention where --attention sdpa asks for sdpa."


def test_a_tower_that_mixes_implementations_names_both() -> None:
    """The commonest first."""
    model = families.build("llava", "sdpa").model
    blocks = [module for module in model.modules() if type(module).__name__ == "LlamaAttention"]
    blocks[0].config = type(blocks[0].config)(**blocks[0].config.to_dict())
    blocks[0].config._attn_implementation = "eager"
    assert attention(model)["language"] in ("sdpa + eager", "eager + sdpa")


def test_models_of_other_makers_tell_it_too() -> None:
    """Blocks of timm by their switch, those of torchvision and torch by what they are."""
    timm: Any = pytest.importorskip("timm", reason="timm is not installed")
    import torchvision  # type: ignore[import-untyped]  # it has no stubs

    fused = timm.create_model("vit_tiny_patch16_224")
    assert attention(fused) == {"vision": "sdpa"}
    for module in fused.modules():
        if hasattr(module, "fused_attn"):
            setattr(module, "fused_attn", False)  # noqa: B010 - torch's types do not let it be assigned
    assert attention(fused) == {"vision": "eager"}
    assert attention(torchvision.models.swin_t()) == {"vision": "eager"}
    assert attention(torchvision.models.vit_b_16()) == {"vision": "nn.MultiheadAttention"}
    assert attention(torchvision.models.resnet18()) == {}


# --- what is refused, and when ----------------------------------------------------------------------------------


def test_a_tower_that_the_model_lacks_is_told(tmp_path: Any) -> None:
    """One name for both means the tower that there is."""
    config = families.FAMILIES["llama"]().model.config
    with pytest.raises(RequestError, match="has no vision tower"):
        attentions.plan(parse("vision=sdpa"), "eager", config)
    planned = attentions.plan(parse("sdpa"), "eager", config)
    assert (planned.vision, planned.language, planned.told, str(planned)) == (None, "sdpa", "sdpa", "sdpa")


@pytest.mark.parametrize("there", [None, object()])
@pytest.mark.parametrize("asked", ["flash", "flash3", "vision=flash", "language=flash3"])
def test_flash_on_a_cpu_is_refused_for_the_device_first(
    asked: str, there: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No package would help; the message says which option asked for it."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: there)
    assert refused(attention=asked).problem.startswith(f"--attention {asked} runs on CUDA devices only")


def test_on_a_gpu_the_package_comes_next_and_then_the_format(monkeypatch: pytest.MonkeyPatch) -> None:
    """FlashAttention's own, or `kernels`, which loads it from the hub; kernels of the hub need the latter."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name, package in (("flash", "flash-attn"), ("flash3", "flash-attn-3"), ("owner/kernel", "package kernels")):
        with pytest.raises(RequestError, match=package):
            placement.check_attention(name, f"--attention {name}", "cuda:0")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if name == "kernels" else None)
    placement.check_attention("flash", "--attention flash", "cuda:0")
    with pytest.raises(RequestError, match="not fp32"):
        placement.check_attention_dtype("flash", "--attention flash", "fp32")
    placement.check_attention_dtype("sdpa", "--attention sdpa", "fp32")


@pytest.mark.parametrize("asked", ["flex", "language=flex", "vision=flex"])
def test_a_model_without_such_an_attention_is_refused_before_it_is_loaded(asked: str) -> None:
    """Qwen2.5-VL has no flex attention: told from the configuration alone, with what asked for it."""
    error = refused(attention=asked)
    assert f"--attention {asked}" in error.problem
    assert "flex_attention" in error.problem
    assert "eager" in error.remedy


def test_what_a_kernel_of_the_hub_fails_with_is_told_of_the_kernel() -> None:
    """Whatever the hub's client raises; of another failure nothing is blamed on attention."""
    config = families.FAMILIES["llava"]().model.config
    kernel = attentions.plan(parse("language=owner/kernel"), "eager", config)
    error = attentions.unsupported(kernel, "own", OSError("no connection"))
    assert error is not None
    assert "--attention language=owner/kernel (no connection)" in error.problem
    assert attentions.unsupported(attentions.plan(parse("sdpa"), "eager", config), "own", OSError("no room")) is None


@pytest.mark.parametrize("optimization", ["compile", "graph"])
def test_steps_of_a_fixed_length_take_eager_and_sdpa_alone(optimization: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The vision tower is free: it has no cache."""
    config = families.FAMILIES["llava"]().model.config
    monkeypatch.setattr(placement, "check_attention", lambda *_: None)
    attentions.check(attentions.plan(parse("vision=flash"), optimization, config), optimization, "cuda:0")
    with pytest.raises(RequestError, match="cache of fixed length"):
        attentions.check(attentions.plan(parse("language=flash"), optimization, config), optimization, "cuda:0")


def test_both_towers_overridden_need_nothing_of_the_optimisations_attention() -> None:
    """`--optimization flash` means no more than its attention, which nobody runs then."""
    source = resolve("demo", device="cpu", optimization="flash", attention="vision=sdpa,language=eager")
    assert str(source.attention) == "vision=sdpa,language=eager"
    error = refused(optimization="flash", attention="vision=sdpa")
    assert error.problem.startswith("--optimization flash runs on CUDA devices only")
