"""The whole request in a terminal: a bar from the image file to the answer, and its parts down to the residual."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from layerprof.records import Run
from layerprof.report import request, units
from layerprof.report.look import REQUEST_STYLE, Column, Look


def breakdown(run: Run, look: Look) -> Iterator[RenderableType]:
    """Yield the request's parts: of all batches together with their share of the walk, and of one batch."""
    parts = request.parts(run)
    if not parts:
        return
    yield look.heading("Where it goes", request.told(run))
    shares = [(part.name, part.share) for part in parts if part.share is not None]
    if shares:
        yield from look.cut([(f"{name} {units.percent(share)}", share, *REQUEST_STYLE[name]) for name, share in shares])
        yield Text()
    yield look.table(_columns(look, run, parts))


def _columns(look: Look, run: Run, parts: list[request.RequestPart]) -> list[Column]:
    total = run.ledger.request_s.total if run.ledger.request_s else None
    whole = units.scale([total, *(part.total_s for part in parts)], "s")
    fits = [units.scale([part.each.median if part.each else None], "s") for part in parts]
    each = [(fit, part.each) for fit, part in zip(fits, parts, strict=True)]
    blank = Text()

    def right(title: str, cells: list[str], last: str = "", gives_way: int = 0) -> Column:
        return Column(title, [*(look.text(cell) for cell in cells), look.text(last, "bold")], gives_way)

    names = [look.text(part.name, REQUEST_STYLE[part.name][0]) for part in parts]
    largest = max((part.share or 0 for part in parts), default=0)
    width = 24 if look.width >= 110 else 10
    bars = [
        look.bar(part.share / largest if part.share and largest else None, width, REQUEST_STYLE[part.name][0])
        for part in parts
    ]
    ends = [units.bracket(one.ci95, fit) if one else "" for fit, one in each]
    columns = [
        Column("part", [*names, look.text("total", "bold")], 0, "left"),
        Column("", [*bars, blank], 3, "left"),
        right("%", [units.bare_percent(part.share) for part in parts], "100" if total else ""),
        right(whole.unit, [whole.show(part.total_s) for part in parts], whole.show(total)),
        right("a batch", [units.seconds(part.each.median) if part.each else "" for part in parts]),
        right("95 %", ends, gives_way=2),
        right("p95", [fit.show(one.p95) if one else "" for fit, one in each], gives_way=1),
    ]
    return columns if total is not None else [_without_last(column) for column in columns]


def _without_last(column: Column) -> Column:
    return Column(column.title, column.cells[:-1], column.gives_way, column.justify, column.wraps)
