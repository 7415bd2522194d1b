"""An attributed trace as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict

import orjson

from layerprof.report import units
from layerprof.report.attribution import words
from layerprof.report.markdown_text import escape, table
from layerprof.trace.attribution import NOT_RECORDED, Attribution

COLUMNS = (
    "name",
    "phase",
    "calls",
    "self_s",
    "inclusive_s",
    "union_s",
    "span_s",
    "host_s",
    "host_self_s",
    "graph_s",
    "kernels",
    "top_kernel",
    "top_kernel_s",
    "not_recorded",
)
"""Header of the CSV; buckets stand below the layers, with their name in angle brackets."""


def to_markdown(result: Attribution) -> str:
    """Return rows and books as two Markdown tables."""
    on_gpu = result.device == "cuda"
    titles = ("layer", "phase", "calls", "own", "%", "with inner", "busy/span", f"heaviest {words.piece(result)}")
    total = result.total_ns or 1
    rows = (
        (
            words.name_of(row),
            row.phase or "",
            units.count(row.calls),
            units.seconds(row.self_ns / 1e9),
            units.bare_percent(row.self_ns / total),
            units.seconds(row.inclusive_ns / 1e9),
            units.percent(words.busy_share(row, result)),
            row.top[0][0][: words.KERNEL_NAME] if row.top else "",
        )
        for row in result.rows
    )
    books = (
        (label, words.book_time(label, ns, units.seconds), words.book_share(label, ns, result), note)
        for label, ns, note, _ in words.book_lines(result)
    )
    lines = [
        f"# {'GPU work' if on_gpu else 'Operators on the CPU'}, {units.seconds(result.total_ns / 1e9)}",
        "",
        *table(titles, rows, left=(0, 1, 7)),
        "",
        *table(("books", "time", "%", ""), books, left=(0, 3)),
        *(f"\n{escape(remark)}" for remark in words.remarks(result)),
    ]
    return "\n".join(lines) + "\n"


def to_csv(result: Attribution) -> str:
    """Return rows and buckets as CSV, times in seconds."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in result.rows:
        device = (row.self_ns, row.inclusive_ns, row.union_ns, row.span_ns)
        times = (*device, row.host_ns, row.host_self_ns, row.graph_ns)
        name, ns = row.top[0] if row.top else ("", 0)
        top = (name, ns / 1e9 if name else "")
        counts = (*(ns / 1e9 for ns in times), row.kernels, *top, row.not_recorded)
        writer.writerow((row.name, row.phase or "", row.calls, *counts))
    for name, ns in result.buckets_ns.items():
        writer.writerow((f"<{name}>", "", "", ns / 1e9, *[""] * (len(COLUMNS) - 4)))
    if result.launched_not_recorded:
        writer.writerow((f"<{NOT_RECORDED}>", *[""] * (len(COLUMNS) - 2), result.launched_not_recorded))
    return out.getvalue()


def to_json(result: Attribution) -> str:
    """Return the attribution as JSON, field for field, times in whole nanoseconds; `unreadable_events` is `skipped`."""
    return orjson.dumps(asdict(result) | {"unreadable_events": result.skipped}, option=orjson.OPT_INDENT_2).decode()
