"""Work of each tower of the bundled model is the same whichever attention it runs, mixed between towers or not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import families
import pytest
import torch
from families_base import Family
from layerprof.hooks.shapes import ShapesHook
from small_models import picture
from torch import Tensor

from layerprof.layers.attention import attention
from layerprof.layers.find import find_layers
from layerprof.models.load import load_model
from layerprof.models.source import resolve
from layerprof.readings import Work, WorkReading
from layerprof.records import Phase

BY_SCHEMA = "by_schema"
"""An attention of this test's own, whose operator has the schema of flash-attn's."""


@torch.library.custom_op("layerprof_tests::_flash_attn_forward", mutates_args=())
def flash(q: Tensor, k: Tensor, v: Tensor, softmax_scale: float, causal: bool) -> Tensor:
    """Attend over (rows, positions, heads, width), as flash-attn's operator does, with fewer heads of keys."""
    q, k, v = (x.transpose(1, 2).repeat_interleave(q.shape[2] // x.shape[2], 1) for x in (q, k, v))
    fused = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=softmax_scale, is_causal=causal)
    return fused.transpose(1, 2)


def by_schema(module: Any, query: Tensor, key: Tensor, value: Tensor, *_: Any, scaling: float, **__: Any) -> Any:
    """Attend by that operator; the prompts of this test have no padding, so no mask is needed."""
    causal = bool(getattr(module, "is_causal", True)) and query.shape[2] > 1
    q, k, v = (x.transpose(1, 2).contiguous() for x in (query, key, value))
    return flash(q, k, v, scaling, causal), None


@pytest.fixture(autouse=True)
def known_to_transformers() -> Iterator[None]:
    """Register the attention for a test."""
    from transformers import AttentionInterface

    AttentionInterface.register(BY_SCHEMA, by_schema)
    yield
    AttentionInterface._global_mapping.pop(BY_SCHEMA)


def read(told: dict[str, str]) -> tuple[WorkReading, dict[Any, str]]:
    """Count the answer of the bundled model to a prompt with one picture; return what each tower ran beside it."""
    subject = load_model(resolve("demo", device="cpu", attention="sdpa"))
    model = subject.model
    for name, config in (("vision", model.config.vision_config), ("language", model.config.text_config)):
        config._attn_implementation = told[name]
    content = [{"type": "image", "image": picture(224, 168)}, {"type": "text", "text": "What is it?"}]
    inputs = subject.processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt",
    )  # fmt: skip
    family = Family(model, dict(inputs), (4, 6))
    hook = ShapesHook(model, find_layers(model))
    with hook, hook.batch(0, attention_mask=inputs["attention_mask"]):
        families.run(family, 3)
    return hook.reading(), dict(attention(model))


@pytest.fixture(scope="module")
def eager() -> dict[tuple[str, Phase], Work]:
    """Return the work of every layer where both towers are eager."""
    return dict(read({"vision": "eager", "language": "eager"})[0].layers)


MIXES = [(a, b) for a in ("eager", "sdpa", BY_SCHEMA) for b in ("eager", "sdpa", BY_SCHEMA) if (a, b) != 2 * ("eager",)]


@pytest.mark.parametrize(("vision", "language"), MIXES)
def test_any_mix_is_the_same_work(vision: str, language: str, eager: dict[tuple[str, Phase], Work]) -> None:
    """FLOPs, causal and useful part, and bytes of every layer; nothing is left uncounted, and the mix is what ran."""
    reading, ran = read({"vision": vision, "language": language})
    assert ran == {"vision": vision, "language": language}
    assert reading.uncounted == {}
    assert set(reading.layers) == set(eager)
    assert dict(reading.layers) == eager


@pytest.mark.parametrize("mix", [("sdpa", "flex_attention"), ("eager", "flex_attention")])
def test_flex_attention_in_one_tower_is_the_same_work(mix: tuple[str, str]) -> None:
    """LLaVA's decoder by flex attention, beside either attention of its tower of pictures."""
    found = []
    for vision, language in (("eager", "eager"), mix):
        family = families.build("llava", "eager")
        family.model.set_attn_implementation({"": language, "vision_config": vision, "text_config": language})
        hook = ShapesHook(family.model, find_layers(family.model))
        with hook, hook.batch(0, attention_mask=family.inputs["attention_mask"]):
            families.run(family, 2)
        found.append({key: work.flops for key, work in hook.reading().layers.items()})
    assert found[0] == found[1]
