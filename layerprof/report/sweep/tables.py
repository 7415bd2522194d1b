"""The tables of a sweep as plain data: cells with their figures, guards, and the earlier report beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from layerprof.records import Run
from layerprof.report.sweep.figures import Figures, figures
from layerprof.report.sweep.overview import NOT_MEASURED, SweepData
from layerprof.report.sweep.pairs import Pair
from layerprof.sweep.cells import Guards, PlannedTable, Status
from layerprof.sweep.earlier_report import match


@dataclass(frozen=True, slots=True)
class CellRow:
    """One cell in one table: where it stands, its figures or why there are none, and the earlier report's row.

    `against` is its difference from the table's first row of the same dataset, whose cell is `base`; both are None for
    that row itself.
    """

    point: dict[str, Any]
    keys: tuple[str, ...]
    status: Status | None
    reason: str | None
    figures: Figures | None
    guards: Guards | None
    reference: dict[str, Any] | None = None
    run: Run | None = field(default=None, repr=False)
    against: Pair | None = None
    base: str | None = None

    @property
    def label(self) -> str:
        """The point in words."""
        return ", ".join(f"{name} {value}" for name, value in self.point.items()) or "the cell"


@dataclass(frozen=True, slots=True)
class TableView:
    """One table with its rows in the order of the axes.

    `unmatched` are rows of the earlier report that no cell stands for.
    """

    planned: PlannedTable
    axes: tuple[str, ...]
    rows: tuple[CellRow, ...]
    unmatched: tuple[dict[str, Any], ...]

    def ratios(self, name: str, of_reference: bool = False) -> list[float | None]:
        """Return a figure of each row, or of its reference, over that of the first row of its dataset.

        Where the table has a reference, that is the first row in which both have the figure.
        """
        read = _reference if of_reference else _figure
        both = any(_reference(row, name) is not None and _figure(row, name) is not None for row in self.rows)
        bases: dict[Any, float] = {}
        for row in self.rows:
            known = (_reference(row, name), _figure(row, name)) if both else (read(row, name),)
            value = read(row, name)
            if value and all(one is not None for one in known):
                bases.setdefault(row.point.get("dataset"), value)
        values = [(read(row, name), bases.get(row.point.get("dataset"))) for row in self.rows]
        return [value / base if value is not None and base else None for value, base in values]


def tables(data: SweepData) -> list[TableView]:
    """Return the sweep's tables."""
    return [_table(data, planned) for planned in data.record.tables]


def _table(data: SweepData, planned: PlannedTable) -> TableView:
    rows = list(_rows(data, planned))
    order = dict(planned.axes)
    rows.sort(key=lambda row: _rank(row.point, order))
    shown = {id(row.reference) for row in rows if row.reference is not None}
    unmatched = tuple(line for line in planned.reference if id(line) not in shown)
    axes = (*planned.axes, *(name for row in rows for name in row.point if name not in planned.axes))
    return TableView(planned, tuple(dict.fromkeys(axes)), tuple(_paired(data, rows)), unmatched)


def _paired(data: SweepData, rows: Sequence[CellRow]) -> Iterator[CellRow]:
    """Yield the rows with what each differs by from the first measured one of its dataset, on the same samples."""
    bases: dict[Any, str] = {}
    for row in rows:
        if row.run is None:
            yield row
            continue
        base = bases.setdefault(row.run.dataset.get("name"), row.keys[0])
        yield row if base == row.keys[0] else replace(row, against=data.pairs.of(base, row.keys[0]), base=base)


def _rank(point: Mapping[str, Any], axes: Mapping[str, Sequence[Any]]) -> list[int]:
    return [axes[name].index(point[name]) if point.get(name) in axes[name] else len(axes[name]) for name in axes]


def _rows(data: SweepData, planned: PlannedTable) -> Iterator[CellRow]:
    groups: dict[str, list[Any]] = {}
    points: dict[str, dict[str, Any]] = {}
    for cell in data.record.cells:
        for point in cell.points.get(planned.name, ()):
            label = repr(sorted(point.items(), key=str))
            groups.setdefault(label, []).append(cell)
            points[label] = point
    for label, cells in groups.items():
        outcomes = [data.outcomes[cell.key] for cell in cells if cell.key in data.outcomes]
        runs = [data.runs[cell.key] for cell in cells if cell.key in data.runs]
        bad = next((outcome for outcome in outcomes if outcome.status is not Status.DONE), None)
        reference = next((line for line in planned.reference if match(line, cells[0].choices)), None)
        first = next((outcome for outcome in outcomes if outcome.status is Status.DONE), bad)
        yield CellRow(
            point=points[label],
            keys=tuple(cell.key for cell in cells),
            status=first.status if first else None,
            reason=bad.reason if bad else None if outcomes else NOT_MEASURED,
            figures=figures(runs) if runs else None,
            guards=first.guards if first else None,
            reference=reference,
            run=runs[0] if runs else None,
        )


def _figure(row: CellRow, name: str) -> float | None:
    return getattr(row.figures, name) if row.figures else None


def _reference(row: CellRow, name: str) -> float | None:
    value = row.reference.get(name) if row.reference else None
    return value if isinstance(value, (int, float)) else None
