"""A stream that goes forward only -> cells that can be read again: what was met is kept in a file, not in memory."""

from __future__ import annotations

import io
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
        self._kept: dict[int, list[_Slice | Any] | _Slice | Any] = {}
        self._lock = threading.Lock()

    def want(self, row: int) -> None:
        """Say that a row's image will be asked for: others are not kept."""
        self._wanted.add(row)

    def cell(self, row: int) -> Any:
        """Return a wanted row's cell; None where the stream has no such row. Raises what the stream raises."""
        with self._lock:
            if row not in self._kept:
                self._forward(row)
            kept = self._kept.get(row)
            return [self._again(one) for one in kept] if isinstance(kept, list) else self._again(kept)

    def _again(self, kept: _Slice | Any) -> Any:
        if not isinstance(kept, _Slice):
            return kept
        self._file.seek(kept.start)
        return self._file.read(kept.length)

    def _forward(self, row: int) -> None:
        if self._stream is None:
            self._stream = self._begin()
        try:
            for number, cell in self._stream:
                if number in self._wanted and number not in self._kept:
                    listed = isinstance(cell, (list, tuple))
                    self._kept[number] = [self._keep(one) for one in cell] if listed else self._keep(cell)
                if number == row:
                    return
        except BaseException:
            self._stream = None  # a broken stream ends as if there were no more; the next call begins a new one
            raise

    def _keep(self, cell: Any) -> _Slice | Any:
        data = _bytes_in(cell)
        if data is None:
            return cell
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="layerprof-")  # noqa: SIM115 -- gone with this object
        start = self._file.seek(0, io.SEEK_END)
        self._file.write(data)
        return _Slice(start, len(data))


@dataclass(frozen=True, slots=True)
class _Slice:
    """Where an image's bytes stand in the file."""

    start: int
    length: int


def _bytes_in(cell: Any) -> bytes | None:
    """Return the file's bytes that a cell holds, of a picture those of a lossless one; None for a path or nothing."""
    from PIL import Image

    if isinstance(cell, dict):
        cell = cell.get("bytes")
    if isinstance(cell, Image.Image):
        stream = io.BytesIO()
        cell.save(stream, "PNG" if cell.mode in ("1", "L", "LA", "RGB", "RGBA") else "TIFF")
        return stream.getvalue()
    return bytes(cell) if isinstance(cell, (bytes, bytearray, memoryview)) and len(cell) else None
