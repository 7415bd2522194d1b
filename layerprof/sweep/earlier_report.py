"""Figures of an earlier report as data.

They are a CSV file of cells, and beside it `reasons.toml` with the known reasons for differences.
"""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from layerprof.errors import RequestError

SETTINGS = ("dataset", "optimization", "batch_size", "image_size", "max_input_len")
"""Columns by which a row is matched to a cell.

The device is not among them: ratios between cells are compared, not machines.
"""
FIGURES = ("wer", "latency_s", "energy_j")
REASONS = "reasons.toml"


def load(path: Path | None, table: str | None) -> tuple[tuple[dict[str, Any], ...], tuple[dict[str, Any], ...]]:
    """Return the rows of one table (all without a name) and the reasons that concern it; both empty without a path.

    Numbers are numbers, empty cells None. Raises RequestError for a file that is no such table, naming the line.
    """
    if path is None:
        return (), ()
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = [_typed(row, path, reader.line_num) for row in reader]
    chosen = tuple(row for row in rows if table is None or row.get("table") == table)
    if not chosen:
        raise RequestError(
            f"{path} has no table '{table}'.", f"It has: {', '.join(sorted({str(row.get('table')) for row in rows}))}."
        )
    return chosen, _reasons(path.with_name(REASONS), table)


def match(row: Mapping[str, Any], choices: Mapping[str, Any]) -> bool:
    """Tell whether a row is of a cell with these settings. A row that names no setting is of none."""
    named = {name: row[name] for name in SETTINGS if row.get(name) is not None}
    return bool(named) and all(str(choices.get(name)) == str(value) for name, value in named.items())


def _typed(row: Mapping[str, Any], path: Path, line: int) -> dict[str, Any]:
    typed: dict[str, Any] = {}
    for name, text in row.items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise RequestError(
                f"{path}, line {line}: the row does not have as many cells as the header.", "Mend the row."
            )
        kind: Any = int if name in ("batch_size", "image_size", "max_input_len") else float if name in FIGURES else str
        try:
            typed[name] = kind(text) if text else None
        except ValueError:
            raise RequestError(
                f"{path}, line {line}: {name} cannot be '{text}'.", "Write a number, or nothing."
            ) from None
    return typed


def _reasons(path: Path, table: str | None) -> tuple[dict[str, Any], ...]:
    if not path.is_file():
        return ()
    try:
        listed = tomllib.loads(path.read_text(encoding="utf-8")).get("reason", [])
    except tomllib.TOMLDecodeError as error:
        raise RequestError(f"{path} is not TOML: {error}.", "Mend the file.") from None
    return tuple(one for one in listed if table is None or table in one.get("tables", [table]))
