"""A sweep as Markdown; what comes from models and datasets is escaped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import IO

from layerprof.report.markdown_text import escape, table
from layerprof.report.sweep import columns, layers, overview, tables
from layerprof.report.sweep.overview import SweepData
from layerprof.report.sweep.tables import TableView


def render(data: SweepData, out: IO[str]) -> None:
    """Write the whole report."""
    blocks = [_head(data), *(_table(data, view) for view in tables.tables(data)), _guards(data), _problems(data)]
    for block in blocks:
        lines = list(block)
        if lines:
            out.write("\n".join(lines) + "\n\n")


def _head(data: SweepData) -> Iterator[str]:
    yield f"# {escape(data.record.title)}"
    yield ""
    if data.record.about:
        yield escape(data.record.about)
        yield ""
    yield escape(" · ".join(overview.facts(data)))


def _table(data: SweepData, view: TableView) -> Iterator[str]:
    yield f"## {escape(view.planned.title)}"
    yield ""
    if view.planned.about:
        yield escape(view.planned.about)
        yield ""
    yield from _columns(columns.columns(view))
    yield ""
    yield escape(columns.LEGEND) + "."
    notes = [*columns.without_figures(view.rows), *columns.not_measured(view)]
    notes += columns.unmatched(view)
    notes += [f"{reason.get('quantity', '')}: {reason.get('text', '')}" for reason in view.planned.reasons]
    if notes:
        yield ""
    for note in notes:
        yield f"- {escape(note)}"

    found = layers.lines(data, view)
    if found:
        yield ""
        yield f"### {layers.TITLE}"
        yield ""
        yield from _columns(layers.columns(found))
        yield ""
        yield f"{layers.LEGEND[0].upper()}{layers.LEGEND[1:]}."


def _columns(found: Sequence[columns.TextColumn]) -> Iterator[str]:
    left = [index for index, column in enumerate(found) if column.left]
    yield from table([column.title for column in found], zip(*(column.cells for column in found), strict=True), left)


def _guards(data: SweepData) -> Iterator[str]:
    found = overview.flagged(data)
    if found:
        yield "## Guards"
        yield ""
    for cell, flag in found:
        yield f"- {escape(cell)}: {escape(flag)}"


def _problems(data: SweepData) -> Iterator[str]:
    found = overview.problems(data)
    if found:
        yield "## Cells without figures"
        yield ""
        yield from table(("cell", "state", "reason"), found, left=(0, 1, 2))
