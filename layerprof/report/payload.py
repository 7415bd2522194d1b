"""A run as the plain data that the pages draw from; the HTML report and the TensorBoard plugin share it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from layerprof.records import LayerRow, Run
from layerprof.report import balance, facts, layer_lines, request, run_parts, samples

QUANTITIES = (
    ("share", "share of time", "% time", "%"),
    ("median_s", "span, median of a call", "median", "s"),
    ("p95_s", "span, p95 of a call", "p95", "s"),
    ("tokens_per_call", "positions of a call", "tokens", "tokens"),
    ("kv_per_call", "positions that a call's attention reads", "KV", "tokens"),
    ("flops", "FLOPs of a call", "FLOPs", "FLOP"),
    ("flops_per_token", "FLOPs of a call for each of its positions", "FLOPs/token", "FLOP"),
    ("bytes", "bytes of a call", "bytes", "B"),
    ("busy_share", "busy / span", "busy/span", "%"),
    ("roof_share", "share of the roof reached", "of roof", "%"),
    ("memory_peak_bytes", "most memory that a call holds at once", "peak", "B"),
    ("memory_kept_bytes", "memory that a call leaves allocated", "kept", "B"),
    ("memory_kept_kv_bytes", "memory that a call leaves in the KV cache", "kept in KV", "B"),
    ("weights_bytes", "weights in memory", "weights", "B"),
    ("energy_j", "energy of a call", "energy", "J"),
    ("energy_active_j", "energy of a call above the idle model", "active", "J"),
    ("energy_hot_j", "energy of a call with weights in the cache", "hot", "J"),
    ("energy_reconciled_j", "energy of a call scaled to close", "scaled to close", "J"),
    ("energy_estimate_j", "energy of a call, estimated", "est. energy", "J"),
)
"""What the heat map can show: key, name, heading, SI unit (`%` for a share of one, `tokens` for positions)."""


def payload(run: Run) -> dict[str, Any]:
    """Return the run for a page: rows with the figures of one call, parts, books, settings; JSON types only."""
    prefixes = {group.tower: group.prefix for group in layer_lines.layer_groups(run, fold=False)}
    total = run.ledger.span_s.total
    rows = [_row(row, prefixes[row.tower], total) for row in run.layers]
    return {
        "title": facts.title(run),
        "status": run.status,
        "created": run.created,
        "settings": facts.settings(run),
        "convention": facts.convention(run),
        "facts": [{"label": fact.label, "value": fact.value, "note": fact.note} for fact in facts.end_to_end(run)],
        "warnings": facts.warnings(run),
        "quantities": [one for one in _quantities(run) if any(row[one["key"]] is not None for row in rows)],
        "rows": rows,
        "request": _request(run),
        "of_part": samples.of_part(run),
        "parts": parts(run),
        "ledger": _ledger(run),
        "steps": _steps(run),
        "peaks": _peaks(run),
    }


def _quantities(run: Run) -> Iterator[dict[str, str]]:
    """Yield what can be shown; names of joules carry how they were obtained, and by which sensor."""
    label = facts.energy_label(run)
    for key, name, short, unit in QUANTITIES:
        joules = unit == "J" and key != "energy_estimate_j" and label
        told = f"{name} ({label})" if joules else name
        yield {
            "key": key,
            "name": told,
            "short": f"{short}, {label.partition(':')[0]}" if joules else short,
            "unit": unit,
        }


def flat_settings(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return nested settings as (dotted name, text) lines; of long lists the first entries and the count."""
    lines: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            lines += [(f"{name}.{inner}", text) for inner, text in flat_settings(value)]
        elif isinstance(value, (list, tuple)) and len(value) > 8:
            lines.append((name, ", ".join(str(item) for item in value[:8]) + f", … ({len(value)} in all)"))
        elif isinstance(value, (list, tuple)):
            lines.append((name, ", ".join(str(item) for item in value)))
        else:
            lines.append((name, "–" if value is None else str(value)))
    return lines


def _row(row: LayerRow, prefix: str, total: float | None) -> dict[str, Any]:
    return {
        "name": row.name,
        "label": layer_lines.short_name(row.name, prefix),
        "tower": row.tower,
        "kind": row.kind,
        "index": row.index,
        "phase": row.phase.value,
        "calls": row.calls,
        "share": row.span_s.total / total if row.span_s and total else None,
        **{key: layer_lines.per_call(row, key) for key, *_ in QUANTITIES if key != "share"},
        "weights": row.weights_dtype,
        "flops_at_least": row.at_least,
        "bytes_at_least": row.bytes_at_least,
        "uncounted": row.uncounted,
        "entered": layer_lines.of_mixed(row),
        "energy_quality": row.energy_quality.value,
        "energy_reason": row.energy_reason,
        "kernels": [list(kernel) for kernel in row.top_kernels[:5]],
    }


def _request(run: Run) -> dict[str, Any] | None:
    """Return the way from the image file to the answer: its parts, the residual last; None where it was not timed."""
    found = request.parts(run)
    if not found:
        return None
    kept = [
        {
            "name": part.name,
            "total_s": part.total_s,
            "share": part.share,
            "median_s": part.each.median if part.each else None,
            "p95_s": part.each.p95 if part.each else None,
            "ci95_s": part.each.ci95 if part.each else None,
        }
        for part in found
    ]
    column = run.ledger.request_s
    return {"told": request.told(run), "parts": kept, "total_s": column.total if column else None}


def parts(run: Run, join_below: float = run_parts.SMALL) -> list[dict[str, Any]]:
    """Return where the run went, with what is smaller than `join_below` of everything joined; JSON types only."""
    return [_part(part) for part in run_parts.breakdown(run, join_below)]


def _part(part: run_parts.RunPart) -> dict[str, Any]:
    return {
        "label": part.label,
        "phase": part.phase.value if part.phase else None,
        "blocks": part.blocks,
        "span_s": part.sum.span_s,
        "flops": part.sum.flops,
        "flops_at_least": part.sum.at_least,
        "energy_j": part.sum.energy_j,
        "busy_share": part.sum.busy_share,
        "shares": {"time": part.span_share, "FLOPs": part.flops_share, "energy": part.energy_share},
    }


def _ledger(run: Run) -> dict[str, Any]:
    labels = balance.ledger_labels(run)
    return {
        "labels": labels,
        "columns": [
            {
                "title": book.title,
                "unit": book.scale.unit,
                "measured": book.measured,
                "verdict": balance.verdict(book),
                "notes": list(book.notes),
                "cells": [_cell(book, label) for label in labels],
            }
            for book in balance.closings(run)
        ],
    }


def _cell(book: balance.Book, label: str) -> dict[str, Any]:
    return {"value": book.cell(label), "shown": book.shown(label), "share": book.share(label)}


def _steps(run: Run) -> list[dict[str, Any]]:
    """Return the decode steps that the run stored under `passes.decode_by_step`, empty when it did not."""
    steps = run.passes.get("decode_by_step")
    if not isinstance(steps, Sequence) or isinstance(steps, str):
        return []
    return [dict(step) for step in steps if isinstance(step, Mapping) and {"step", "median_s"} <= step.keys()]


def _peaks(run: Run) -> dict[str, float] | None:
    """Return the device's peak FLOP/s and bytes/s that the run stored under `environment.peaks`, if both are there."""
    peaks = run.environment.get("peaks")
    if not isinstance(peaks, Mapping):
        return None
    found = {name: peaks.get(name) for name in ("flops_per_s", "bytes_per_s")}
    kept = {name: float(value) for name, value in found.items() if isinstance(value, (int, float)) and value > 0}
    return kept if len(kept) == len(found) else None
