"""An attributed trace: rows by layer, the buckets, the books; as a table, Markdown, CSV or JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO

import orjson
from rich.console import Console, RenderableType
from rich.text import Text

from layerprof.errors import RequestError
from layerprof.report import units
from layerprof.report.formats import markdown
from layerprof.report.look import PHASE_STYLE, Column, Look
from layerprof.report.write import format_for, to_file
from layerprof.trace.attribution import GRAPH, NO_LAUNCH, NOT_RECORDED, OUTSIDE, Attribution, Row

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

BAR = 16
NARROW_BAR = 8
WIDE = 110
"""From this width on, longer bars."""
BESIDE = 28
"""Cells for phase, own time and share beside a layer's name."""
KERNEL_NAME = 60
MOST_NAMED = 3
"""Layers with lost launches that are named before the rest is only counted."""
WHY = {
    OUTSIDE: "launched with no layer's range open",
    NO_LAUNCH: "launched before the recording, or without an id",
    GRAPH: "replayed by CUDA graphs, where single layers cannot be told apart",
}


def render(result: Attribution, out: Console | IO[str], *, most: int | None = None) -> None:
    """Print the attribution on a Rich console, or write it to a text stream; `most` limits the rows."""
    console = out if isinstance(out, Console) else Console(file=out, width=120, highlight=False)
    look = Look.of(console)
    for piece in _pieces(result, look, most):
        console.print(piece, highlight=False)


def _pieces(result: Attribution, look: Look, most: int | None) -> Iterator[RenderableType]:
    what = "GPU work" if result.device == "cuda" else "operators on the CPU"
    yield look.heading(f"{what}, {units.seconds(result.total_ns / 1e9)}", f"{units.count(result.events)} events")
    rows = [row for row in result.rows if row.calls]
    if rows:
        shown = rows if most is None else sorted(rows, key=lambda row: -row.self_ns)[:most]
        yield look.table(_columns(shown, result, look))
        if len(shown) < len(rows):
            yield look.text(f"{len(rows) - len(shown)} lighter rows are not shown.", "dim")
    else:
        yield look.text(
            "The trace has no ranges, so nothing can be told apart. Record it with layerprof, with record_function "
            "around the parts, or with with_stack=True.",
            "yellow",
        )
    yield Text()
    yield look.heading("Books", "rows + buckets = total, exactly")
    yield look.table(_books(result, look))
    for remark in remarks(result):
        yield look.text(remark, "yellow")


def remarks(result: Attribution) -> Iterator[str]:
    """Yield what a reader must know of launches that have no work in the trace, and of events left out."""
    lost, of = result.launched_not_recorded, units.count(result.launches)
    if lost and result.device == "cpu":
        yield (
            f"{units.count(lost)} of {of} launches put work on a GPU, and the trace has no record of any: the times "
            "above are the host's. Another profiler may hold CUPTI, or it is not permitted: `layerprof doctor` tells."
        )
    elif lost:
        rows = sorted((row for row in result.rows if row.not_recorded), key=lambda row: -row.not_recorded)
        where = [f"{row.not_recorded} in {_name(row)}" for row in rows[:MOST_NAMED]]
        where += [f"{len(rows) - MOST_NAMED} more layers"] if len(rows) > MOST_NAMED else []
        graphs = [f"{units.count(result.graphs_not_recorded)} whole CUDA graphs"] if result.graphs_not_recorded else []
        named = f" ({', '.join([*graphs, *where])})" if graphs or where else ""
        yield (
            f"{units.count(lost)} of {of} launches have no record of what they ran{named}: the profiler lost it, or "
            "the recording ended before. "
            "Record again, with the GPU idle at the beginning and the end and some launches ahead of those that matter."
        )
    if result.captured:
        yield (
            f"{units.count(result.captured)} launches went into CUDA graphs: they run, and count, where these are "
            "replayed."
        )
    if result.skipped:
        yield f"{units.count(result.skipped)} events could not be read and are left out."


