"""A sweep in a terminal: its tables with the earlier report beside them, guards, cells without figures."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import IO

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.text import Text

from layerprof.report.look import Column, Look, console_on
from layerprof.report.sweep import columns, layers, overview, tables
from layerprof.report.sweep.overview import SweepData
from layerprof.report.sweep.tables import TableView


def render(data: SweepData, out: Console | IO[str]) -> None:
    """Print the sweep on a Rich console, or write it to a text stream."""
    console = console_on(out, 140)
    look = Look.of(console)
    sections = [_header(data, look), *(_table(data, table, look) for table in tables.tables(data)), _guards(data, look)]
    for section in (*sections, _problems(data, look), _notes(data, look), _files(data, look)):
        pieces = list(section)
        for piece in pieces:
            console.print(piece, highlight=False)
        if pieces:
            console.print()


def _header(data: SweepData, look: Look) -> Iterator[RenderableType]:
    yield look.text("layerprof sweep ", "dim").append_text(look.text(data.record.title, "bold"))
    yield look.packed(overview.facts(data))


def _table(data: SweepData, table: TableView, look: Look) -> Iterator[RenderableType]:
    yield look.heading(table.planned.title)
    if table.planned.about:
        yield look.text(table.planned.about, "dim")
    yield look.table([_column(look, column, table) for column in columns.columns(table)])
    for line in columns.unmatched(table):
        yield look.text(line, "dim")
    found = layers.lines(data, table)
    if found:
        yield Text()
        yield look.heading(layers.TITLE, table.planned.title)
        yield look.table([_plain(look, column) for column in layers.columns(found)])
        yield look.text(layers.LEGEND, "dim")


def _plain(look: Look, column: columns.TextColumn) -> Column:
    cells = [look.text(cell) for cell in column.cells]
    return Column(column.title, cells, column.gives_way, "left" if column.left else "right")


def _notes(data: SweepData, look: Look) -> Iterator[RenderableType]:
    """Yield what is to be known of the tables, each thing once."""
    shown = tables.tables(data)
    notes = [columns.LEGEND, *(note for table in shown for note in columns.not_measured(table))]
    reasons = [reason for table in shown for reason in table.planned.reasons]
    notes += [f"{reason.get('quantity', '')}: {reason.get('text', '')}" for reason in reasons]
    yield look.heading("Notes", "and known reasons why the earlier report's figures differ" if reasons else "")
    for note in dict.fromkeys(notes):
        yield Padding(look.text(note, "dim"), (0, 0, 0, 2))


def _column(look: Look, column: columns.TextColumn, table: TableView) -> Column:
    if column.title == "state":
        styled: list[Text] = [
            look.text(cell, columns.status_style(row.status))
            for cell, row in zip(column.cells, table.rows, strict=True)
        ]
        return Column("", styled, 0, "left")
    cells = [look.text(cell, "dim" if column.gives_way >= 5 else "") for cell in column.cells]
    return Column(column.title, cells, column.gives_way, "left" if column.left else "right")


def _guards(data: SweepData, look: Look) -> Iterator[RenderableType]:
    found = overview.flagged(data)
    if found:
        yield look.heading("Guards", "answers that should not be believed as they are")
    for cell, flag in found:
        yield Padding(look.text(f"{cell}: {flag}", "yellow"), (0, 0, 0, 2))


def _problems(data: SweepData, look: Look) -> Iterator[RenderableType]:
    found = overview.problems(data)
    if found:
        yield look.heading("Cells without figures")
    for cell, state, reason in found:
        yield Padding(look.text(f"{cell}: {state}: {reason}"), (0, 0, 0, 2))


def _files(data: SweepData, look: Look) -> Iterator[RenderableType]:
    yield look.heading("Files", str(data.folder))
    yield Padding(look.text(f"layerprof report {shlex.quote(str(data.folder))} -o sweep.html", "dim"), (0, 0, 0, 2))
    yield Padding(look.text(f"layerprof view {shlex.quote(str(data.folder))}", "dim"), (0, 0, 0, 2))
