"""What stands in the cells of CSV files that people open in spreadsheets."""

from __future__ import annotations

from typing import TypeVar

from layerprof.report import units

T = TypeVar("T")


def safe(value: T) -> T | str:
    """Return text without control characters, behind an apostrophe where a spreadsheet would take it for a formula.

    Numbers, in text, too, and all else that is no text stay as they are.
    """
    if not isinstance(value, str):
        return value
    text = units.printable(value)
    return f"'{text}" if text.lstrip()[:1] in ("=", "+", "-", "@") and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