def _columns(rows: Sequence[Row], result: Attribution, look: Look) -> list[Column]:
    scale = units.scale((row.inclusive_ns / 1e9 for row in rows), "s")
    spread = units.scale((row.span_ns / 1e9 for row in rows), "s")
    bar = BAR if look.width >= WIDE else NARROW_BAR

    def cells(values: Sequence[str]) -> list[Text]:
        return [look.text(value) for value in values]

    shares = [row.self_ns / (result.total_ns or 1) for row in rows]
    columns = [
        Column("layer", cells(_labels(rows, look.width - BESIDE)), 0, "left"),
        Column("phase", [look.text(row.phase or "", PHASE_STYLE[row.phase]) for row in rows], 0, "left"),
        Column("calls", cells([units.count(row.calls) for row in rows]), 4),
        Column(f"own {scale.unit}", cells([scale.show(row.self_ns / 1e9) for row in rows]), 0),
        Column("%", cells([_percent(share) for share in shares]), 1),
        Column("", [look.bar(share / max(*shares, 1e-12), bar, "cyan") for share in shares], 6, "left"),
    ]
    if any(row.inclusive_ns != row.self_ns for row in rows):
        shown = [scale.show(row.inclusive_ns / 1e9) for row in rows]
        columns.append(Column(f"with inner {scale.unit}", cells(shown), 2))
    if result.device == "cuda":
        columns.append(Column(f"span {spread.unit}", cells([spread.show(row.span_ns / 1e9) for row in rows]), 5))
    columns.append(Column("busy/span %", cells([_percent(busy_share(row, result)) for row in rows]), 3))
    if any(row.graph_ns for row in rows):
        columns.append(Column(f"in graphs {scale.unit}", cells([scale.show(row.graph_ns / 1e9) for row in rows]), 2))
    top = [row.top[0][0][:KERNEL_NAME] if row.top else "" for row in rows]
    columns.append(Column(f"heaviest {_piece(result)}", cells(top), 7, "left"))
    return columns


def busy_share(row: Row, result: Attribution) -> float | None:
    """Return how much of a row's time work was running; at most one. None where nothing of it ran.

    On a GPU: of the time from its first kernel to its last, call by call, streams at the same time counted once. On a
    CPU: of the time in which its range was the innermost.
    """
    busy, span = (row.union_ns, row.span_ns) if result.device == "cuda" else (row.self_ns, row.host_self_ns)
    return busy / span if span else None


def _name(row: Row) -> str:
    return row.name or "the model itself"


def _labels(rows: Sequence[Row], room: int) -> list[str]:
    """Return the rows' names: a submodule below its layer without the layer's name, each in one line."""
    labels = []
    for place, row in enumerate(rows):
        around = [r.name for r in rows[:place] if r.phase == row.phase and row.name.startswith(f"{r.name}.") and r.name]
        holder = max(around, key=len, default="")
        inner = row.name[len(holder) + 1 :] if holder else _name(row)
        labels.append(_fitting("  " * len(set(around)) + inner, max(room, 24)))
    return labels


def _fitting(name: str, room: int) -> str:
    """Return a name that takes no more room: what is left out is in the middle, since its end tells most."""
    if len(name) <= room:
        return name
    head = room // 3
    return f"{name[:head]}...{name[len(name) - (room - head - 3) :]}"


def _percent(share: float | None) -> str:
    return units.percent(share).removesuffix(" %") if share is not None else ""


def _books(result: Attribution, look: Look) -> list[Column]:
    scale = units.scale([result.total_ns / 1e9], "s")
    books = list(_lines(result))
    return [
        Column("", [look.text(label, "bold" if label == "total" else "") for label, *_ in books], 0, "left"),
        Column(scale.unit, [look.text(_time(label, ns, scale.show)) for label, ns, *_ in books], 0),
        Column("%", [look.text(_book_share(label, ns, result)) for label, ns, *_ in books], 0),
        Column("", [look.text(note, "dim") for *_, note, _ in books], 2, "left", wraps=True),
        Column("heaviest", [look.text(top, "dim") for *_, top in books], 3, "left"),
    ]


