"""Sums over spans: seconds and calls by layer and phase, and the phase that a gap belongs to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from layerprof.books.spans import BEFORE_FIRST
from layerprof.readings import Key, SpanReading
from layerprof.records import Phase


def span_seconds(spans: SpanReading, names: Collection[str]) -> dict[Key, float]:
    """Return seconds of these layers by layer and phase, what runs inside them included."""
    found: dict[Key, float] = {}
    for span in spans.spans:
        if span.layer in names:
            key = (span.layer, span.phase)
            found[key] = found.get(key, 0.0) + span.end_s - span.start_s
    return found


def span_calls(spans: SpanReading, names: Collection[str]) -> dict[Key, int]:
    """Return how often these layers were called, by layer and phase."""
    return dict(Counter((span.layer, span.phase) for span in spans.spans if span.layer in names))


def gap_phase(name: str) -> Phase:
    """Return the phase whose window holds a gap: a gap before a phase starts is spent on the way to it."""
    if name == BEFORE_FIRST:
        return Phase.VISION
    return next((phase for phase in Phase if name.endswith(f" {phase}")), Phase.DECODE)
