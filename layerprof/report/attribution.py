"""An attributed trace: rows by layer, the buckets, the books; as a table, CSV or JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import IO

import orjson
from rich.console import Console, RenderableType
from rich.text import Text

from layerprof.attribution import GRAPH, NO_LAUNCH, OUTSIDE, Attribution, Row
from layerprof.report import units
from layerprof.report.look import PHASE_STYLE, Column, Look

COLUMNS = (
    "name",
    "phase",
    "calls",
    "self_s",
    "inclusive_s",
    "union_s",
    "span_s",
    "host_s",
    "graph_s",
    "kernels",
    "top_kernel",
    "top_kernel_s",
)
"""Header of the CSV; buckets stand below the layers, with their name in angle brackets."""

BAR = 16
WHY = {
    OUTSIDE: "launched with no layer's range open",
    NO_LAUNCH: "the launch lies outside the recorded window",
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
    if result.skipped:
        yield look.text(f"{units.count(result.skipped)} events could not be read and are left out.", "yellow")


def _columns(rows: Sequence[Row], result: Attribution, look: Look) -> list[Column]:
    scale = units.scale((row.inclusive_ns / 1e9 for row in rows), "s")
    spread = units.scale((row.span_ns / 1e9 for row in rows), "s")
    total = result.total_ns or 1
    nested = any(row.inclusive_ns != row.self_ns for row in rows)
    work = "kernel" if result.device == "cuda" else "operator"

    def cells(values: Sequence[str]) -> list[Text]:
        return [look.text(value) for value in values]

    shares = [row.self_ns / total for row in rows]
    columns = [
        Column("", cells([row.name or "the model itself" for row in rows]), 0, "left", wraps=True),
        Column("phase", [look.text(row.phase or "", PHASE_STYLE[row.phase]) for row in rows], 0, "left"),
        Column("calls", cells([units.count(row.calls) for row in rows]), 4),
        Column(f"own {scale.unit}", cells([scale.show(row.self_ns / 1e9) for row in rows]), 0),
        Column("%", cells([units.percent(share).removesuffix(" %") for share in shares]), 1),
        Column("", [look.bar(share / max(*shares, 1e-12), BAR, "cyan") for share in shares], 6, "left"),
    ]
    if nested:
        shown = [scale.show(row.inclusive_ns / 1e9) for row in rows]
        columns.append(Column(f"with inner {scale.unit}", cells(shown), 2))
    if result.device == "cuda":
        columns.append(Column(f"span {spread.unit}", cells([spread.show(row.span_ns / 1e9) for row in rows]), 3))
        columns.append(Column("busy/span %", cells([_busy_share(row) for row in rows]), 3))
    if any(row.graph_ns for row in rows):
        columns.append(Column(f"in graphs {scale.unit}", cells([scale.show(row.graph_ns / 1e9) for row in rows]), 2))
    columns.append(
        Column(f"heaviest {work}", cells([row.top[0][0][:60] if row.top else "" for row in rows]), 7, "left")
    )
    return columns


def _busy_share(row: Row) -> str:
    return units.percent(row.union_ns / row.span_ns).removesuffix(" %") if row.span_ns else ""


def _books(result: Attribution, look: Look) -> list[Column]:
    scale = units.scale([result.total_ns / 1e9], "s")
    own = sum(row.self_ns for row in result.rows)
    kept = {name: ns for name, ns in result.buckets_ns.items() if ns or result.device == "cuda"}
    labels = ["rows", *kept, "total"]
    values = [own, *kept.values(), result.total_ns]
    notes = ["", *(WHY[name] if ns else "" for name, ns in kept.items()), ""]
    tops = [result.bucket_top.get(label, ())[:1] for label in labels]
    heaviest = [top[0][0][:60] if top else "" for top in tops]
    total = result.total_ns or 1
    return [
        Column("", [look.text(label, "bold" if label == "total" else "") for label in labels], 0, "left"),
        Column(scale.unit, [look.text(scale.show(ns / 1e9)) for ns in values], 0),
        Column("%", [look.text(units.percent(ns / total).removesuffix(" %")) for ns in values], 0),
        Column("", [look.text(note, "dim") for note in notes], 2, "left", wraps=True),
        Column("heaviest", [look.text(name, "dim") for name in heaviest], 3, "left"),
    ]


def to_csv(result: Attribution) -> str:
    """Return rows and buckets as CSV, times in seconds."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in result.rows:
        times = (row.self_ns, row.inclusive_ns, row.union_ns, row.span_ns, row.host_ns, row.graph_ns)
        name, ns = row.top[0] if row.top else ("", 0)
        top = (name, ns / 1e9 if name else "")
        writer.writerow((row.name, row.phase or "", row.calls, *(ns / 1e9 for ns in times), row.kernels, *top))
    for name, ns in result.buckets_ns.items():
        writer.writerow((f"<{name}>", "", "", ns / 1e9, *[""] * (len(COLUMNS) - 4)))
    return out.getvalue()


def to_json(result: Attribution) -> str:
    """Return the attribution as JSON, field for field; times in whole nanoseconds."""
    return orjson.dumps(asdict(result), option=orjson.OPT_INDENT_2).decode()