def _lines(result: Attribution) -> Iterator[tuple[str, int | None, str, str]]:
    """Yield the books: label, nanoseconds, what it holds, heaviest kernel. A CPU has no buckets of launches.

    What was not recorded stands below the total, of which it is no part: its time is a guess, or None.
    """
    yield "rows", sum(row.self_ns for row in result.rows), "", ""
    for name, ns in result.buckets_ns.items():
        if ns or result.device == "cuda":
            top = result.bucket_top.get(name, ())
            yield name, ns, WHY[name] if ns else "", top[0][0][:KERNEL_NAME] if top else ""
    yield "total", result.total_ns, "", ""
    if result.launched_not_recorded:
        yield NOT_RECORDED, result.launched_not_recorded_may_be_ns, _lost(result), ""


def _lost(result: Attribution) -> str:
    many = f"{units.count(result.launched_not_recorded)} of {units.count(result.launches)} launches, not in the total"
    return f"{many}; time at the mean of their like" if result.launched_not_recorded_may_be_ns is not None else many


def _time(label: str, ns: int | None, show: Callable[[float], str]) -> str:
    if ns is None:
        return "?"
    return f"≈{show(ns / 1e9)}" if label == NOT_RECORDED else show(ns / 1e9)


def _book_share(label: str, ns: int | None, result: Attribution) -> str:
    return "" if ns is None or label == NOT_RECORDED else _percent(ns / (result.total_ns or 1))


def to_markdown(result: Attribution) -> str:
    """Return rows and books as two Markdown tables."""
    on_gpu = result.device == "cuda"
    titles = ("layer", "phase", "calls", "own", "%", "with inner", "busy/span", f"heaviest {_piece(result)}")
    total = result.total_ns or 1
    rows = (
        (
            _name(row),
            row.phase or "",
            units.count(row.calls),
            units.seconds(row.self_ns / 1e9),
            _percent(row.self_ns / total),
            units.seconds(row.inclusive_ns / 1e9),
            units.percent(busy_share(row, result)),
            row.top[0][0][:KERNEL_NAME] if row.top else "",
        )
        for row in result.rows
    )
    books = (
        (label, _time(label, ns, units.seconds), _book_share(label, ns, result), note)
        for label, ns, note, _ in _lines(result)
    )
    lines = [
        f"# {'GPU work' if on_gpu else 'Operators on the CPU'}, {units.seconds(result.total_ns / 1e9)}",
        "",
        *markdown.table(titles, rows, left=(0, 1, 7)),
        "",
        *markdown.table(("books", "time", "%", ""), books, left=(0, 3)),
        *(f"\n{markdown.escape(remark)}" for remark in remarks(result)),
    ]
    return "\n".join(lines) + "\n"


def _piece(result: Attribution) -> str:
    return "kernel" if result.device == "cuda" else "operator"


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


TEXT: dict[str, Callable[[Attribution], str]] = {"markdown": to_markdown, "csv": to_csv, "json": to_json}
FORMATS = ("terminal", *TEXT)


def write(result: Attribution, name: str | None, output: Path | None, console: Console) -> Path | None:
    """Show the attribution on the console, or in a file when `output` is given; return the file.

    The format is `name`, or what the file's suffix asks for. Raises RequestError for an unknown one.
    """
    name = name or format_for(output)
    if name not in FORMATS:
        raise RequestError(f"A trace cannot be shown as '{name}'.", f"Choose one of: {', '.join(FORMATS)}.")
    if name == "terminal" and output is None:
        render(result, console)
        return None
    if name == "terminal":
        out = io.StringIO()
        render(result, out)
        text = out.getvalue()
    else:
        text = TEXT[name](result)
    if output is None:
        console.file.write(text if text.endswith("\n") else text + "\n")
        return None
    return to_file(text, output.expanduser())
