"""The columns of a sweep's tables as text, shared by the terminal and Markdown reports."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from layerprof import attention
from layerprof.books import not_counted
from layerprof.records import Run
from layerprof.report import units
from layerprof.report.facts import METRIC_NAMES
from layerprof.report.sweep.figures import Ends, Figures
from layerprof.report.sweep.tables import CellRow, TableView
from layerprof.runs.changes import Change
from layerprof.sweep.cells import Guards, Status


@dataclass(frozen=True, slots=True)
class TextColumn:
    """A heading and one text a row; the highest `gives_way` is left out first where there is no room, 0 never.

    `group` is the heading above; a column that is `aside` explains the one before it.
    """

    title: str
    cells: list[str]
    gives_way: int = 0
    left: bool = False
    group: str = ""
    aside: bool = False


def columns(table: TableView) -> list[TextColumn]:
    """Return a table's columns: where a cell stands, its figures, the earlier report's figures, and its guards."""
    found = [
        *_places(table),
        *_quality(table),
        *_time(table),
        *_towers(table),
        *_request(table),
        *_throughput(table),
        *_cost(table),
    ]
    if table.planned.reference:
        found += _reference(table)
    found += _guards(table)
    return [column for column in found if any(cell not in ("", units.MISSING) for cell in column.cells)]


def _places(table: TableView) -> list[TextColumn]:
    axes = [TextColumn(axis, [_value(row.point.get(axis)) for row in table.rows], left=True) for axis in table.axes]
    states = [row.status.value if row.status else "not yet" for row in table.rows]
    return [*axes, TextColumn("state", states, left=True)]


def _quality(table: TableView) -> list[TextColumn]:
    figures = [row.figures for row in table.rows]
    metrics = sorted({f.metric_name for f in figures if f and f.metric_name})
    metric = METRIC_NAMES.get(metrics[0], metrics[0]) if len(metrics) == 1 else "task metric"
    changes = [row.against.wer if row.against else None for row in table.rows]
    name = "quality"
    return [
        TextColumn("WER", [_rate(f.wer if f else None) for f in figures], group=name),
        TextColumn("95 %", [interval(f.wer_ci if f else None) for f in figures], 8, group=name, aside=True),
        TextColumn("Δ WER", [_signed(c) for c in changes], 6, group=name),
        TextColumn("95 %", [interval(c.ci95 if c else None) for c in changes], 9, group=name, aside=True),
        TextColumn(metric, [units.percent(f.metric if f else None) for f in figures], 3, group=name),
    ]


def _time(table: TableView) -> list[TextColumn]:
    figures = [row.figures for row in table.rows]
    scale = units.scale([f.latency_s if f else None for f in figures], "s")
    changes = [row.against.time if row.against else None for row in table.rows]
    times, name = _times(c.value if c else None for c in changes), "time"
    ends = [interval(f.latency_ci if f else None, scale.factor) for f in figures]
    return [
        TextColumn(f"{scale.unit}/batch", [scale.show(f.latency_s if f else None) for f in figures], group=name),
        TextColumn("95 %", ends, 8, group=name, aside=True),
        TextColumn("×", _times(table.ratios("latency_s")), 1, group=name),
        TextColumn("per sample ×", times, 4, group=name),
        TextColumn("95 %", [interval(c.ci95 if c else None) for c in changes], 7, group=name, aside=True),
    ]


def _towers(table: TableView) -> list[TextColumn]:
    """Return the time of a sample in the layers of each tower, the language tower's by phase, and its ratios.

    Where attentions are compared the ratios never give way: one that is fast in a tower may be slow in the other.
    """
    parts, gives_way = ("vision", "prefill", "decode"), 0 if "attention" in table.axes else 4
    scale = units.scale([value for part in parts for value in _all(table, f"{part}_span_s")], "s")
    found = []
    for part in parts:
        name = f"{part}_span_s"
        found += _with_ends(table, f"{scale.unit} {part}", name, f"{part}_span_ci", scale, 5, "a sample in layers")
        found.append(TextColumn(f"{part} ×", _times(table.ratios(name)), gives_way, group="a sample in layers"))
    return found


def _request(table: TableView) -> list[TextColumn]:
    """Return the parts of a batch's request before `generate()`, and the first token as a user waits for it."""
    name, whole = "from the image file on", units.scale(_all(table, "ttft_request_s"), "s")
    parts = ("read", "process", "copy")
    scale = units.scale([value for part in parts for value in _all(table, f"{part}_s")], "s")
    found = []
    for part in parts:
        found += _with_ends(table, f"{scale.unit} {part}", f"{part}_s", f"{part}_ci", scale, 6, name)
    return found + _with_ends(table, f"{whole.unit} to token", "ttft_request_s", "ttft_request_ci", whole, 5, name)


