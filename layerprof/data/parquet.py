"""Parquet files -> rows: texts by themselves, and each image when its turn comes, a few rows of the file at a time."""

from __future__ import annotations

import bisect
import itertools
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerprof.data import arrow
from layerprof.data.pictures import UnreadableImageError, held, read_image, trouble
from layerprof.data.rows import Row
from layerprof.data.spool import Spool

if TYPE_CHECKING:
    from PIL import Image

TEXTS_AT_ONCE = 1024
AT_ONCE = 8
"""Images of a file that are in memory at once, in their compressed form."""
BUFFER = 1 << 20
"""Bytes that are read from a file at once; without a buffer, a whole column of a row group would be."""


@dataclass(frozen=True, slots=True)
class Group:
    """A row group: its number in its file, the number of its first row in the table, and its rows."""

    file: Path
    within: int
    start: int
    rows: int


class Table:
    """Parquet files, one after the other, as one table. Raises OSError or ValueError for files that are not parquet."""

    def __init__(self, files: Sequence[Path]) -> None:
        from pyarrow import parquet

        self.folder = files[0].parent
        self.schema = parquet.read_schema(files[0])
        self.groups: list[Group] = []
        self._metadata = {file: parquet.read_metadata(file) for file in files}
        for file, found in self._metadata.items():
            for within in range(found.num_row_groups):
                self.groups.append(Group(file, within, len(self), found.row_group(within).num_rows))

    def __len__(self) -> int:
        return self.groups[-1].start + self.groups[-1].rows if self.groups else 0

    def rows(self, texts: Sequence[str], image: str, order: Sequence[int] | None) -> Iterator[Row]:
        """Yield the rows with their texts, in an order of one's own where it is given. No image is read for it.

        Images inside the table are read where they lie, as long as the order is the table's. In another one the files
        are read through once, and the images in use kept in a temporary file.
        """
        if arrow.is_text(self.schema.field(image).type):
            for number, row in self._texts(list(dict.fromkeys([*texts, image])), order):
                path = held(row[image])
                picture = None if path is None else partial(read_image, path, self.folder)
                yield Row(number, row, picture, trouble(path, self.folder))
            return
        cells = Cells(self, image)
        spool = None if order is None else Spool(cells.forward)
        for number, row in self._texts([name for name in texts if name != image], order):
            if spool is not None:
                spool.want(number)
            picture = None if cells.empty(number) else partial(_within, spool or cells, number, self.folder)
            yield Row(number, row, picture)

    def _texts(self, columns: Sequence[str], order: Sequence[int] | None) -> Iterator[tuple[int, dict[str, Any]]]:
        rows = (row for batch in self.batches(columns, TEXTS_AT_ONCE, self.groups) for row in batch.to_pylist())
        if order is None:
            yield from enumerate(rows)
            return
        listed = list(rows)
        for number in order:
            yield number, listed[number]

    @staticmethod
    def batches(columns: Sequence[str], rows: int, groups: Sequence[Group]) -> Iterator[Any]:
        """Yield these columns of row groups, so many rows at a time."""
        from pyarrow import parquet

        for file, together in itertools.groupby(groups, key=lambda group: group.file):
            with parquet.ParquetFile(file, buffer_size=BUFFER, pre_buffer=False) as opened:
                for group in together:
                    yield from opened.iter_batches(rows, [group.within], list(columns), use_threads=False)

    def group_of(self, row: int) -> int:
        """Return the number of the row group that a row is in."""
        return bisect.bisect_right(self.groups, row, key=lambda group: group.start) - 1

    def empty(self, number: int, image: str) -> list[bool]:
        """Tell which images of a row group are empty: by its statistics, or where they leave it open by reading it.

        An image of no bytes is no empty cell by the statistics; it is met when it is opened.
        """
        group = self.groups[number]
        found = self._metadata[group.file].row_group(group.within)
        columns = [found.column(index) for index in range(found.num_columns)]
        nulls = [
            one.statistics.null_count if one.is_stats_set else None
            for one in columns
            if one.path_in_schema in (image, f"{image}.bytes")
        ]
        if nulls == [0]:
            return [False] * group.rows
        batches = self.batches([image], AT_ONCE, [group])
        return [empty for batch in batches for empty in arrow.empty(batch.column(0))]


class Cells:
    """The cells of a column of images, one at a time; quick as long as they are asked for in order."""

    def __init__(self, table: Table, image: str) -> None:
        self._table, self._image = table, image
        self._empty: tuple[int, list[bool]] = (-1, [])
        self._ahead: Iterator[tuple[int, Any]] = iter(())
        self._next, self._group = -1, -1
        self._lock = threading.Lock()

    def empty(self, row: int) -> bool:
        """Tell whether a row has no image."""
        group = self._table.group_of(row)
        if self._empty[0] != group:
            self._empty = group, self._table.empty(group, self._image)
        return self._empty[1][row - self._table.groups[group].start]

    def forward(self, group: int = 0) -> Iterator[tuple[int, Any]]:
        """Yield the number and the cell of each row, from a row group on."""
        groups = self._table.groups[group:]
        batches = self._table.batches([self._image], AT_ONCE, groups)
        cells = (cell for batch in batches for cell in batch.column(0))
        for number, cell in enumerate(cells, groups[0].start if groups else 0):
            yield number, cell.as_py()

    def cell(self, row: int) -> Any:
        """Return a row's cell: on from the one before where that is near, else from the beginning of its row group."""
        with self._lock:
            group = self._table.group_of(row)
            if row < self._next or (group != self._group and row != self._next):
                self._ahead = self.forward(group)
            self._next = self._group = -1  # where the file breaks here, the next call begins anew
            number, cell = next((one for one in self._ahead if one[0] == row), (row, None))
            self._next, self._group = number + 1, group
            return cell


def _within(cells: Spool | Cells, row: int, folder: Path) -> Image.Image:
    try:
        cell = cells.cell(row)
    except (OSError, ValueError) as error:
        raise UnreadableImageError(f"the parquet file cannot be read there: {error}") from None
    return read_image(cell, folder)
