"""One figure of the end-to-end block, and how its note is put together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Fact:
    """One figure of the end-to-end block; `note` qualifies it: interval, counts, source, or why there is none."""

    label: str
    value: str
    note: str = ""


def filled(value: Any, form: str, *more: Any) -> str | None:
    """Fill the form; the value goes last, so that a sign may stand before it. None stays None."""
    return None if value is None else form.format(*more, value)


def joined(notes: Iterable[str | None]) -> str:
    """Return what there is of the notes as one."""
    return ", ".join(note for note in notes if note)
