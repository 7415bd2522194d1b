"""An attributed trace as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import asdict

import orjson

from layerprof.report import units
from layerprof.report.attribution import sections, words
from layerprof.report.attribution.view import Line, View, shown
from layerprof.report.csv_text import safe
from layerprof.report.markdown_text import escape, table
from layerprof.trace.attribution import NOT_RECORDED, TOP, Attribution, Naming, Top

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
    "naming",
    "parent",
    *(f"top_kernel_{number}{unit}" for number in range(2, TOP + 1) for unit in ("", "_s")),
)
"""Header of the CSV; buckets stand below the layers, with their name in angle brackets."""


def to_markdown(result: Attribution, view: View | None = None) -> str:
    """Return the tree of rows, as `view` shows it, and the books as Markdown tables."""
    view = view or View()
    tree = shown(result, view)
    named = any(row.naming is not Naming.RECORDED for row in result.rows)
    titles = ("layer", "phase", "naming", "", "calls", "time", "%", "own", "each", "busy/span", "heaviest")
    kept = [place for place, title in enumerate(titles) if title != "naming" or named]
    rows = ([cells[place] for place in kept] for cells in (_cells(line, result) for line in tree.lines))
    left = [new for new, place in enumerate(kept) if place in (0, 1, 2, 10)]
    books = (
        (label, words.book_time(label, ns, units.seconds), words.book_share(label, ns, result), note)
        for label, ns, note, _ in words.book_lines(result)
    )
    heading = words.heading(result)
    lines = [
        f"# {heading[:1].upper()}{heading[1:]}",
        "",
        *table([titles[place] for place in kept], rows, left=left),
        "",
        *(f"{escape(line)}\n" for line in words.left_out(tree, result, view)),
        *table(("books", "time", "%", ""), books, left=(0, 3)),
        *(line for section in sections.of(result) for line in _section(section)),
        *(f"\n{escape(remark)}" for remark in words.remarks(result)),
    ]
    return "\n".join(lines) + "\n"


def _cells(line: Line, result: Attribution) -> tuple[str, ...]:
    node, total = line.node, result.total_ns or 1
    many = len(node.rows) > 1
    return (
        "· " * line.depth + node.label,
        node.phase or "",
        node.naming.value,
        f"x{len(node.rows)}" if many else "",
        units.count(node.sum("calls")),
        units.seconds(node.sum("inclusive_ns") / 1e9),
        units.bare_percent(node.sum("inclusive_ns") / total),
        units.seconds(node.sum("self_ns") / 1e9),
        units.seconds(node.each_ns / 1e9) if many else "",
        units.percent(words.busy_share(node.rows, result)),
        words.heaviest(node)[: words.KERNEL_NAME],
    )


def _section(section: sections.Section) -> Iterator[str]:
    yield from ("", f"## {section.title}", "", f"{escape(section.note.capitalize())}.")
    yield from ("", *table(section.titles, section.rows)) if section.rows else ()
    yield from ("", *(f"- {escape(remark)}" for remark in section.remarks)) if section.remarks else ()


def to_csv(result: Attribution) -> str:
    """Return rows and buckets as CSV, times in seconds; `parent` is the name of the row around, if there is one."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in result.rows:
        device = (row.self_ns, row.inclusive_ns, row.union_ns, row.span_ns)
        times = (*device, row.host_ns, row.host_self_ns, row.graph_ns)
        first, rest = _kernels(row.top)
        parent = "" if row.parent is None else result.rows[row.parent].name
        counts = (*(ns / 1e9 for ns in times), row.kernels, *first, row.not_recorded, row.naming.value, parent, *rest)
        writer.writerow(map(safe, (row.name, row.phase or "", row.calls, *counts)))
    for name, ns in result.buckets_ns.items():
        first, rest = _kernels(result.bucket_top.get(name, ()))
        writer.writerow(map(safe, (f"<{name}>", "", "", ns / 1e9, *[""] * 7, *first, "", "", "", *rest)))
    if result.launched_not_recorded:
        place = COLUMNS.index("not_recorded")
        cells = [f"<{NOT_RECORDED}>", *[""] * (len(COLUMNS) - 1)]
        cells[place] = str(result.launched_not_recorded)
        writer.writerow(cells)
    return out.getvalue()


def _kernels(top: Top) -> tuple[list[str | float], list[str | float]]:
    """Return name and seconds of the heaviest kernel, and those of the next ones."""
    cells: list[str | float] = [cell for name, ns in top[:TOP] for cell in (name, ns / 1e9)]
    cells += [""] * (2 * TOP - len(cells))
    return cells[:2], cells[2:]


def to_json(result: Attribution) -> str:
    """Return the attribution as JSON, field for field, times in whole nanoseconds; `unreadable_events` is `skipped`."""
    return orjson.dumps(asdict(result) | {"unreadable_events": result.skipped}, option=orjson.OPT_INDENT_2).decode()
