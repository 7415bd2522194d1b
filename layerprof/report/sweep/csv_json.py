"""A sweep as CSV, one line for each cell of each table in SI units, and as JSON, with guards and intervals."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from typing import IO, Any

from layerprof.report import csv_text, request
from layerprof.report.sweep import layers, overview, tables
from layerprof.report.sweep.overview import SweepData
from layerprof.report.sweep.tables import CellRow, TableView

FIGURES = (
    "samples",
    "instrumented",
    "repeats",
    "wer",
    "wer_first",
    "metric_name",
    "metric",
    "latency_s",
    "ttft_s",
    "token_s",
    "energy_j",
)
MORE = ("energy_quality", "flops", "flops_at_least", "bytes", "bytes_at_least", "weights", "memory")
SPANS = ("vision_span_s", "prefill_span_s", "decode_span_s")
RATES = ("samples_per_s", "output_tokens_per_s", "accepted_per_step")
PARTS = ("ttft_request", *request.PARTS)
"""Times with an interval, beside those that stand in `FIGURES`."""
COSTS = ("energy_per_correct_answer_j", "energy_per_correct_answer_ci_low_j", "energy_per_correct_answer_ci_high_j")
GUARDS = (
    "batch_invariant",
    "checked",
    "truncated_share",
    "hypothesis_words",
    "reference_words",
    "padding_share",
    "other_load",
    "not_finite",
)
REFERENCE = ("wer", "latency_s", "energy_j", "flops_as_reported")
PAIRED = (
    "time_per_sample_ratio",
    "time_per_sample_ratio_ci_low",
    "time_per_sample_ratio_ci_high",
    "wer_difference",
    "wer_difference_ci_low",
    "wer_difference_ci_high",
)
SETTINGS = (
    "model",
    "dataset",
    "device",
    "dtype",
    "optimization",
    "attention",
    "batch_size",
    "image_size",
    "max_input_len",
    "max_new_tokens",
)


def render_csv(data: SweepData, out: IO[str]) -> None:
    """Write the cells with a header line; empty where not measured."""
    axes = list(
        dict.fromkeys(axis for table in tables.tables(data) for axis in table.axes if axis not in (*SETTINGS, *FIGURES))
    )
    names = ["table", *SETTINGS, *axes, "status", "reason", *FIGURES, "latency_ci_low_s", "latency_ci_high_s", *MORE]
    names += [*SPANS, *RATES, *(name for part in PARTS for name in _columns(part)), *COSTS]
    names += [*GUARDS, "flags", *(f"report_{name}" for name in REFERENCE), *PAIRED, "cell"]
    writer = csv.DictWriter(out, names, lineterminator="\n", restval="", extrasaction="ignore")
    writer.writeheader()
    choices = {cell.key: cell.choices for cell in data.record.cells}
    for table in tables.tables(data):
        for row in table.rows:
            cells = _flat(table, row, choices[row.keys[0]])
            writer.writerow({name: csv_text.safe(value) for name, value in cells.items()})


def render_json(data: SweepData, out: IO[str]) -> None:
    """Write the sweep as one JSON object."""
    json.dump(plain(data), out, indent=2, ensure_ascii=False, allow_nan=False, default=str)
    out.write("\n")


def plain(data: SweepData) -> dict[str, Any]:
    """Return the sweep as JSON types."""
    return {
        "title": data.record.title,
        "about": data.record.about,
        "created": data.record.created,
        "facts": overview.facts(data),
        "tables": [
            {
                "name": table.planned.name,
                "title": table.planned.title,
                "about": table.planned.about,
                "axes": list(table.axes),
                "rows": [_row(row) for row in table.rows],
                "layers": layers.plain(layers.lines(data, table)),
                "only_in_report": list(table.unmatched),
                "reasons": list(table.planned.reasons),
            }
            for table in tables.tables(data)
        ],
    }


def _row(row: CellRow) -> dict[str, Any]:
    return {
        "point": row.point,
        "cells": list(row.keys),
        "status": row.status.value if row.status else None,
        "reason": row.reason,
        "figures": asdict(row.figures) if row.figures else None,
        "guards": row.guards.model_dump(mode="json") if row.guards else None,
        "report": row.reference,
        "against_first": _difference(row),
    }


def _difference(row: CellRow) -> dict[str, Any] | None:
    """Return how a cell differs from the first measured one of its dataset, on the same samples."""
    if row.against is None:
        return None
    pair = {"time_per_sample_ratio": row.against.time, "wer_difference": row.against.wer}
    return {name: {"value": c.value, "ci95": c.ci95, "pairs": c.n} if c else None for name, c in pair.items()}


def _flat(table: TableView, row: CellRow, choices: dict[str, Any]) -> dict[str, Any]:
    figures = asdict(row.figures) if row.figures else {}
    ends = figures.get("latency_ci") or (None, None)
    return {
        **{name: choices.get(name) for name in SETTINGS},
        **row.point,
        "table": table.planned.name,
        "status": row.status.value if row.status else "",
        "reason": row.reason,
        **{name: figures.get(name, row.point.get(name)) for name in (*FIGURES, *MORE, *SPANS, *RATES)},
        "latency_ci_low_s": ends[0],
        "latency_ci_high_s": ends[1],
        **_request(figures),
        **dict(zip(COSTS, (figures.get("correct_j"), *(figures.get("correct_ci") or (None, None))), strict=True)),
        **{name: getattr(row.guards, name) if row.guards else None for name in GUARDS},
        "flags": "; ".join(row.guards.flags) if row.guards else "",
        **{f"report_{name}": (row.reference or {}).get(name) for name in REFERENCE},
        **_paired(row),
        "cell": row.keys[0],
    }


def _columns(part: str) -> tuple[str, str, str]:
    return f"{part}_s", f"{part}_ci_low_s", f"{part}_ci_high_s"


def _request(figures: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of the request with their intervals under the names of their columns."""
    found: dict[str, Any] = {}
    for part in PARTS:
        values = (figures.get(f"{part}_s"), *(figures.get(f"{part}_ci") or (None, None)))
        found |= dict(zip(_columns(part), values, strict=True))
    return found


def _paired(row: CellRow) -> dict[str, Any]:
    pair = row.against
    values: list[Any] = []
    for change in (pair.time, pair.wer) if pair else (None, None):
        values += [change.value, *(change.ci95 or (None, None))] if change else [None, None, None]
    return dict(zip(PAIRED, values, strict=True))
