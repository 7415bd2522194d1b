"""What `datasets.save_to_disk` wrote -> rows: texts by themselves, and each image when its turn comes."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerprof.data import arrow
from layerprof.data.pictures import held, read_image, trouble
from layerprof.data.rows import Opened, Row
from layerprof.data.spec import EVALUATION_SPLITS, Spec
from layerprof.errors import RequestError

if TYPE_CHECKING:
    from PIL import Image

MAPPED = 64 << 20
"""Bytes of images that are read through one mapping of the files: it counts as memory of the process until it ends."""


def is_saved(path: Path) -> bool:
    """Tell a folder that `save_to_disk` wrote."""
    return path.is_dir() and any((path / name).exists() for name in ("dataset_dict.json", "state.json"))


def open_saved(spec: Spec, path: Path, seed: int) -> Opened:
    """Return the rows of a saved dataset, or of its evaluation split. Raises RequestError where that cannot be told."""
    loaded = _load(spec, path)

    def rows(texts: Sequence[str], image: str) -> Iterator[Row]:
        order = _order(len(loaded), seed)
        if image in texts or arrow.is_text(loaded.features.arrow_schema.field(image).type):
            yield from _beside(loaded, texts, image, order, path)
            return
        cells = Cells(spec, path, image)
        empty = _empty(loaded, image)
        chosen = loaded.select_columns(list(texts))
        for number in order:
            picture = None if empty and empty[number] else partial(_inside, cells, number, path)
            yield Row(number, chosen[number], picture)

    return Opened(str(path), None, tuple(loaded.column_names), rows)


def _beside(loaded: Any, texts: Sequence[str], image: str, order: Sequence[int], path: Path) -> Iterator[Row]:
    """Yield rows whose images are files."""
    chosen = loaded.select_columns(list(dict.fromkeys([*texts, image])))
    for number in order:
        row = chosen[number]
        cell = held(row[image])
        yield Row(number, row, None if cell is None else partial(read_image, cell, path), trouble(cell, path))


def _load(spec: Spec, path: Path) -> Any:
    import datasets

    loaded = datasets.load_from_disk(str(path))
    if isinstance(loaded, datasets.DatasetDict):
        loaded = loaded[_split(spec, list(loaded), path)]
    for name, feature in loaded.features.items():
        if isinstance(feature, datasets.Image):
            loaded = loaded.cast_column(name, datasets.Image(decode=False))
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


def _empty(loaded: Any, image: str) -> list[bool] | None:
    """Tell which rows have no image; None where rows stand in another order than in the file (they are met later)."""
    column = loaded.data.column(image)
    if len(column) != len(loaded):
        return None
    return [one for chunk in column.chunks for one in arrow.empty(chunk)]


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
            data = held(cell)
            self._read += len(data) if isinstance(data, bytes) else 0
            return cell


def _inside(cells: Cells, row: int, folder: Path) -> Image.Image:
    return read_image(cells.cell(row), folder)
