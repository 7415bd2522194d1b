"""Nothing depends on where an event stands in its file, and times are kept to the nanosecond."""

from __future__ import annotations

import random

import pytest
from attributions import buckets, row, selves
from scenario import GRAPH, OUTSIDE, Scenario
from traces_graphs import capture, layered, replay

from layerprof.trace.attribute import attribute
from layerprof.trace.attribution import Attribution

PHASES = ("prefill", "decode", "vision")


def in_any_order(s: Scenario) -> Attribution:
    """Attribute a trace; that of the same events in five other orders must be the same."""
    result = attribute(s.events, infer=False)
    for seed in range(5):
        assert attribute(random.Random(seed).sample(s.events, len(s.events)), infer=False) == result
    return result


def test_graphs_whose_launches_stand_in_another_order() -> None:
    """Two graphs of as many kernels, captured under other names: each replay is told by its own capture."""
    s = Scenario()
    one, other = layered(3, "norm", "gemm", prefix="one"), layered(3, "norm", "gemm", "act", prefix="other")
    at = capture(s, other, capture(s, one))
    for nodes in (other, one, one, other):
        at = replay(s, nodes, at + 50)
    assert selves(in_any_order(s)) == pytest.approx(s.self_us)


def test_of_parts_of_a_replay_the_first_is_the_whole() -> None:
    """Two replays that lost a kernel each: neither is more of the graph than the other."""
    s, nodes = Scenario(), layered(3, "norm", "gemm")
    at = capture(s, nodes)
    for lost in (1, 4):
        left = [node for place, node in enumerate(nodes) if place != lost]
        at = replay(s, left, at + 50, ids=True, belongs=GRAPH)
        for place, event in enumerate(s.events[-len(left) :]):
            event["args"]["graph node id"] += place >= lost
    assert len(in_any_order(s).graphs) == 2


def test_a_row_that_two_others_hold_as_often_stands_below_the_first() -> None:
    """The same module is called once in each phase of the one around it."""
    s = Scenario()
    for call, phase in enumerate(PHASES):
        s.layer("model", 100 * call, 90, phase=phase)
        s.layer("model.norm", 100 * call + 10, 10, phase="decode")
        s.kernel(100 * call + 15, 100 * call + 20, 5, ("model.norm", "decode"))
    result = in_any_order(s)
    parent = row(result, "model.norm").parent
    assert parent is not None
    assert result.rows[parent].phase == PHASES[0]


def test_steps_that_begin_at_one_moment() -> None:
    """Two engines step at once, each on its own thread."""
    s = Scenario()
    for tid, name in enumerate(("step[DECODE bs=4]", "step[EXTEND bs=1 toks=9]")):
        s.add("user_annotation", name, 100, 50, tid=tid)
        s.kernel(110, 120, 5, ("step", None), tid=tid)
    assert len(in_any_order(s).steps) == 2


def test_a_step_that_begins_a_moment_before_the_last_one_ended() -> None:
    """Clocks are rounded: two steps in a row may overlap by a nanosecond, and both are steps."""
    s = Scenario()
    for at, name in ((100, "step[EXTEND bs=1 toks=9]"), (149.999, "step[DECODE bs=4]")):
        s.add("user_annotation", name, at, 50)
        s.kernel(at + 10, at + 20, 5, ("step", None))
    assert [step.name for step in in_any_order(s).steps] == ["step[EXTEND]", "step[DECODE]"]


def test_times_since_1970_keep_their_nanoseconds() -> None:
    """Microseconds since 1970 fill a float: what is launched when a layer ends is still outside of it."""
    s, begin = Scenario(), 1_753_000_000_000_001
    for number in range(200):
        s.layer(f"layers.{number}", begin + 21 * number, 10)
        s.kernel(begin + 21 * number + 10, begin + 21 * number + 13, 5, OUTSIDE)
    assert buckets(in_any_order(s)) == pytest.approx(s.buckets_us)
