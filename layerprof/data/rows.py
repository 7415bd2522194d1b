"""Rows of an opened source, whatever it is: which column is which field, and what a cell says."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from layerprof.data.spec import Picture, Spec
from layerprof.errors import RequestError


@dataclass(frozen=True, slots=True)
class Row:
    """A row's texts by column, and what opens its images: None where one is missing, () where there are to be none.

    `number` is the row's place in the source, from 0. `frames` are those of its video, beside which no image is
    missing. `trouble` says why a picture
    cannot be read, as far as that can be told without opening it.
    """

    number: int
    texts: Mapping[str, Any]
    images: tuple[Picture, ...] | None
    frames: tuple[Picture, ...] = ()
    trouble: str | None = None


@dataclass(frozen=True)
class Opened:
    """An opened source, its rows unread. `columns` are the names found.

    `rows` is called with the columns of text to read, and with those of pictures by field (`image`, `video`), of which
    nothing is opened.
    """

    label: str
    revision: str | None
    columns: tuple[str, ...]
    rows: Callable[[Sequence[str], Mapping[str, str]], Iterator[Row]]


def match_columns(spec: Spec, opened: Opened, *, pictured: bool = True) -> dict[str, str]:
    """Return field -> column; of `image` and `video` one is enough, and none where samples need not be `pictured`.

    Raises RequestError naming the missing columns and those found.
    """
    found = {name.lower(): name for name in reversed(opened.columns)}
    fields = {**spec.columns, **spec.optional}
    columns = {field: next((found[name] for name in names if name in found), None) for field, names in fields.items()}
    matched = {field: column for field, column in columns.items() if column is not None}
    needed = [field for field in spec.columns if field != "image" or (pictured and "video" not in matched)]
    missing = [" or ".join(f"'{name}'" for name in fields[field]) for field in needed if field not in matched]
    if missing:
        found_columns = ", ".join(opened.columns) or "none"
        alone = "image" in needed and "image" not in matched
        hint = " Give samples without an image an empty list, []." if alone else ""
        raise RequestError(
            f"{opened.label} has no column {', and none '.join(missing)}; found: {found_columns}.",
            f"Name the columns as the {spec.name} dataset does: {', '.join(spec.columns)} (docs/datasets.md).{hint}",
        )
    return matched


def is_empty(value: Any) -> bool:
    """Tell an empty cell: None, NaN (an empty cell of pandas) or the empty text."""
    return value is None or (isinstance(value, str) and not value) or (isinstance(value, float) and math.isnan(value))


def as_text(value: Any) -> str:
    """Return a cell as text; an empty one is the empty text, half of a broken character a question mark."""
    if is_empty(value):
        return ""
    return str(value).encode("utf-8", "replace").decode()


def as_list(value: Any) -> list[Any]:
    """Return a cell as a list: a list as it is, one written as text (JSON or Python) parsed, anything else alone."""
    if is_empty(value):
        return []
    if isinstance(value, str):
        return _parsed_list(value)
    if isinstance(value, Mapping) or not isinstance(value, Iterable):
        return [value]
    return list(value)


def _parsed_list(text: str) -> list[Any]:
    if text.lstrip().startswith("["):
        for parse in (json.loads, ast.literal_eval):
            try:
                parsed = parse(text)
            except (ValueError, SyntaxError):
                continue
            if isinstance(parsed, list):
                return parsed
    return [text]
