"""What `datasets.save_to_disk` wrote -> rows: texts by themselves, and each image when its turn comes."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from layerprof.data import arrow, cells
from layerprof.data.pictures import held
from layerprof.data.rows import Opened, Row
from layerprof.data.spec import EVALUATION_SPLITS, Spec
from layerprof.errors import RequestError

MAPPED = 64 << 20
"""Bytes of images that are read through one mapping of the files: it counts as memory of the process until it ends."""


def is_saved(path: Path) -> bool:
    """Tell a folder that `save_to_disk` wrote."""
    return path.is_dir() and any((path / name).exists() for name in ("dataset_dict.json", "state.json"))


def open_saved(spec: Spec, path: Path, seed: int) -> Opened:
    """Return the rows of a saved dataset, or of its evaluation split. Raises RequestError where that cannot be told."""
    loaded = _load(spec, path)

    def rows(texts: Sequence[str], pictured: Mapping[str, str]) -> Iterator[Row]:
        order = _order(len(loaded), seed)
        schema = loaded.features.arrow_schema
        beside = {
            field: name for field, name in pictured.items() if name in texts or arrow.is_text(schema.field(name).type)
        }
        columns = {field: _Column(spec, path, loaded, name) for field, name in pictured.items() if field not in beside}
        chosen = loaded.select_columns(list(dict.fromkeys([*texts, *beside.values()])))
        for number in order:
            row = chosen[number]
            inside = {field: column.at(number) for field, column in columns.items()}
            yield cells.row(number, row, beside, inside, path)

    return Opened(str(path), None, tuple(loaded.column_names), rows)


class _Column:
    """A column of images inside a saved dataset, while its rows are listed."""

    def __init__(self, spec: Spec, path: Path, loaded: Any, name: str) -> None:
        self._cells = Cells(spec, path, name)
        self._lists = arrow.is_list(loaded.features.arrow_schema.field(name).type)
        self._known = _known(loaded, name, self._lists)

    def at(self, number: int) -> cells.Inside | None:
        """Return how a row's cell is read; None for an empty one."""
        cell = partial(self._cells.cell, number)
        if self._known is not None:
            count = self._known[number]
        else:  # one by one; single images that are missing are met when they are opened
            found = cell() if self._lists else ()
            count = None if found is None else len(found)
        if count is None and (self._lists or self._known is not None):
            return None
        return cell, count if self._lists else None


def _load(spec: Spec, path: Path) -> Any:
    import datasets

    loaded = datasets.load_from_disk(str(path))
    if isinstance(loaded, datasets.DatasetDict):
        loaded = loaded[_split(spec, list(loaded), path)]
    for name, feature in loaded.features.items():
        if (bare := arrow.undecoded(feature)) is not None:
            loaded = loaded.cast_column(name, bare)
    return loaded


def _split(spec: Spec, names: Sequence[str], path: Path) -> str:
    for name in (spec.split, *EVALUATION_SPLITS):
        if name in names:
            return name
    if len(names) == 1:
        return names[0]
    raise RequestError(
        f"'{path}' holds the splits {', '.join(names)}, and none of {', '.join(EVALUATION_SPLITS)}.",
        "Give the folder of one split.",
    )


def _order(rows: int, seed: int) -> Sequence[int]:
    """Return the rows in their order, or with a seed other than 0 as `Dataset.shuffle` has them."""
    import datasets

    if not seed:
        return range(rows)
    return list(datasets.Dataset.from_dict({"row": range(rows)}).shuffle(seed=seed)["row"])


def _known(loaded: Any, image: str, lists: bool) -> list[int | None] | None:
    """Tell how many images each row has, None for an empty cell; None where rows are in another order than the file."""
    column = loaded.data.column(image)
    if len(column) != len(loaded):
        return None
    if lists:
        return [one for chunk in column.chunks for one in arrow.lengths(chunk)]
    return [None if lost else 1 for chunk in column.chunks for lost in arrow.empty(chunk)]


class Cells:
    """The cells of a column of images, one at a time."""

    def __init__(self, spec: Spec, path: Path, image: str) -> None:
        self._spec, self._path, self._image = spec, path, image
        self._loaded: Any = None
        self._read = 0
        self._lock = threading.Lock()

    def cell(self, row: int) -> Any:
        """Return a row's cell. The files are mapped anew from time to time, so that they do not fill the memory."""
        with self._lock:
            if self._loaded is None or self._read > MAPPED:
                self._loaded, self._read = _load(self._spec, self._path).select_columns([self._image]), 0
            cell = self._loaded[row][self._image]
            for one in cell if isinstance(cell, list) else [cell]:
                data = held(one)
                self._read += len(data) if isinstance(data, bytes) else 0
            return cell
