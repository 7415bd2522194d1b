"""A sweep as one HTML page: tables, plots and data inside."""

from __future__ import annotations

from itertools import groupby
from typing import IO, Any

from layerprof.records import Run
from layerprof.report import page
from layerprof.report.payload import parts, payload
from layerprof.report.sweep import columns, layers, overview, tables
from layerprof.report.sweep.columns import TextColumn
from layerprof.report.sweep.overview import SweepData
from layerprof.report.sweep.tables import CellRow, TableView

RUN_PARTS = ("rows", "quantities", "peaks")
FIGURES = (
    *(
        "latency_s",
        "energy_j",
        "correct_j",
        "flops",
        "memory",
        "wer",
        "wer_first",
        "metric",
        "ttft_s",
        "ttft_request_s",
    ),
    *("token_s", "samples", "instrumented"),
)


def render(data: SweepData, out: IO[str]) -> None:
    """Write the page."""
    views = tables.tables(data)
    page.write(
        out,
        "sweep.html",
        _plots(views),
        ["charts.js", "sweep.js"],
        record=data.record,
        facts=overview.facts(data),
        tables=[_table(data, view) for view in views],
        guards=overview.flagged(data),
        problems=overview.problems(data),
        legend=columns.LEGEND,
        folder=str(data.folder),
    )


def _table(data: SweepData, view: TableView) -> dict[str, Any]:
    found, gained = columns.columns(view), layers.columns(layers.lines(data, view))
    return {
        **_shown(found, [bool(row.reason) for row in view.rows]),
        "name": view.planned.name,
        "title": view.planned.title,
        "about": view.planned.about,
        "layers": _shown(gained, [False] * len(gained[0].cells)) | {"title": layers.TITLE, "legend": layers.LEGEND},
        "notes": [
            *columns.without_figures(view.rows),
            *columns.not_measured(view),
            *columns.unmatched(view),
        ],
        "reasons": list(view.planned.reasons),
    }


def _shown(found: list[TextColumn], bad: list[bool]) -> dict[str, Any]:
    shown = [column for column in found if not column.aside]
    return {
        "groups": [(name, len(list(members))) for name, members in groupby(shown, lambda column: column.group)],
        "columns": [_heading(column) for column in shown],
        "rows": [{"bad": it, "cells": _cells(found, nth)} for nth, it in enumerate(bad)],
    }


def _heading(column: TextColumn) -> dict[str, Any]:
    """Return a column's heading, which need not repeat that of its group."""
    return {
        "title": column.title.removeprefix("report "),
        "left": column.left,
        "earlier": column.group == "earlier report",
    }


def _cells(columns: list[TextColumn], nth: int) -> list[tuple[str, str]]:
    """Return the texts of a row, each with what stands small beside it."""
    cells: list[tuple[str, str]] = []
    for column in columns:
        if column.aside:
            cells[-1] = (cells[-1][0], column.cells[nth])
        else:
            cells.append((column.cells[nth], ""))
    return cells


def _plots(views: list[TableView]) -> dict[str, Any]:
    """Return what the plots draw: the points of every table, and each run once, by its cell's key."""
    runs = {row.keys[0]: row.run for view in views for row in view.rows if row.run is not None}
    return {
        "tables": [
            {
                "name": view.planned.name,
                "title": view.planned.title,
                "axes": list(view.axes),
                "rows": [_point(row) for row in view.rows if row.figures is not None],
            }
            for view in views
        ],
        "runs": {key: _run(run) for key, run in runs.items()},
    }


def _run(run: Run) -> dict[str, Any]:
    """Return what the plots draw of a run; which parts are small is for the page to say, over all cells it shows.

    FLOPs and bytes that are only a lower bound are not drawn beside others.
    """
    drawn = {name: value for name, value in payload(run).items() if name in RUN_PARTS} | {"parts": parts(run, 0.0)}
    for kind in ("rows", "parts"):
        drawn[kind] = [
            one | {name: None for name in ("flops", "bytes") if one.get(f"{name}_at_least")} for one in drawn[kind]
        ]
    return drawn


def _point(row: CellRow) -> dict[str, Any]:
    assert row.run is not None
    assert row.figures is not None
    return {
        "label": row.label,
        "key": row.keys[0],
        "dataset": str(row.run.dataset.get("name")),
        "batch_size": row.run.settings.get("batch_size"),
        "flags": list(row.guards.flags) if row.guards else [],
        **{name: getattr(row.figures, name) for name in FIGURES},
        "flops": None if row.figures.flops_at_least else row.figures.flops,
        "sample_s": row.run.totals.latency_s.per_sample.median,
    }
