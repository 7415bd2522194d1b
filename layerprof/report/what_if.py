"""What a change could save at best, in the terminal: what is asked, phases, layers, end to end, what is assumed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import fsum
from typing import IO, TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.text import Text

from layerprof.report import units
from layerprof.report.look import PHASE_STYLE, Column, Look, console_on

if TYPE_CHECKING:
    from layerprof.estimate.what_if import WhatIf, WhatIfRow

BOUND = "a bound, not a measurement"


def render(answer: WhatIf, out: Console | IO[str]) -> None:
    """Print the answer on a Rich console, or write it to a text stream."""
    console = console_on(out, 100)
    look = Look.of(console)
    for section in (_header, _phases, _layers, _end_to_end, _notes):
        pieces = list(section(answer, look))
        for piece in pieces:
            console.print(piece, highlight=False)
        if pieces:
            console.print()


def _header(it: WhatIf, look: Look) -> Iterator[RenderableType]:
    run = it.run
    yield look.text("layerprof estimate: ", "dim").append_text(look.text(f"what if {_asked(it)}", "bold"))
    yield look.packed(
        [
            f"measured: {run['name']} in {run['dtype']} on {run['device']}",
            f"{run['dataset']}, {units.many(run['samples'], 'sample')}",
            str(run["created"]),
        ],
        "dim",
    )


def _asked(it: WhatIf) -> str:
    """Say the question in words."""
    asked = it.asked
    if asked["quantization"]:
        but = f", but for {asked['skip']}" if asked["skip"] else ""
        return f"the weights of {asked['layers']} were {asked['quantization']}{but}"
    if asked["speedup"]:
        return f"{asked['layers']} ran {asked['speedup']:g} times as fast"
    return f"{asked['layers']} cost nothing"


def _phases(it: WhatIf, look: Look) -> Iterator[RenderableType]:
    names = [*(phase.value for phase in it.phases), "total"]
    sums = [*it.phases.values(), it.totals]
    styles = [*(PHASE_STYLE[phase] for phase in it.phases), "bold"]
    time = units.scale([s.span_s for s in sums], "s")
    width = 20 if look.width >= 100 else 10
    bars = [look.bar(s.at_most_share, width, style) for s, style in zip(sums, styles, strict=True)]
    yield look.heading("What could go", f"of generate(), {units.seconds(it.generate_s)} measured; {BOUND}")
    yield look.table(
        [
            Column("phase", [look.text(name, style) for name, style in zip(names, styles, strict=True)], 0, "left"),
            _figures(look, f"measured {time.unit}", [time.show(s.span_s) for s in sums]),
            _figures(look, "%", [units.bare_percent(s.span_share) for s in sums], 1),
            Column("", bars, 2, "left"),
            _figures(look, f"at most {time.unit}", [time.show(s.at_most_s) for s in sums]),
            _figures(look, "% at most", [units.bare_percent(s.at_most_share) for s in sums]),
            _figures(look, "% alike", [_known(units.bare_percent(s.alike_share), it) for s in sums], 1),
        ]
    )


def _known(shown: str, it: WhatIf) -> str:
    """Return a figure that only rooflines give; nothing where none of them was asked for."""
    return shown if it.asked["quantization"] else ""


def _layers(it: WhatIf, look: Look) -> Iterator[RenderableType]:
    yield look.heading("Layers", "sums over layers of a kind and all their calls")
    for phase in it.phases:
        lines = _alike([row for row in it.layers if row.phase is phase])
        time = units.scale([_added(line, "span_s") for line in lines], "s")
        moved = units.scale([_added(line, "bytes_weights") for line in lines], "B")
        yield Text("\n").append_text(look.text(phase.value, f"bold {PHASE_STYLE[phase]}"))
        yield look.table(
            [
                Column("layer", [look.text(_kind(line[0])) for line in lines], 0, "left", wraps=True),
                _figures(look, "", [f"×{len(line)}" if len(line) > 1 else "" for line in lines]),
                _seconds(look, f"measured {time.unit}", lines, "span_s", time),
                _figures(look, "busy %", [_known(_busy(line), it) for line in lines], 3),
                _seconds(look, "least now", lines, "least_s", time, 2),
                _seconds(look, "after", lines, "least_after_s", time, 2),
                _figures(look, f"weights {moved.unit}", [_shown(moved, line, "bytes_weights") for line in lines], 4),
                _figures(look, "after", [_shown(moved, line, "bytes_weights_after") for line in lines], 4),
                _seconds(look, "at most", lines, "at_most_s", time),
                _seconds(look, "alike", lines, "alike_s", time, 1),
                Column("", [look.text(line[0].reason or "", "dim") for line in lines], 5, "left"),
            ]
        )


def _end_to_end(it: WhatIf, look: Look) -> Iterator[RenderableType]:
    yield look.heading("End to end", BOUND)
    parts = [f"generate(): at most {units.percent(it.totals.at_most_share)} goes{_times(it.totals.at_most_speedup)}"]
    if it.totals.request_share is not None:
        goes = units.percent(it.totals.request_share)
        parts.append(f"from file to answer: at most {goes} goes{_times(it.totals.request_speedup)}")
    yield look.packed(parts, "bold")


def _times(speedup: float | None) -> str:
    return "" if speedup is None else f", {units.number(speedup)} times as fast or less"


def _notes(it: WhatIf, look: Look) -> Iterator[RenderableType]:
    for line in it.assumed:
        yield look.text(line, "dim")
    if it.without_figure:
        shown = ", ".join(it.without_figure[:4])
        more = f" and {len(it.without_figure) - 4} more" if len(it.without_figure) > 4 else ""
        yield look.text(f"Without a figure, and so not in the sums: {shown}{more}.", "yellow")


def _alike(rows: Sequence[WhatIfRow]) -> list[list[WhatIfRow]]:
    """Gather rows of one kind for which the same can be said, in the order of their first."""
    found: dict[tuple[object, ...], list[WhatIfRow]] = {}
    for row in rows:
        key = (row.tower, _kind(row), row.reason, row.at_most_s is None, row.alike_s is None)
        found.setdefault(key, []).append(row)
    return list(found.values())


def _kind(row: WhatIfRow) -> str:
    return row.name.rpartition(".")[2] if row.kind == "module" else row.kind


def _added(line: Sequence[WhatIfRow], name: str) -> float | None:
    values = [getattr(row, name) for row in line]
    return None if None in values else fsum(values)


def _shown(fit: units.Scale, line: Sequence[WhatIfRow], name: str) -> str:
    value = _added(line, name)
    return "" if value is None else fit.show(value)


def _busy(line: Sequence[WhatIfRow]) -> str:
    """Return the busy part of the spans of some rows, nothing where the trace does not tell it of all of them."""
    span = _added(line, "span_s")
    shares = [row.busy_share for row in line]
    if not span or None in shares:
        return ""
    busy = fsum((row.busy_share or 0.0) * (row.span_s or 0.0) for row in line)
    return units.bare_percent(busy / span)


def _seconds(
    look: Look, title: str, lines: Sequence[Sequence[WhatIfRow]], name: str, fit: units.Scale, gives_way: int = 0
) -> Column:
    return _figures(look, title, [_shown(fit, line, name) for line in lines], gives_way)


def _figures(look: Look, title: str, cells: Sequence[str], gives_way: int = 0) -> Column:
    return Column(title, [look.text(cell) for cell in cells], gives_way)
