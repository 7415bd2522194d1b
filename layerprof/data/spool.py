"""A stream that goes forward only -> cells that can be read again: what was met is kept in a file, not in memory."""

from __future__ import annotations

import io
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any


class Spool:
    """The images of the wanted rows of a stream, each read from it once and then from a temporary file.

    `stream` begins the stream of (row, cell); it is asked for when the first cell is, and goes no further than the last
    row that was. The file has no name and is gone with this object.
    """

    def __init__(self, stream: Callable[[], Iterator[tuple[int, Any]]]) -> None:
        self._begin = stream
        self._stream: Iterator[tuple[int, Any]] | None = None
        self._wanted: set[int] = set()
        self._file: Any = None
        self._at: dict[int, tuple[int, int]] = {}
        self._small: dict[int, Any] = {}
        self._lock = threading.Lock()

    def want(self, row: int) -> None:
        """Say that a row's image will be asked for: others are not kept."""
        self._wanted.add(row)

    def cell(self, row: int) -> Any:
        """Return a wanted row's cell; None where the stream has no such row. Raises what the stream raises."""
        with self._lock:
            if row not in self._at and row not in self._small:
                self._forward(row)
            if row not in self._at:
                return self._small.get(row)
            start, length = self._at[row]
            self._file.seek(start)
            return self._file.read(length)

    def _forward(self, row: int) -> None:
        if self._stream is None:
            self._stream = self._begin()
        try:
            for number, cell in self._stream:
                if number in self._wanted and number not in self._at:
                    self._keep(number, cell)
                if number == row:
                    return
        except BaseException:
            self._stream = None  # a broken stream ends as if there were no more; the next call begins a new one
            raise

    def _keep(self, number: int, cell: Any) -> None:
        data = _bytes_in(cell)
        if data is None:
            self._small[number] = cell
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="layerprof-")  # noqa: SIM115 -- gone with this object
        start = self._file.seek(0, io.SEEK_END)
        self._file.write(data)
        self._at[number] = (start, len(data))


def _bytes_in(cell: Any) -> bytes | None:
    """Return the file's bytes that a cell holds, of a picture those of a lossless one; None for a path or nothing."""
    from PIL import Image

    if isinstance(cell, (list, tuple)) and len(cell):
        return _bytes_in(cell[0])
    if isinstance(cell, dict):
        cell = cell.get("bytes")
    if isinstance(cell, Image.Image):
        stream = io.BytesIO()
        cell.save(stream, "PNG" if cell.mode in ("1", "L", "LA", "RGB", "RGBA") else "TIFF")
        return stream.getvalue()
    return bytes(cell) if isinstance(cell, (bytes, bytearray, memoryview)) and len(cell) else None
