"""Which attention each tower ran, in the run of a user's own loop and in every report of it."""

from __future__ import annotations

import io

import families
import pytest

from layerprof import LayerProfiler
from layerprof.records import Run
from layerprof.report.formats import find

SPLIT = {"": "sdpa", "vision_config": "eager", "text_config": "sdpa"}


def measured() -> Run:
    """Measure a vision-language model whose towers attend in two ways."""
    family = families.build("llava", "sdpa")
    family.model.set_attn_implementation(SPLIT)
    with LayerProfiler(family.model) as prof:
        families.run(family)
    return prof.run


def test_each_tower_is_told_on_its_own() -> None:
    """As the modules run it."""
    assert measured().model["attention"] == {"vision": "eager", "language": "sdpa"}


def test_what_is_switched_between_calls_is_told_with_what_was_before() -> None:
    """A tower that ran both names both."""
    family = families.build("llava", "sdpa")
    with LayerProfiler(family.model) as prof:
        families.run(family)
        family.model.set_attn_implementation(SPLIT)
        families.run(family)
    assert prof.run.model["attention"]["language"] == "sdpa"
    assert set(prof.run.model["attention"]["vision"].split(" + ")) == {"sdpa", "eager"}


def test_a_model_without_attention_says_nothing_of_it() -> None:
    """No tower is named, and no header speaks of it."""
    import torch

    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU())
    with LayerProfiler(model) as prof:
        model(torch.ones(1, 4))
    assert "attention" not in prof.run.model


@pytest.mark.parametrize("name", ["terminal", "markdown", "html"])
def test_every_reports_header_tells_it(name: str) -> None:
    """In the same words."""
    out = io.StringIO()
    find.renderer(name, "render")(measured(), out)
    assert "attention vision eager, language sdpa" in " ".join(out.getvalue().split())
