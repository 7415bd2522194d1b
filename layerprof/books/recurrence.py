"""What the FLOPs of layers with a recurrence do not say: its steps are no products."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from layerprof.books import span_sums
from layerprof.readings import Layer, SpanReading, WorkReading

NAMED = 3
"""Layers that are named before the rest is only counted."""


def warning(layers: Sequence[Layer], spans: SpanReading | None, work: WorkReading | None) -> str | None:
    """Return in words which layers ran a recurrence of elementwise steps, and their share of the time.

    None where there is none, where FLOPs were not counted, and of layers in which something ran that has no formula:
    that is told as not counted.
    """
    if work is None:
        return None
    ran = {name for (name, _), done in work.layers.items() if done.calls}
    missed = {place for place, _, _ in work.uncounted_inside or work.uncounted}
    held = [layer for layer in layers if layer.recurs and layer.name in ran and layer.name not in missed]
    if not held:
        return None
    kinds = ", ".join(dict.fromkeys(layer.recurs for layer in held))
    names = ", ".join(layer.name for layer in held[:NAMED])
    more = f" and {len(held) - NAMED} more" if len(held) > NAMED else ""
    return (
        f"{names}{more} {'holds' if len(held) == 1 else 'hold'} a recurrence ({kinds}): its products are counted; "
        "its steps from position to position run element by element, which is no matrix work, and are in times alone"
        f"{_share(spans, {layer.name for layer in held})}."
    )


def _share(spans: SpanReading | None, names: Collection[str]) -> str:
    whole = sum(spans.windows_s) if spans else 0.0
    if spans is None or not whole:
        return ""
    part = sum(span_sums.span_seconds(spans, names).values())
    return f" (these layers took {100 * part / whole:.1f} % of the time)"