def _throughput(table: TableView) -> list[TextColumn]:
    name = "a second gives"
    return [
        TextColumn("samples/s", [_plain(value) for value in _all(table, "samples_per_s")], 2, group=name),
        TextColumn("tokens/s", [_plain(value) for value in _all(table, "output_tokens_per_s")], 5, group=name),
        TextColumn("kept a step", [_plain(value) for value in _all(table, "accepted_per_step")], 6),
    ]


def _with_ends(
    table: TableView, title: str, name: str, ends: str, scale: units.Scale, gives_way: int, group: str
) -> list[TextColumn]:
    """Return a figure's column and that of its interval, which gives way before it."""
    intervals = [interval(it, scale.factor) for it in _ends(table, ends)]
    return [
        TextColumn(title, [scale.show(value) for value in _all(table, name)], gives_way, group=group),
        TextColumn("95 %", intervals, 9, group=group, aside=True),
    ]


def _all(table: TableView, name: str) -> list[float | None]:
    return [getattr(row.figures, name) if row.figures else None for row in table.rows]


def _ends(table: TableView, name: str) -> list[Ends]:
    return [getattr(row.figures, name) if row.figures else None for row in table.rows]


def _cost(table: TableView) -> list[TextColumn]:
    figures = [row.figures for row in table.rows]
    joules = units.scale(_all(table, "energy_j"), "J")
    correct = units.scale(_all(table, "correct_j"), "J")
    work = units.scale([f.flops if f else None for f in figures], "FLOP")
    moved, name = units.scale(_all(table, "bytes"), "B"), "a sample costs"
    return [
        TextColumn(f"{joules.unit}/sample", [joules.show(f.energy_j if f else None) for f in figures], group=name),
        TextColumn("J ×", _times(table.ratios("energy_j")), 4, group=name),
        *_with_ends(table, f"{correct.unit}/right answer", "correct_j", "correct_ci", correct, 3, name),
        TextColumn(f"{work.unit}/sample", [_work(f, work) if f else units.MISSING for f in figures], 1, group=name),
        TextColumn(f"{moved.unit}/sample", [_moved(f, moved) if f else units.MISSING for f in figures], 4, group=name),
    ]


def _reference(table: TableView) -> list[TextColumn]:
    rows, name = table.rows, "earlier report"
    first = [_rate(row.figures.wer_first if row.figures else None) for row in rows]
    return [
        TextColumn("WER first", first, 2, group="as it scored"),
        TextColumn("report WER", [_rate(_reported(row, "wer")) for row in rows], 2, group=name),
        TextColumn("report s/batch", [_plain(_reported(row, "latency_s")) for row in rows], 2, group=name),
        TextColumn("report ×", _times(table.ratios("latency_s", of_reference=True)), 2, group=name),
        TextColumn("report J/sample", [_plain(_reported(row, "energy_j")) for row in rows], 3, group=name),
        TextColumn("report J ×", _times(table.ratios("energy_j", of_reference=True)), 3, group=name),
        TextColumn(
            "report FLOPs", [str((row.reference or {}).get("flops_as_reported") or "") for row in rows], 4, group=name
        ),
    ]


def _guards(table: TableView) -> list[TextColumn]:
    rows, name = table.rows, "guards"
    return [
        TextColumn("alone", [_guard(row.guards, "batch_invariant") for row in rows], 5, group=name),
        TextColumn("cut", [_guard(row.guards, "truncated_share") for row in rows], 5, group=name),
        TextColumn("words", [_words(row.guards) for row in rows], 5, group=name),
        TextColumn("padding", [_guard(row.guards, "padding_share") for row in rows], 5, group=name),
        TextColumn("weights", [units.size(row.figures.weights if row.figures else None) for row in rows], 5),
        TextColumn("memory", [units.size(row.figures.memory if row.figures else None) for row in rows], 9),
    ]


