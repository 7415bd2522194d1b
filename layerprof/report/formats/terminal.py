"""The run in a terminal: settings, end to end, where it goes, hot spots, layers, books, warnings, files.

Files, pipes and consoles that show no Unicode get the same in ASCII.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from typing import IO

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from layerprof.records import Run
from layerprof.report import balance, facts, request, samples, units
from layerprof.report.formats import terminal_layers, terminal_memory, terminal_request
from layerprof.report.look import Column, Look, console_on


def render(run: Run, out: Console | IO[str], *, every_layer: bool = False) -> None:
    """Print the run on a Rich console, or write it to a text stream."""
    console = console_on(out, 100)
    look = Look.of(console)
    for section in (
        _header(run, look),
        _end_to_end(run, look),
        terminal_request.breakdown(run, look),
        terminal_layers.breakdown(run, look),
        terminal_layers.hot_spots(run, look),
        terminal_layers.groups(run, look, every_layer) if run.layers else iter(()),
        terminal_memory.groups(run, look),
        ledger(run, look),
        _warnings(run, look),
        _files(run, look),
    ):
        pieces = list(section)
        for piece in pieces:
            console.print(piece, highlight=False)
        if pieces:
            console.print()


def render_plain(run: Run, say: Callable[[str], None]) -> None:
    """Say the run in a few plain lines: end to end, the books' residuals, warnings, and where the files are."""
    look = Look(width=100, ascii_only=True)
    lines = [f"{facts.title(run)} ({run.status})"]
    lines += [f"{fact.label}: {fact.value}{f' ({fact.note})' if fact.note else ''}" for fact in facts.end_to_end(run)]
    lines += [f"request {line}" for line in request.lines(run)]
    for book in balance.closings(run):
        lines.append(f"ledger {book.title}: {balance.verdict(book)}")
        lines += [f"ledger {book.title}: {note}" for note in book.notes]
    lines += [f"warning: {warning}" for warning in facts.warnings(run)]
    if place := run.settings.get("output"):
        lines.append(f"run: {place}")
    for line in lines:
        say(look.text(line).plain)


def ledger(run: Run, look: Look) -> Iterator[RenderableType]:
    """Yield the books of the measured quantities, and for the others why there are none."""
    measured = [book for book in balance.books(run) if book.measured]
    told = "layers + rest + residual = total, which is measured on its own"
    yield look.heading(samples.title(run, "Ledger"), told)
    for nth, books in enumerate(_side_by_side(run, look, measured)):
        yield from [Text()] if nth else []
        yield look.table(_book_columns(run, look, books))
    for book in balance.closings(run):
        said = book.column.reason and book.column.reason == run.totals.energy.reason
        state = "not measured, for the reason above" if said else balance.verdict(book)
        yield look.text(
            f"{book.title}: {state}", "" if book.column.residual is not None or book.column.not_counted else "dim"
        )
        for note in book.notes:
            yield Padding(look.text(note, "dim"), (0, 0, 0, 2))


def _side_by_side(run: Run, look: Look, books: Sequence[balance.Book]) -> list[list[balance.Book]]:
    """Return the books in tables that fit the width; memory goes below the others first, whose lines are its own."""
    if books and books[-1].name == "memory_bytes" and look.needed(_book_columns(run, look, books)) > look.width:
        return [table for table in (list(books[:-1]), [books[-1]]) if table]
    return [list(books)] if books else []


def _book_columns(run: Run, look: Look, books: Sequence[balance.Book]) -> list[Column]:
    labels = balance.ledger_labels(run, books)
    names = Column("", [look.text(label, _weight(label)) for label in labels], 0, "left", wraps=True)
    return [names, *(_book_column(look, book, labels) for book in books)]


def _book_column(look: Look, book: balance.Book, labels: Sequence[str]) -> Column:
    cells = []
    for label in labels:
        figure = look.text(book.shown(label), _weight(label))
        percent = units.bare_percent(book.share(label), "")
        cells.append(figure.append_text(look.text(percent.rjust(6), "dim")))
    name = "" if book.name == "flops" else f"{book.name.partition('_')[0]} "
    return Column(f"{name}{book.scale.unit}     %", cells)


def _weight(label: str) -> str:
    return "bold" if label in ("residual", "total") else ""


def _header(run: Run, look: Look) -> Iterator[RenderableType]:
    headline = Text().append_text(look.text("layerprof ", "dim")).append_text(look.text(facts.title(run), "bold"))
    if run.status != "done":
        headline.append_text(look.text(f"  {run.status}", "bold red"))
    yield headline
    yield look.packed(facts.settings(run))
    yield look.text(facts.convention(run), "dim")


def _end_to_end(run: Run, look: Look) -> Iterator[RenderableType]:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False, show_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    table.add_column(overflow="fold")
    for fact in facts.end_to_end(run):
        table.add_row(look.text(fact.label), look.text(fact.value, "bold"), look.text(fact.note, "dim"))
    yield look.heading("End to end", "medians [95 % interval]")
    yield table


def _warnings(run: Run, look: Look) -> Iterator[RenderableType]:
    notes = facts.warnings(run)
    if notes:
        yield look.heading("Warnings")
    for note in notes:
        yield Padding(look.text(note, "yellow"), (0, 0, 0, 2))


def _files(run: Run, look: Look) -> Iterator[RenderableType]:
    place = run.settings.get("output")
    if not run.files and not place:
        return
    yield look.heading("Files", str(place or ""))
    yield Padding(look.text(", ".join(run.files.values()), "dim"), (0, 0, 0, 2))
    if place:
        yield Padding(look.text(f"layerprof view {shlex.quote(str(place))}", "dim"), (0, 0, 0, 2))
        yield Padding(look.text(f"layerprof report {shlex.quote(str(place))} -o report.html", "dim"), (0, 0, 0, 2))
