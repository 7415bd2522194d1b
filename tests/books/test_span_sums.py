"""Spans and gaps of the latency pass, as long as a walk was elsewhere."""

from __future__ import annotations

import pytest

from layerprof.books.span_sums import pace, phase_ends
from layerprof.readings import Span, SpanReading
from layerprof.records import Phase


def span(layer: str, phase: Phase, start_s: float, end_s: float, around: tuple[str, ...] = ()) -> Span:
    """Return a call of batch 0."""
    return Span(layer, phase, 0, 0, start_s, end_s, end_s - start_s, around)


READING = SpanReading(
    spans=(
        span("patch", Phase.VISION, 1.0, 2.0),
        span("block", Phase.PREFILL, 3.0, 7.0),
        span("inner", Phase.PREFILL, 4.0, 5.0, around=("block",)),
        span("block", Phase.DECODE, 7.5, 9.0),
    ),
    windows_s=(10.0,),
    gaps_s={
        "before the first layer": 1.0,
        "vision to prefill": 1.0,
        "prefill to decode": 0.5,
        "after the last layer": 1.0,
    },
    clock="perf_counter_ns",
)
"""10 s: vision takes 1 + 1, prefill 1 + 4, decode 0.5 + 1.5 + 1."""


def test_a_walk_elsewhere_has_its_pace() -> None:
    """5 s for 10; 1 where nobody knows."""
    assert pace(READING, 5.0) == pytest.approx(0.5)
    assert pace(READING, None) == 1.0


def test_phases_end_after_their_calls_and_the_gaps_on_the_way() -> None:
    """A call inside another takes no time beside it; the last phase ends with the walk."""
    assert phase_ends(READING, 5.0) == pytest.approx({Phase.VISION: 1.0, Phase.PREFILL: 3.5, Phase.DECODE: 5.0})
    assert phase_ends(READING, None) == {}
