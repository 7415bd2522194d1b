"""A comparison of runs or sweeps: in a terminal, as Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import IO, TYPE_CHECKING, Any, Literal

from rich.console import Console, RenderableType
from rich.padding import Padding

from layerprof.report import units
from layerprof.report.look import Column, Look, console_on
from layerprof.report.markdown_text import escape, table

if TYPE_CHECKING:
    from layerprof.runs.changes import Change, Comparison, Comparisons, LayerChange

LAYERS = 12
"""Layers shown in the terminal: those whose time changed most, in seconds of a sample."""
UNITS = {"s": units.seconds, "J": units.joules, "FLOP": units.flops, "B": units.size}


def render(found: Comparisons, out: Console | IO[str], fail_above: float | None = None) -> None:
    """Print the comparison on a Rich console, or write it to a text stream."""
    console = console_on(out, 120)
    look = Look.of(console)
    console.print(look.text(f"{found.before} -> {found.after}", "bold"))
    for cell in found.cells:
        for piece in _cell(cell, look):
            console.print(piece, highlight=False)
        console.print()
    for line in found.alone:
        console.print(look.text(f"not compared: {line}", "yellow"))
    if fail_above is not None:
        worse = found.regressions(fail_above)
        for title, change in worse:
            console.print(look.text(f"worse by more than {fail_above:g} %: {_line(title, change)}", "red"))
        if not worse:
            console.print(look.text(f"Nothing is worse by more than {fail_above:g} %.", "green"))


def render_markdown(found: Comparisons, out: IO[str]) -> None:
    """Write the comparison with every layer."""
    blocks = [f"# {escape(found.before)} → {escape(found.after)}"]
    blocks += ["\n".join(_markdown(cell)) for cell in found.cells]
    blocks += ["\n".join(f"- not compared: {escape(line)}" for line in found.alone)] if found.alone else []
    out.write("\n\n".join(blocks) + "\n")


def render_json(found: Comparisons, out: IO[str]) -> None:
    """Write the comparison as one JSON object; `value` is the ratio, or the difference where `how` is `points`.

    `n` is how many pairs a figure and its interval are of, `apart` how many units of each side where it is of none.
    """
    cells = []
    for cell in found.cells:
        plain = asdict(cell)
        plain["totals"] = [asdict(change) | {"value": change.value} for change in cell.totals]
        cells.append(plain)
    json.dump(
        {"before": found.before, "after": found.after, "cells": cells, "alone": found.alone}, out, indent=2, default=str
    )
    out.write("\n")


def _cell(cell: Comparison, look: Look) -> Iterator[RenderableType]:
    if cell.title:
        yield look.text(cell.title, "bold cyan")
    yield look.text(_shared(cell), "dim")
    yield look.table(_columns(look, cell.totals, [change.quantity for change in cell.totals]))
    layers = [change for change in cell.layers if change.span.value is not None]
    layers = sorted(layers, key=lambda change: -abs((change.span.after or 0) - (change.span.before or 0)))[:LAYERS]
    if layers:
        yield look.heading("Layers", "largest changes of time in a sample")
        yield look.table(_columns(look, [layer.span for layer in layers], [_name(layer) for layer in layers]))
    memory = sorted(
        _with_memory(cell), key=lambda change: -abs((change.memory.after or 0) - (change.memory.before or 0))
    )
    if memory:
        yield look.heading("Memory", "largest changes of what a call holds at its peak")
        shown = memory[:LAYERS]
        yield look.table(_columns(look, [layer.memory for layer in shown], [_name(layer) for layer in shown]))
    only = [layer for layer in cell.layers if (layer.span.before is None) != (layer.span.after is None)]
    if only:
        names = ", ".join(_name(layer) for layer in only[:6]) + (", ..." if len(only) > 6 else "")
        yield look.text(f"{len(only)} layers were timed in one run only: {names}", "dim")
    for title, changed in (("settings", cell.settings), ("environment", cell.environment)):
        for name, (before, after) in changed.items():
            yield Padding(look.text(f"{title}: {name}: {_short(before)} -> {_short(after)}", "dim"), (0, 0, 0, 2))
    for note in cell.notes:
        yield Padding(look.text(note, "yellow"), (0, 0, 0, 2))


def _columns(look: Look, changes: Sequence[Change], names: Sequence[str]) -> list[Column]:
    styles = [_style(change) for change in changes]
    return [
        Column("", [look.text(name) for name in names], 0, "left", wraps=True),
        Column("before", [look.text(_amount(change, 0)) for change in changes]),
        Column("after", [look.text(_amount(change, 1)) for change in changes]),
        Column("change", [look.text(_change(c), style) for c, style in zip(changes, styles, strict=True)]),
        Column("95 %", [look.text(_interval(change), "dim") for change in changes], 1),
        Column("pairs", [look.text(_pairs(change), "dim") for change in changes], 2),
    ]


def _markdown(cell: Comparison) -> Iterator[str]:
    if cell.title:
        yield f"## {escape(cell.title)}"
        yield ""
    yield escape(_shared(cell))
    yield ""
    titles = ("", "before", "after", "change", "95 %", "pairs")
    yield from table(titles, (_texts(change.quantity, change) for change in cell.totals))
    if cell.layers:
        yield ""
        yield "### Layers"
        yield ""
        yield from table(titles, (_texts(_name(layer), layer.span) for layer in cell.layers))
    if memory := _with_memory(cell):
        yield ""
        yield "### Memory of a call at its peak"
        yield ""
        yield from table(titles, (_texts(_name(layer), layer.memory) for layer in memory))
    notes = [
        f"{title}: {name}: {_short(before)} → {_short(after)}"
        for title, changed in (("settings", cell.settings), ("environment", cell.environment))
        for name, (before, after) in changed.items()
    ]
    if notes or cell.notes:
        yield ""
    for note in (*notes, *cell.notes):
        yield f"- {escape(note)}"


def _texts(name: str, change: Change) -> Sequence[str]:
    values = (_amount(change, 0), _amount(change, 1))
    return (name, *values, _change(change), _interval(change), _pairs(change))


def _pairs(change: Change) -> str:
    """Return how many pairs an interval is of; of what is not paired, how many each side has."""
    if change.apart:
        return f"{change.apart[0]} | {change.apart[1]}"
    return str(change.n) if change.n else ""


def _with_memory(cell: Comparison) -> list[LayerChange]:
    return [layer for layer in cell.layers if layer.memory.value is not None]


def _shared(cell: Comparison) -> str:
    if not cell.shared_samples:
        return "no sample in both, so nothing is paired"
    same = "" if cell.same_answers is None else f", {units.percent(cell.same_answers)} answered the same"
    return f"{cell.shared_samples} samples in both{same}"


def _line(title: str, change: Change) -> str:
    return f"{title + ': ' if title else ''}{change.quantity} {_change(change)} {_interval(change)}".strip()


def _name(layer: LayerChange) -> str:
    return f"{layer.name or '(model)'} {layer.phase.value}"


def _amount(change: Change, side: Literal[0, 1]) -> str:
    value = (change.before, change.after)[side]
    if value is None:
        return units.MISSING
    shown = UNITS[change.unit](value) if change.unit in UNITS else _plain(value, change.unit)
    return units.bound(shown, change.at_least[side])


def _plain(value: float, unit: str) -> str:
    return f"{units.number(value)} {unit}" if unit else units.percent(value)


def _change(change: Change) -> str:
    if change.percent is None:
        return units.MISSING
    return f"{change.percent:+.1f} {'%' if change.how == 'ratio' else 'points'}"


def _interval(change: Change) -> str:
    if change.ci95 is None:
        return ""
    nothing = 1.0 if change.how == "ratio" else 0.0
    low, high = (100 * (end - nothing) for end in change.ci95)
    return f"[{low:+.1f}, {high:+.1f}]"


def _style(change: Change) -> str:
    if change.worse_by_more_than(0):
        return "red"
    nothing = 1.0 if change.how == "ratio" else 0.0
    return "green" if change.value is not None and change.value != nothing and not _noise(change, nothing) else "dim"


def _noise(change: Change, nothing: float) -> bool:
    return change.higher_is_worse is None or (change.ci95 is not None and change.ci95[0] <= nothing <= change.ci95[1])


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
