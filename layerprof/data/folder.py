"""A folder of samples -> rows: what `datasets.save_to_disk` wrote, or a parquet, jsonl, json or csv table."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from layerprof.data import cells
from layerprof.data.parquet import Table
from layerprof.data.rows import Opened, Row
from layerprof.data.saved import is_saved, open_saved
from layerprof.data.spec import EVALUATION_SPLITS, Spec
from layerprof.errors import RequestError

SUFFIXES = (".parquet", ".jsonl", ".json", ".csv", ".tsv")
NOT_SAMPLES = ("dataset_infos.json", "dataset_info.json", "state.json", "dataset_dict.json")


def open_folder(spec: Spec, path: Path, seed: int) -> Opened:
    """Return the rows of a folder, or of one table file.

    Raises RequestError when there is nothing there, or nothing that can be read, or more than one table to choose from.
    """
    if not path.exists():
        raise RequestError(
            f"The source '{path}' does not exist.",
            "Give --source bundled, --source hub, or the path of a folder with samples (docs/datasets.md).",
        )
    try:
        if is_saved(path):
            return open_saved(spec, path, seed)
        files = _tables(spec, path)
        if files[0].suffix.lower() == ".parquet":
            return _parquet(path, files, seed)
        return _text(path, files[0], seed)
    except (OSError, ValueError, csv.Error) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> RequestError:
    return RequestError(
        f"The samples in '{path}' cannot be read ({' '.join(str(error).split())[:200]}).",
        "Write them as parquet, jsonl, json or csv, or with `datasets.save_to_disk` (docs/datasets.md).",
    )


def _order(rows: int, seed: int) -> Sequence[int] | None:
    """Return the rows in a drawn order, or None for their own with seed 0."""
    if not seed:
        return None
    order = list(range(rows))
    random.Random(seed).shuffle(order)
    return order


# --- tables -----------------------------------------------------------------------------------------------------


def _tables(spec: Spec, path: Path) -> list[Path]:
    """Return the table's files: one, or all parquet shards of one split."""
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise ValueError(f"{path.name} is no {', '.join(suffix[1:] for suffix in SUFFIXES)} file")
        return [path]
    named = [path / f"metadata{suffix}" for suffix in SUFFIXES]
    if found := [file for file in named if file.is_file()]:
        return found[:1]
    found = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.name not in NOT_SAMPLES)
    if not found:
        raise ValueError("no parquet, jsonl, json or csv file in it")
    return _one_split(spec, found, path)


def _one_split(spec: Spec, files: list[Path], path: Path) -> list[Path]:
    """Choose among several files: shards named after a split (`validation-00000-of-00003.parquet`) belong together."""
    if len(files) == 1:
        return files
    splits: dict[str, list[Path]] = {}
    for file in files:
        splits.setdefault(file.stem.split("-0")[0].split("-")[0] if "-of-" in file.stem else file.stem, []).append(file)
    for name in (spec.split, *EVALUATION_SPLITS):
        if name in splits:
            return splits[name]
    if len(splits) == 1:
        return files
    names = ", ".join(str(file.relative_to(path)) for file in files[:6])
    raise RequestError(
        f"'{path}' holds {len(files)} tables ({names}{', ...' if len(files) > 6 else ''}).",
        "Give the path of one of them as --source, or name one metadata.jsonl, metadata.csv or metadata.parquet.",
    )


def _parquet(path: Path, files: Sequence[Path], seed: int) -> Opened:
    table = Table(files)

    def rows(texts: Sequence[str], pictured: Mapping[str, str]) -> Iterator[Row]:
        try:
            yield from table.rows(texts, pictured, _order(len(table), seed))
        except (OSError, ValueError) as error:
            raise _unreadable(path, error) from None

    return Opened(str(path), None, tuple(table.schema.names), rows)


def _text(path: Path, file: Path, seed: int) -> Opened:
    listed = _text_rows(file, file.suffix.lower())
    columns: dict[str, None] = {}
    for row in listed:  # a line may leave a column out
        columns.update(dict.fromkeys(row))
    if not listed:
        raise ValueError(f"{file.name} has no rows")

    def rows(_texts: Sequence[str], pictured: Mapping[str, str]) -> Iterator[Row]:
        order = _order(len(listed), seed)
        for number in range(len(listed)) if order is None else order:
            yield cells.row(number, listed[number], pictured, {}, file.parent)

    return Opened(str(path), None, tuple(columns), rows)


def _text_rows(file: Path, suffix: str) -> list[dict[str, Any]]:
    text = file.read_text(encoding="utf-8-sig")
    if suffix in (".csv", ".tsv"):
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=_delimiter(text, suffix))
        return [{str(key): value for key, value in row.items()} for row in reader]
    if suffix == ".jsonl":
        return [_row(file, number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    loaded = json.loads(text)
    listed = next((v for v in loaded.values() if isinstance(v, list)), None) if isinstance(loaded, dict) else loaded
    if not isinstance(listed, list) or not all(isinstance(row, dict) for row in listed):
        raise ValueError(f"{file.name} is not a list of objects")
    return listed


def _delimiter(text: str, suffix: str) -> str:
    """Return what separates the cells: spreadsheets write `.csv` with semicolons or tabs, too."""
    header = text.partition("\n")[0]
    others = [sign for sign in ";\t" if sign in header and "," not in header]
    return "\t" if suffix == ".tsv" else others[0] if others else ","


def _row(file: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{file.name} line {number}: {error}") from None
    if not isinstance(row, dict):
        raise ValueError(f"{file.name} line {number} is not an object")
    return row
