"""Sums over spans: seconds and calls by layer and phase, how they scale, and the phase that a gap belongs to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import replace
from math import fsum

from layerprof.books.spans import BEFORE_FIRST, BETWEEN_MIXED
from layerprof.readings import Key, Layer, Span, SpanReading
from layerprof.records import IN_TURN, Phase


def seconds_of(spans: Iterable[Span]) -> float:
    """Return what calls took together; a layer's call inside its own call (it calls itself) took no time beside it."""
    return fsum(span.end_s - span.start_s for span in spans if span.layer not in span.around)


def span_seconds(spans: SpanReading, names: Collection[str] | None = None) -> dict[Key, float]:
    """Return seconds of these layers (by default all) by layer and phase, what runs inside them included."""
    found: dict[Key, float] = {}
    for span in spans.spans:
        if names is None or span.layer in names:
            key = (span.layer, span.phase)
            found[key] = found.get(key, 0.0) + (0.0 if span.layer in span.around else span.end_s - span.start_s)
    return found


def span_calls(spans: SpanReading, names: Collection[str] | None = None) -> dict[Key, int]:
    """Return how often these layers (by default all) were called, by layer and phase."""
    return dict(Counter((span.layer, span.phase) for span in spans.spans if names is None or span.layer in names))


def pace(spans: SpanReading, walk_s: float | None) -> float:
    """Return the seconds that a walk took elsewhere over those of the latency pass; 1 where either is not known.

    A host is not equally fast at all times, and hooks cost some: a span or a gap took that share of itself elsewhere,
    as far as a walk's time is spent alike. So all of them together last as long as the walk did there.
    """
    here = fsum(spans.windows_s)
    return walk_s / here if walk_s and here else 1.0


def phase_ends(spans: SpanReading, walk_s: float | None) -> dict[Phase, float]:
    """Return the seconds to the end of each phase in a walk of `walk_s` seconds elsewhere; nothing where it is unknown.

    A phase is the calls that no other call held, and the gaps on the way to them and between them.
    """
    if not walk_s:
        return {}
    share, found, end_s = pace(spans, walk_s), {}, 0.0
    outer = span_seconds(replace(spans, spans=tuple(span for span in spans.spans if not span.around)))
    for phase in IN_TURN:
        end_s += fsum(seconds for (_, of), seconds in outer.items() if of is phase)
        end_s += fsum(seconds for name, seconds in spans.gaps_s.items() if gap_phase(name) is phase)
        found[phase] = share * end_s
    return found


def outermost(spans: SpanReading, layers: Iterable[Layer]) -> SpanReading:
    """Return the calls of found layers that no other found layer's call held: each moment in a layer, once."""
    found = {layer.name for layer in layers if layer.found}
    kept = tuple(s for s in spans.spans if s.layer in found and found.isdisjoint(s.around))
    return replace(spans, spans=kept)


def gap_phase(name: str) -> Phase:
    """Return the phase whose window holds a gap: a gap before a phase starts is spent on the way to it."""
    if name == BEFORE_FIRST:
        return Phase.VISION
    if name == BETWEEN_MIXED:
        return Phase.MIXED
    return next((phase for phase in Phase if name.endswith(f" {phase}")), Phase.DECODE)
