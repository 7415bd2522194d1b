"""Which layers gained time and which lost it from one run to another, by tower, phase and kind of layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from layerprof.records import LayerRow, Phase, Tower
from layerprof.runs.changes import Change, LayerChange
from layerprof.runs.compare import layers
from layerprof.runs.sides import BatchRate, Paired, Side

Group = tuple[Phase, Tower, str]


@dataclass(frozen=True, slots=True)
class Gained:
    """Layers of one kind in one phase, in two runs on the same samples.

    `span` is their time per sample, all together. Of the `layers`, `faster` and `slower` are those of which the
    interval says so. `most` and `least` are the ones whose time shrank most and least, None where no ratio is known.
    """

    phase: Phase
    tower: Tower
    kind: str
    layers: int
    span: Change
    faster: int
    slower: int
    most: LayerChange | None
    least: LayerChange | None


def gained(a: Side, b: Side, paired: Paired) -> tuple[Gained, ...]:
    """Return what each kind of layer gained or lost, in the order of the run; layers of one run alone are left out.

    Rows that lie inside others are left out, too: their time is theirs.
    """
    second = {(row.name, row.phase) for row in b.run.layers}
    groups: dict[Group, list[LayerRow]] = {}
    for row in _outermost(a.run.layers):
        if (row.name, row.phase) in second and row.span_s is not None:
            groups.setdefault((row.phase, row.tower, row.kind), []).append(row)
    changes = {(change.name, change.phase): change for change in layers(a, b, paired)}
    return tuple(
        _group(group, [changes[row.name, row.phase] for row in rows], _together(rows, a, b, paired))
        for group, rows in groups.items()
    )


def _outermost(rows: Sequence[LayerRow]) -> Iterator[LayerRow]:
    names = {row.name for row in rows}
    for row in rows:
        parts = row.name.split(".")
        if not any(".".join(parts[:end]) in names for end in range(1, len(parts))):
            yield row


def _group(group: Group, changes: Sequence[LayerChange], span: Change) -> Gained:
    known = sorted((one for one in changes if one.span.value is not None), key=lambda one: one.span.value or 0.0)
    ends = [one.span.ci95 for one in changes if one.span.ci95 is not None]
    return Gained(
        *group,
        layers=len(changes),
        span=span,
        faster=sum(high < 1 for _, high in ends),
        slower=sum(low > 1 for low, _ in ends),
        most=known[0] if known else None,
        least=known[-1] if known else None,
    )


def _together(rows: Sequence[LayerRow], a: Side, b: Side, paired: Paired) -> Change:
    """Return how the time of these layers together changed, with the interval over the batches that are paired."""
    keys = [(row.name, row.phase) for row in rows]
    name, unit = "span per sample", "s"
    found = paired.hooked.compared(name, unit, _sum(a, keys), _sum(b, keys))
    return found or Change(name, unit, _each(a, keys), _each(b, keys))


def _sum(side: Side, keys: Sequence[tuple[str, Phase]]) -> BatchRate:
    """Return seconds of all of them and samples, by batch; nothing where one of them has no times of its own."""
    if not all(key in side.spans for key in keys):
        return {}
    batches = (batch for batch in side.hooked if batch in side.rows)
    return {batch: (sum(side.spans[key].get(batch, 0.0) for key in keys), side.rows[batch]) for batch in batches}


def _each(side: Side, keys: Sequence[tuple[str, Phase]]) -> float | None:
    wanted = set(keys)
    spans = [row.span_s.total if row.span_s else None for row in side.run.layers if (row.name, row.phase) in wanted]
    known = [span for span in spans if span is not None]
    return sum(known) / side.run.walked if len(known) == len(wanted) and side.run.walked else None
