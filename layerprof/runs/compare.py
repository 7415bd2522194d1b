"""Two runs: what changed in what was measured, end to end and layer by layer, and in how.

A difference has an interval where both runs kept their batches or samples: of pairs where they answered the same
samples, so that what is hard for both does not count as noise, else of each side's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from layerprof.records import LayerRow, Phase
from layerprof.runs import differences, quantities
from layerprof.runs.changes import Change, Comparison, Comparisons, LayerChange
from layerprof.runs.sides import BatchRate, Paired, Side


def compare(before: str | Path, after: str | Path) -> Comparisons:
    """Compare two runs by their folders or their `run.json`. Raises RequestError for anything else."""
    first, second = (Side.of(Path(path).expanduser()) for path in (before, after))
    return Comparisons(str(before), str(after), (two(first, second),))


def two(a: Side, b: Side, title: str = "") -> Comparison:
    """Compare two runs."""
    paired = Paired(a, b)
    return Comparison(
        title=title,
        totals=tuple(quantities.totals(a, b, paired)),
        layers=tuple(layers(a, b, paired)),
        settings=differences.settings(a.run, b.run),
        environment=differences.environment(a.run, b.run),
        shared_samples=paired.shared,
        same_answers=paired.same_answers(),
        notes=tuple(differences.notes(a, b, paired)),
    )


def layers(a: Side, b: Side, paired: Paired) -> Iterator[LayerChange]:
    """Yield the layers of the first run and those that only the second has; of what both timed, the heaviest first."""
    first = {(row.name, row.phase): row for row in a.run.layers}
    second = {(row.name, row.phase): row for row in b.run.layers}
    found = [_layer(key, first.get(key), second.get(key), a, b, paired) for key in {**first, **second}]
    yield from sorted(found, key=lambda change: -(change.span.before or 0.0))


def _layer(
    key: tuple[str, Phase], x: LayerRow | None, y: LayerRow | None, a: Side, b: Side, paired: Paired
) -> LayerChange:
    counts = a.run.walked, b.run.walked
    bounds = bool(x and x.at_least), bool(y and y.at_least)
    span = paired.hooked.compared("span per sample", "s", _spans(a, key), _spans(b, key))
    totals = [row.span_s.total if row and row.span_s else None for row in (x, y)]
    return LayerChange(
        key[0],
        key[1],
        span or Change("span per sample", "s", *_per_sample(totals, counts)),
        Change("FLOPs per sample", "FLOP", *_per_sample([x and x.flops, y and y.flops], counts), at_least=bounds),
        Change("energy per sample", "J", *_per_sample([x and x.energy_j, y and y.energy_j], counts)),
        Change("peak memory of a call", "B", x.memory_peak_bytes if x else None, y.memory_peak_bytes if y else None),
    )


def _spans(side: Side, key: tuple[str, Phase]) -> BatchRate:
    """Return seconds and samples of each batch whose layers were timed; none for a layer that has no times at all.

    In a batch that gives no time for the layer it was not called: an answer of one token has no decode step.
    """
    spans = side.spans.get(key)
    return (
        {batch: (spans.get(batch, 0.0), side.rows[batch]) for batch in side.hooked if batch in side.rows}
        if spans
        else {}
    )


def _per_sample(values: Sequence[Any], counts: tuple[int, int]) -> tuple[float | None, float | None]:
    first, second = (
        None if value is None or not count else value / count for value, count in zip(values, counts, strict=True)
    )
    return first, second
