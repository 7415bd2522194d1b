"""The cross-check in the terminal: every counter's figures side by side, then why they differ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.text import Text

from layerprof.report import units
from layerprof.report.look import Column, Look, console_on

if TYPE_CHECKING:
    from layerprof.flops.crosscheck import CrossCheck, CrossRow, Peer


def render(check: CrossCheck, out: Console | IO[str]) -> None:
    """Print a cross-check on a Rich console, or write it to a text stream."""
    console = console_on(out, 100)
    look = Look.of(console)
    for piece in (*_figures(check, look), *_why(check, look)):
        console.print(piece, highlight=False)
    console.print()


def _figures(check: CrossCheck, look: Look) -> Iterator[RenderableType]:
    peers = [peer for peer in check.peers if peer.failure is None]
    figures = [row.peers.get(peer.name) for row in check.rows for peer in peers]
    scale = units.scale([*figures, *(row.flops for row in check.rows)], "")
    prefix = scale.unit
    labels = [f"{row.kind} ×{row.layers}" if row.layers > 1 else row.kind for row in check.rows]
    columns = [
        Column("layers", [look.text(label) for label in labels], 0, "left"),
        Column("layerprof", [look.text(_ours(row, scale), "bold") for row in check.rows]),
    ]
    for peer in peers:
        cells = [look.text(scale.show(row.peers.get(peer.name))) for row in check.rows]
        columns.append(Column(peer.name, cells))
    theirs = "".join(f", {peer.name} {prefix}{peer.unit}" for peer in peers)
    yield look.heading("Cross-check", "one prompt, counted by each; figures as each gives them")
    yield look.text(f"layerprof {prefix}FLOP{theirs}", "dim")
    yield look.table(columns)


def _ours(row: CrossRow, scale: units.Scale) -> str:
    return units.bound(scale.show(row.flops), row.flops_at_least)


def _why(check: CrossCheck, look: Look) -> Iterator[RenderableType]:
    yield Text()
    yield look.heading("Why they differ", "what leads from our figure to theirs")
    for peer in check.peers:
        yield look.text(peer.name, "bold")
        lines = [f"failed: {peer.failure}"] if peer.failure else _reasons(check, peer)
        for line in lines:
            yield Padding(look.text(line, "yellow" if peer.failure else ""), (0, 0, 0, 2))
    if check.positions > 1:
        scored = f"{check.positions:.0f} positions"
        yield look.text(f"The peers call the model itself, whose head scores all {scored}; generate() scores 1.", "dim")


def _reasons(check: CrossCheck, peer: Peer) -> list[str]:
    """One line for each reason, with the kinds of layers that it holds for."""
    found: dict[str, list[str]] = {}
    for row in check.rows:
        reason = row.reasons.get(peer.name)
        if reason:
            found.setdefault(reason, []).append(row.kind)
    return [f"{', '.join(kinds)}: {reason}" for reason, kinds in found.items()]
