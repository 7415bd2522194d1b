"""Pairs of a replay's trace and its captures, attributed, with the books checked."""

from __future__ import annotations

from pathlib import Path

import pytest
from attributions import buckets, selves
from scenario import Scenario
from traces_graphs import Node, capture, layered, replay, written

from layerprof.trace.attribute import attribute
from layerprof.trace.attribution import Attribution

NAMES = ("norm", "gemm", "attention", "gemm", "act")
STACK = layered(3, *NAMES)


def pair(tmp_path: Path, recorded: Scenario, *captures: Scenario, infer: bool = False) -> Attribution:
    """Attribute a replay beside its captures, and check the books."""
    paths = [written(each, tmp_path / f"capture{number}.json") for number, each in enumerate(captures)]
    result = attribute(recorded.events, captures=paths, infer=infer)
    assert sum(row.self_ns for row in result.rows) + sum(result.buckets_ns.values()) == result.total_ns
    assert result.total_ns / 1e3 == pytest.approx(recorded.total_us)
    return result


def holds(result: Attribution, scenario: Scenario) -> None:
    """Check that every microsecond is where the construction says."""
    assert selves(result) == pytest.approx(scenario.self_us)
    assert buckets(result) == pytest.approx(scenario.buckets_us)


def captured(nodes: list[Node], **how: object) -> Scenario:
    """Return a trace of one capture."""
    s = Scenario()
    capture(s, nodes, **how)  # type: ignore[arg-type]  # passed on as given
    return s


def replayed(nodes: list[Node], times: int = 1, **how: object) -> Scenario:
    """Return a trace of some replays."""
    s = Scenario()
    at = 100.0
    for _ in range(times):
        at = replay(s, nodes, at, **how)  # type: ignore[arg-type]  # passed on as given
    return s
