"""The four ledger columns, ready to show, and whether they balance, in words."""

from __future__ import annotations

from dataclasses import dataclass

from layerprof.records import LedgerColumn, Run
from layerprof.report import units
from layerprof.report.facts import energy_quality

NEGLIGIBLE = 0.01
"""A residual up to this share of the total counts as balanced."""


@dataclass(frozen=True, slots=True)
class Book:
    """One quantity's ledger column, ready to show."""

    name: str
    title: str
    scale: units.Scale
    column: LedgerColumn

    def cell(self, label: str) -> float | None:
        """Return the figure of a line of `ledger_labels`."""
        if label in ("layers", "residual", "total"):
            value: float | None = getattr(self.column, label)
            return value
        return self.column.rest.get(label)

    def share(self, label: str) -> float | None:
        """Return the figure's share of the total."""
        value = self.cell(label)
        return value / self.column.total if value is not None and self.column.total else None


def books(run: Run) -> list[Book]:
    """Return the four ledger columns in order, measured or not."""
    quality = energy_quality(run)
    energy = f"energy, {quality}" if quality else "energy"
    titles = (("flops", "FLOPs", "FLOP"), ("span_s", "span", "s"), ("busy_s", "busy", "s"), ("energy_j", energy, "J"))
    found = []
    for name, title, unit in titles:
        column: LedgerColumn = getattr(run.ledger, name)
        scale = units.scale([column.total, column.layers, *column.rest.values()], unit)
        found.append(Book(name, title, scale, column))
    return found


def ledger_labels(run: Run) -> list[str]:
    """Return the ledger's lines: layers, the rest by name (but not what is zero throughout), residual, total."""
    rest: dict[str, bool] = {}
    for book in books(run):
        for label, value in book.column.rest.items():
            rest[label] = rest.get(label, False) or value != 0
    return ["layers", *(label for label, seen in rest.items() if seen), "residual", "total"]


def verdict(book: Book) -> str:
    """Return the state of one ledger column: balanced, open, or why it cannot be closed."""
    column = book.column
    if column.residual is None:
        state = "not measured" if column.layers is None else "cannot be closed"
        return f"{state}: {column.reason or 'no reason was given'}"
    if column.residual == 0:
        return "balanced exactly"
    share = book.share("residual")
    if share is None:
        return f"residual {book.scale.show(column.residual)} {book.scale.unit}"
    state = "balanced" if abs(share) <= NEGLIGIBLE else "open"
    return f"{state}, residual {units.percent(share)} of the total"
