"""Memory by layer in a terminal; how it adds up to the peak of the walk stands in the ledger."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from layerprof.records import Run
from layerprof.report import memory, samples, units
from layerprof.report.layer_lines import Group
from layerprof.report.look import PHASE_STYLE, Column, Look


def groups(run: Run, look: Look) -> Iterator[RenderableType]:
    """Yield the tables, one per tower and phase, with bars of what a call held at most; figures with their units."""
    found = memory.groups(run)
    if not found:
        return
    yield look.heading(samples.title(run, "Memory"), memory.TOLD)
    label_width = max(len(line.label) for group in found for line in group.lines)
    largest = max((line.each("memory_peak_bytes") or 0 for group in found for line in group.lines), default=0)
    for group in found:
        where = f"{group.tower} · {group.phase.value}" if group.tower != group.phase.value else group.tower
        prefix = look.text(f"  {group.prefix}.*" if group.prefix else "", "dim")
        title = look.text(where, f"bold {PHASE_STYLE[group.phase]}").append_text(prefix)
        yield Text("\n" if group is not found[0] else "").append_text(title)
        yield look.table(_columns(look, group, label_width, largest))


def _columns(look: Look, group: Group, label_width: int, largest: float) -> list[Column]:
    width, style = 24 if look.width >= 110 else 10, PHASE_STYLE[group.phase]
    held = [line.each("memory_peak_bytes") for line in group.lines]
    bars = [look.bar(value / largest if value and largest else None, width, style) for value in held]
    many = [f"×{len(line.rows)}" if len(line.rows) > 1 else "" for line in group.lines]
    columns = [
        Column("layer", [look.text(line.label.ljust(label_width)) for line in group.lines], 0, "left"),
        Column("", [look.text(text) for text in many]),
        Column("", bars, 3, "left"),
    ]
    for title, name in memory.COLUMNS:
        figures = [line.each(name) for line in group.lines]
        columns.append(Column(title, [look.text(units.size(value), "" if value else "dim") for value in figures]))
    return columns
