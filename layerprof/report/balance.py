"""Whether a quantity's books balance, in words."""

from __future__ import annotations

from layerprof.report import units
from layerprof.report.view import Book

NEGLIGIBLE = 0.01
"""A residual up to this share of the total counts as balanced."""


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
