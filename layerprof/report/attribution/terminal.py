"""An attributed trace in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import IO

from rich.console import Console, RenderableType
from rich.text import Text

from layerprof.report import units
from layerprof.report.attribution import words
from layerprof.report.look import PHASE_STYLE, Column, Look, console_on
from layerprof.trace.attribution import Attribution, Row

BAR = 16
NARROW_BAR = 8
WIDE = 110
"""From this width on, longer bars."""
BESIDE = 28
"""Cells for phase, own time and share beside a layer's name."""


def render(result: Attribution, out: Console | IO[str], *, most: int | None = None) -> None:
    """Print the attribution on a Rich console, or write it to a text stream; `most` limits the rows."""
    console = console_on(out, 120)
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
    for remark in words.remarks(result):
        yield look.text(remark, "yellow")


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
        Column("%", cells([units.bare_percent(share) for share in shares]), 1),
        Column("", [look.bar(share / max(*shares, 1e-12), bar, "cyan") for share in shares], 6, "left"),
    ]
    if any(row.inclusive_ns != row.self_ns for row in rows):
        shown = [scale.show(row.inclusive_ns / 1e9) for row in rows]
        columns.append(Column(f"with inner {scale.unit}", cells(shown), 2))
    if result.device == "cuda":
        columns.append(Column(f"span {spread.unit}", cells([spread.show(row.span_ns / 1e9) for row in rows]), 5))
    columns.append(
        Column("busy/span %", cells([units.bare_percent(words.busy_share(row, result), "") for row in rows]), 3)
    )
    if any(row.graph_ns for row in rows):
        columns.append(Column(f"in graphs {scale.unit}", cells([scale.show(row.graph_ns / 1e9) for row in rows]), 2))
    top = [row.top[0][0][: words.KERNEL_NAME] if row.top else "" for row in rows]
    columns.append(Column(f"heaviest {words.piece(result)}", cells(top), 7, "left"))
    return columns


def _labels(rows: Sequence[Row], room: int) -> list[str]:
    """Return the rows' names: a submodule below its layer without the layer's name, each in one line."""
    labels = []
    for place, row in enumerate(rows):
        around = [r.name for r in rows[:place] if r.phase == row.phase and row.name.startswith(f"{r.name}.") and r.name]
        holder = max(around, key=len, default="")
        inner = row.name[len(holder) + 1 :] if holder else words.name_of(row)
        labels.append(_fitting("  " * len(set(around)) + inner, max(room, 24)))
    return labels


def _fitting(name: str, room: int) -> str:
    """Return a name that takes no more room: what is left out is in the middle, since its end tells most."""
    if len(name) <= room:
        return name
    head = room // 3
    return f"{name[:head]}...{name[len(name) - (room - head - 3) :]}"


def _books(result: Attribution, look: Look) -> list[Column]:
    scale = units.scale([result.total_ns / 1e9], "s")
    books = list(words.book_lines(result))
    return [
        Column("", [look.text(label, "bold" if label == "total" else "") for label, *_ in books], 0, "left"),
        Column(scale.unit, [look.text(words.book_time(label, ns, scale.show)) for label, ns, *_ in books], 0),
        Column("%", [look.text(words.book_share(label, ns, result)) for label, ns, *_ in books], 0),
        Column("", [look.text(note, "dim") for *_, note, _ in books], 2, "left", wraps=True),
        Column("heaviest", [look.text(top, "dim") for *_, top in books], 3, "left"),
    ]