LEGEND = (
    "×: over the first row of its dataset that can be compared; per sample × and Δ WER: against the first measured row "
    "of its dataset, paired on the same samples, with 95 % intervals; alone: answered the same as in the batch; "
    "cut: at the token limit; words: of an answer / of its reference; vision, prefill, decode: in the layers of the "
    "vision tower and, by phase, of the language tower; read, process, copy, to token: medians over "
    "batches; J/right answer: joules of a sample over the task metric"
)


def without_figures(rows: Sequence[CellRow]) -> list[str]:
    """Return one line for each row that has a reason to tell."""
    return [f"{row.label}: {row.status.value if row.status else 'open'}: {row.reason}" for row in rows if row.reason]


def not_measured(table: TableView) -> list[str]:
    """Return why measured cells lack joules, also of a right answer, operators and samples, each reason once.

    And which cells ran another attention than was asked for.
    """
    figures = [row.figures for row in table.rows if row.figures]
    reasons = dict.fromkeys(f.energy_reason for f in figures if f.energy_j is None and f.energy_reason)
    missing = dict.fromkeys(not_counted.warning(row.run.ledger.flops) for row in table.rows if row.run)
    costs = dict.fromkeys(f.correct_reason for f in figures if f.energy_j is not None and f.correct_reason)
    return [
        *(f"energy not measured: {reason}" for reason in reasons),
        *(f"no joules of a right answer: {reason}" for reason in costs),
        *filter(None, missing),
        *dict.fromkeys(note for row in table.rows if row.run and (note := _left_out(row.run))),
        *(f"{row.label}: {said}" for row in table.rows if row.run for said in _attention(row.run)),
    ]


def _attention(run: Run) -> list[str]:
    return attention.differing(run.settings.get("attention"), run.model.get("attention"))


def _left_out(run: Run) -> str:
    """Return how many samples a run left out since their pictures could not be read, and why the first of them."""
    bad = run.dataset.get("bad") or {}
    if not bad:
        return ""
    return f"{units.many(len(bad), 'sample')} left out, e.g. {next(iter(bad.values()))}"


def unmatched(table: TableView) -> list[str]:
    """Return one line for each row of the earlier report that no cell stands for."""
    lines = []
    for line in table.unmatched:
        named = ", ".join(
            f"{name} {_short(value)}" for name, value in line.items() if value is not None and name != "table"
        )
        lines.append(f"only in the report: {named}")
    return lines


def _work(figures: Figures, scale: units.Scale) -> str:
    return units.bound(scale.show(figures.flops), figures.flops_at_least)


def _moved(figures: Figures, scale: units.Scale) -> str:
    return units.bound(scale.show(figures.bytes), figures.bytes_at_least)


def _short(value: object) -> str:
    return units.number(value) if isinstance(value, float) else str(value)


def _reported(row: CellRow, name: str) -> float | None:
    value = (row.reference or {}).get(name)
    return value if isinstance(value, (int, float)) else None


def _value(value: object) -> str:
    return units.MISSING if value is None else str(value)


def _plain(value: float | None) -> str:
    return units.MISSING if value is None else units.number(value)


def _rate(value: float | None) -> str:
    return units.MISSING if value is None else f"{value:.3f}" if value < 10 else f"{value:.1f}"


def interval(ends: tuple[float, float] | None, factor: float = 1.0) -> str:
    """Return the ends of an interval, in units of `factor`; empty without one."""
    return f"[{units.number(ends[0] / factor)}, {units.number(ends[1] / factor)}]" if ends else ""


def _times(ratios: Iterable[float | None]) -> list[str]:
    return [units.MISSING if ratio is None else f"{ratio:.2f}" for ratio in ratios]


def _signed(change: Change | None) -> str:
    if change is None or change.value is None:
        return ""
    return f"{change.value:+.3f}" if change.value else "0"


def _guard(guards: Guards | None, name: str) -> str:
    return units.percent(getattr(guards, name) if guards else None)


def _words(guards: Guards | None) -> str:
    if guards is None or guards.hypothesis_words is None:
        return units.MISSING
    return f"{guards.hypothesis_words:.1f}/{guards.reference_words or 0:.1f}"


def status_style(status: Status | None) -> str:
    """Return the colour of a state."""
    return {Status.DONE: "green", Status.SKIPPED: "yellow", None: "dim"}.get(status, "red")
