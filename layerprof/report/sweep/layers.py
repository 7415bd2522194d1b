"""Which layers gain time and which lose it in the cells of a sweep whose axes change how layers run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from layerprof.report import units
from layerprof.report.run_parts import KIND_NAMES
from layerprof.report.sweep.columns import TextColumn, interval
from layerprof.report.sweep.overview import SweepData
from layerprof.report.sweep.tables import TableView
from layerprof.runs.changes import LayerChange
from layerprof.runs.gained import Gained

AXES = ("quantization", "quantization_skip", "attention", "optimization", "dtype", "device")
"""Settings by which the same layers do the same work in another way."""
SMALL = 0.005
"""Kinds of layers that take less than this of the time of all are not shown."""
TITLE = "Layers that gained and lost"
LEGEND = (
    "time of all layers of a kind per sample, in the first measured cell of the dataset and in this one, on the same "
    "samples; faster, slower: layers of which the 95 % interval says so"
)


@dataclass(frozen=True, slots=True)
class Line:
    """One kind of layer in one phase, in a cell and in the first one of its dataset."""

    cell: str
    point: dict[str, Any]
    it: Gained

    @property
    def part(self) -> str:
        """The phase and the kind in words, e.g. `decode, 36 decoder layers`."""
        kind = KIND_NAMES.get(self.it.kind, self.it.kind)
        count = f"{units.count(self.it.layers)} " if self.it.kind in KIND_NAMES or self.it.layers > 1 else ""
        return f"{self.it.phase.value}, {count}{kind}"


def lines(data: SweepData, table: TableView) -> list[Line]:
    """Return what each cell's layers gained or lost, heaviest kinds only; none where no axis changes how layers run."""
    if not any(axis in AXES for axis in table.axes):
        return []
    found: list[Line] = []
    for row in table.rows:
        if row.base is None:
            continue
        parts = data.pairs.gained(row.base, row.keys[0])
        whole = sum(part.span.before or 0.0 for part in parts)
        found += [Line(row.label, row.point, part) for part in parts if (part.span.before or 0.0) > SMALL * whole]
    return found


def columns(found: Sequence[Line]) -> list[TextColumn]:
    """Return the lines as columns of text; a cell's name stands beside its first line."""
    spans = [line.it.span for line in found]
    scale = units.scale([change.before for change in spans] + [change.after for change in spans], "s")
    cells = ["" if n and found[n - 1].cell == line.cell else line.cell for n, line in enumerate(found)]
    ratios = [units.MISSING if change.value is None else f"{change.value:.2f}" for change in spans]
    return [
        TextColumn("cell", cells, left=True),
        TextColumn("layers", [line.part for line in found], left=True),
        TextColumn(f"{scale.unit}/sample first", [scale.show(change.before) for change in spans], 2),
        TextColumn(f"{scale.unit}/sample", [scale.show(change.after) for change in spans], 1),
        TextColumn("×", ratios),
        TextColumn("95 %", [interval(change.ci95) for change in spans], 3, aside=True),
        TextColumn("faster", [units.count(line.it.faster) for line in found], 1),
        TextColumn("slower", [units.count(line.it.slower) for line in found], 1),
        TextColumn("gained most", [_named(line.it, line.it.most) for line in found], 4, left=True),
        TextColumn("gained least", [_named(line.it, line.it.least) for line in found], 5, left=True),
    ]


def plain(found: Sequence[Line]) -> list[dict[str, Any]]:
    """Return the lines as JSON types."""
    return [
        {
            "point": line.point,
            "phase": line.it.phase.value,
            "tower": line.it.tower,
            "kind": line.it.kind,
            "layers": line.it.layers,
            "span_per_sample_s": [line.it.span.before, line.it.span.after],
            "ratio": line.it.span.value,
            "ci95": line.it.span.ci95,
            "faster": line.it.faster,
            "slower": line.it.slower,
            "most": _change(line.it.most),
            "least": _change(line.it.least),
        }
        for line in found
    ]


def _change(one: LayerChange | None) -> dict[str, Any] | None:
    return {"name": one.name, "ratio": one.span.value, "ci95": one.span.ci95} if one else None


def _named(it: Gained, one: LayerChange | None) -> str:
    """Return a layer of several with its ratio, by the end of its name."""
    if one is None or one.span.value is None or it.layers < 2:
        return ""
    return f"{'.'.join(one.name.split('.')[-2:])} {one.span.value:.2f}"
