"""The columns of a sweep's tables as text, shared by the terminal and Markdown reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from layerprof.cells import Guards, Status
from layerprof.report import units
from layerprof.report.facts import METRIC_NAMES
from layerprof.report.sweep_view import Row, TableView


@dataclass(frozen=True, slots=True)
class TextColumn:
    """A heading and one text a row; the highest `gives_way` is left out first where there is no room, 0 never."""

    title: str
    cells: list[str]
    gives_way: int = 0
    left: bool = False


def columns(table: TableView) -> list[TextColumn]:
    """Return a table's columns: where a cell stands, its figures, its guards, and the earlier report's figures."""
    rows = table.rows
    figures = [row.figures for row in rows]
    metrics = sorted({f.metric_name for f in figures if f and f.metric_name})
    metric = METRIC_NAMES.get(metrics[0], metrics[0]) if len(metrics) == 1 else "task metric"
    time = units.scale([f.latency_s if f else None for f in figures], "s")
    joules = units.scale([f.energy_j if f else None for f in figures], "J")
    work = units.scale([f.flops if f else None for f in figures], "FLOP")
    found = [TextColumn(axis, [_value(row.point.get(axis)) for row in rows], left=True) for axis in table.axes]
    found += [
        TextColumn("state", [row.status.value if row.status else "not yet" for row in rows], left=True),
        TextColumn("WER", [_rate(f.wer if f else None) for f in figures]),
        TextColumn("95 %", [_interval(f.wer_ci if f else None) for f in figures], 6),
        TextColumn(metric, [units.percent(f.metric if f else None) for f in figures], 3),
        TextColumn(f"{time.unit}/batch", [time.show(f.latency_s if f else None) for f in figures]),
        TextColumn("95 % ", [_interval(f.latency_ci if f else None, time.factor) for f in figures], 7),
        TextColumn("×", _times(table.ratios("latency_s")), 1),
        TextColumn(f"{joules.unit}/sample", [joules.show(f.energy_j if f else None) for f in figures]),
        TextColumn("J ×", _times(table.ratios("energy_j")), 4),
        TextColumn(f"{work.unit}/sample", [work.show(f.flops if f else None) for f in figures], 1),
        TextColumn("memory", [units.size(f.memory if f else None) for f in figures], 8),
        TextColumn("alone", [_guard(row.guards, "batch_invariant") for row in rows], 5),
        TextColumn("cut", [_guard(row.guards, "truncated_share") for row in rows], 5),
        TextColumn("words", [_words(row.guards) for row in rows], 5),
        TextColumn("padding", [_guard(row.guards, "padding_share") for row in rows], 5),
    ]
    if table.planned.reference:
        found += _reference(table)
    return [column for column in found if any(cell not in ("", units.MISSING) for cell in column.cells)]


def _reference(table: TableView) -> list[TextColumn]:
    rows = table.rows
    return [
        TextColumn("WER first", [_rate(row.figures.wer_first if row.figures else None) for row in rows], 2),
        TextColumn("report WER", [_rate(_reported(row, "wer")) for row in rows], 2),
        TextColumn("report s/batch", [_plain(_reported(row, "latency_s")) for row in rows], 2),
        TextColumn("report ×", _times(table.ratios("latency_s", of_reference=True)), 2),
        TextColumn("report J/sample", [_plain(_reported(row, "energy_j")) for row in rows], 3),
        TextColumn("report J ×", _times(table.ratios("energy_j", of_reference=True)), 3),
        TextColumn("report FLOPs", [str((row.reference or {}).get("flops_as_reported") or "") for row in rows], 4),
    ]


LEGEND = (
    "×: over the first row of its dataset that can be compared; alone: answered the same as in the batch; "
    "cut: at the token limit; words: of an answer / of its reference"
)


def without_figures(rows: Sequence[Row]) -> list[str]:
    """Return one line for each row that has a reason to tell."""
    return [f"{row.label}: {row.status.value if row.status else 'open'}: {row.reason}" for row in rows if row.reason]


def not_measured(table: TableView) -> list[str]:
    """Return why measured cells have no joules, each reason once."""
    figures = [row.figures for row in table.rows if row.figures]
    reasons = dict.fromkeys(f.energy_reason for f in figures if f.energy_j is None and f.energy_reason)
    return [f"energy not measured: {reason}" for reason in reasons]


def unmatched(table: TableView) -> list[str]:
    """Return one line for each row of the earlier report that no cell stands for."""
    lines = []
    for line in table.unmatched:
        named = ", ".join(
            f"{name} {_short(value)}" for name, value in line.items() if value is not None and name != "table"
        )
        lines.append(f"only in the report: {named}")
    return lines


def _short(value: object) -> str:
    return units.number(value) if isinstance(value, float) else str(value)


def _reported(row: Row, name: str) -> float | None:
    value = (row.reference or {}).get(name)
    return value if isinstance(value, (int, float)) else None


def _value(value: object) -> str:
    return units.MISSING if value is None else str(value)


def _plain(value: float | None) -> str:
    return units.MISSING if value is None else units.number(value)


def _rate(value: float | None) -> str:
    return units.MISSING if value is None else f"{value:.3f}" if value < 10 else f"{value:.1f}"


def _interval(ends: tuple[float, float] | None, factor: float = 1.0) -> str:
    return f"[{units.number(ends[0] / factor)}, {units.number(ends[1] / factor)}]" if ends else ""


def _times(ratios: Sequence[float | None]) -> list[str]:
    return [units.MISSING if ratio is None else f"{ratio:.2f}" for ratio in ratios]


def _guard(guards: Guards | None, name: str) -> str:
    return units.percent(getattr(guards, name) if guards else None)


def _words(guards: Guards | None) -> str:
    if guards is None or guards.hypothesis_words is None:
        return units.MISSING
    return f"{guards.hypothesis_words:.1f}/{guards.reference_words or 0:.1f}"


def status_style(status: Status | None) -> str:
    """Return the colour of a state."""
    return {Status.DONE: "green", Status.SKIPPED: "yellow", None: "dim"}.get(status, "red")
