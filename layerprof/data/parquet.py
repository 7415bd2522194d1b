"""Parquet files -> rows: texts by themselves, and each image when its turn comes, a few rows of the file at a time."""

from __future__ import annotations

import bisect
import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from layerprof.data import arrow, cells
from layerprof.data.cells import Inside
from layerprof.data.pictures import UnreadableImageError
from layerprof.data.rows import Row
from layerprof.data.spool import Spool

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

    def rows(self, texts: Sequence[str], pictured: Mapping[str, str], order: Sequence[int] | None) -> Iterator[Row]:
        """Yield the rows with their texts, in an order of one's own where it is given. No image is read for it.

        Images inside the table are read where they lie, as long as the order is the table's. In another one the files
        are read through once, and the images in use kept in a temporary file.
        """
        beside = {field: name for field, name in pictured.items() if arrow.is_text(self.schema.field(name).type)}
        columns = {field: _Column(self, name, order) for field, name in pictured.items() if field not in beside}
        read = [name for name in texts if name not in {pictured[field] for field in columns}]
        for number, row in self._texts(list(dict.fromkeys([*read, *beside.values()])), order):
            inside = {field: column.at(number) for field, column in columns.items()}
            yield cells.row(number, row, beside, inside, self.folder)

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

    def lengths(self, number: int, image: str) -> list[int | None]:
        """Tell how many images the cells of a row group list, None for an empty cell.

        That is read from their paths where they have some: those are small, and no pixels need be read for it.
        """
        group = self.groups[number]
        found = self._metadata[group.file].row_group(group.within)
        names = [found.column(index).path_in_schema for index in range(found.num_columns)]
        paths = [name for name in names if name.startswith(f"{image}.") and name.endswith(".path")]
        batches = self.batches(paths[:1] or [image], AT_ONCE, [group])
        return [count for batch in batches for count in arrow.lengths(batch.column(0))]


class _Column:
    """A column of images inside a table, while its rows are listed."""

    def __init__(self, table: Table, name: str, order: Sequence[int] | None) -> None:
        self._lists = arrow.is_list(table.schema.field(name).type)
        self._cells = Cells(table, name)
        self._spool = None if order is None else Spool(self._cells.forward)

    def at(self, number: int) -> Inside | None:
        """Return how a row's cell is read; None for an empty one."""
        if self._spool is not None:
            self._spool.want(number)
        count = self._cells.known(number)
        if count is None:
            return None
        return partial(_read, self._spool or self._cells, number), count if self._lists else None


class Cells:
    """The cells of a column of images, one at a time; quick as long as they are asked for in order."""

    def __init__(self, table: Table, image: str) -> None:
        self._table, self._image = table, image
        self._lists = arrow.is_list(table.schema.field(image).type)
        self._known: tuple[int, list[int | None]] = (-1, [])
        self._last: tuple[int, Any] = (-1, None)
        self._ahead: Iterator[tuple[int, Any]] = iter(())
        self._next, self._group = -1, -1
        self._lock = threading.Lock()

    def known(self, row: int) -> int | None:
        """Tell how many images a row has: one unless they are listed. None for an empty cell."""
        group = self._table.group_of(row)
        if self._known[0] != group:
            if self._lists:
                found = self._table.lengths(group, self._image)
            else:
                found = [None if lost else 1 for lost in self._table.empty(group, self._image)]
            self._known = group, found
        return self._known[1][row - self._table.groups[group].start]

    def forward(self, group: int = 0) -> Iterator[tuple[int, Any]]:
        """Yield the number and the cell of each row, from a row group on."""
        groups = self._table.groups[group:]
        batches = self._table.batches([self._image], AT_ONCE, groups)
        cells = (cell for batch in batches for cell in batch.column(0))
        for number, cell in enumerate(cells, groups[0].start if groups else 0):
            yield number, cell.as_py()

    def cell(self, row: int) -> Any:
        """Return a row's cell: on from the one before where that is near, else from the beginning of its row group.

        A list is kept until the next row is asked for: its images are opened one by one.
        """
        with self._lock:
            if self._last[0] == row:
                return self._last[1]
            group = self._table.group_of(row)
            if row < self._next or (group != self._group and row != self._next):
                self._ahead = self.forward(group)
            self._next = self._group = -1  # where the file breaks here, the next call begins anew
            number, cell = next((one for one in self._ahead if one[0] == row), (row, None))
            self._next, self._group = number + 1, group
            self._last = (row, cell) if self._lists else self._last
            return cell


def _read(cells: Spool | Cells, row: int) -> Any:
    try:
        return cells.cell(row)
    except (OSError, ValueError) as error:
        raise UnreadableImageError(f"the parquet file cannot be read there: {error}") from None
