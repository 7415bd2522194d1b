"""Real traces as a person sees them: one screen each, whose figures add up. Their twin is `test_a_screen_holds_it`."""

from __future__ import annotations

import io
from functools import cache

import pytest
from paths import SHARED_TRACES
from rich.console import Console

from layerprof.report.attribution.terminal import render
from layerprof.report.attribution.view import View, shown
from layerprof.trace.attribute import attribute
from layerprof.trace.attribution import Attribution

pytestmark = pytest.mark.skipif(not SHARED_TRACES.is_dir(), reason=f"no traces at {SHARED_TRACES.name}")
SCREEN = 42
"""Lines of a terminal that is not small."""


@cache
def read(name: str) -> Attribution:
    """Return the attributed trace."""
    return attribute(SHARED_TRACES / f"{name}.json.gz")


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("h100_qwen1.5-0.5b-chat", "Qwen2DecoderLayer_0-23 x24"),
        ("h100_timesformer", "TimesformerLayer_0-11 x12"),
        ("h100_vit-classifier", "ViTLayer_0-11 x12"),
        ("sglang_qwen3-8b_mixed_eager", "Qwen3DecoderLayer_0-35 x36"),
        ("a100_training_graphs", "## optimizer ##"),
    ],
)
def test_a_real_trace_is_one_screen(name: str, line: str, width: int) -> None:
    """Hundreds of rows in a tree with its books; the layers of the model are one line of it."""
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, color_system=None, legacy_windows=False)
    console._environ = {}
    render(read(name), console)
    lines = out.getvalue().splitlines()
    assert len(lines) <= SCREEN
    assert max(map(len, lines)) <= width
    assert any(line in " ".join(each.split()) for each in lines)


@pytest.mark.parametrize("name", ["h100_qwen1.5-0.5b-chat", "h100_timesformer", "sglang_qwen3-8b_mixed_eager"])
def test_what_is_shown_and_what_is_not_are_all_of_it(name: str) -> None:
    """In nanoseconds: lines, lighter rows and buckets."""
    result = read(name)
    seen = shown(result, View())
    own = sum(line.node.sum("self_ns") for line in seen.lines)
    assert own + seen.lighter_ns + sum(result.buckets_ns.values()) == result.total_ns


def test_layers_that_a_person_would_look_for_are_found() -> None:
    """The one attention of two in TimeSformer that takes 84 % of the time, in one line with its share of the trace."""
    nodes = {line.node.label: line.node for line in shown(read("h100_timesformer"), View()).lines}
    slow = nodes["TimeSformerAttention_1,3..23"]
    assert len(slow.rows) == 12
    assert slow.sum("inclusive_ns") / read("h100_timesformer").total_ns == pytest.approx(0.842, abs=0.001)
