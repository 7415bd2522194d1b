"""Profiler trace files: reading them in pieces, whatever their size, and writing them. Pure, no torch.

A trace is Chrome's trace event format as torch.profiler writes it: an object whose `traceEvents` is a list of events,
or that list alone, as JSON or gzipped JSON. Reading goes by pieces of a few megabytes, so memory does not grow with
the file.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import orjson

from layerprof.errors import TraceError

Event = dict[str, Any]

PIECE = 4 << 20
"""Bytes read at a time."""

HEADER_LIMIT = 64 << 20
"""Bytes in which `traceEvents` must begin."""

_EVENTS_KEY = re.compile(rb'"traceEvents"\s*:\s*\[')
_BOUNDARY = re.compile(rb"\}\s*,\s*(?=\{)")
_RECORD_AGAIN = "Record it again and let the profiler stop by itself before the process ends."
_NOT_A_TRACE = "Give a trace that torch.profiler exported (.json or .json.gz), or a run's trace folder's file."


class TraceFile:
    """A trace on disk. Iterating yields its events in lists; `metadata` is complete after the last one.

    Raises TraceError, while iterating, for a file that is missing, empty, truncated, malformed, or not a trace.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.metadata: dict[str, Any] = {}

    def __iter__(self) -> Iterator[list[Event]]:
        with _opened(self.path) as stream:
            yield from self._pieces(stream)

    def _pieces(self, stream: IO[bytes]) -> Iterator[list[Event]]:
        rest, closing = self._header(stream)
        seen = 0
        while piece := stream.read(PIECE):
            rest += piece
            events, rest = _complete(rest)
            seen += len(events)
            if events:
                yield events
        events = self._last(rest, closing, seen)
        if not seen and not events:
            raise TraceError(f"The trace {self.path} holds no events.", _RECORD_AGAIN)
        yield events

    def _header(self, stream: IO[bytes]) -> tuple[bytes, bytes]:
        """Read up to the first event; return what was read beyond it, and what makes that a whole file again."""
        head = b""
        while len(head) < HEADER_LIMIT:
            piece = stream.read(PIECE)
            head += piece
            text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
            if text[:1] == b"[":
                return text[1:], b"["
            for match in _EVENTS_KEY.finditer(text):
                before = _parsed(text[: match.end()] + b"]}")
                if isinstance(before, dict):
                    self.metadata = {key: value for key, value in before.items() if key != "traceEvents"}
                    return text[match.end() :], b'{"traceEvents":['
            if not piece:
                break
        raise self._unreadable_head(head.lstrip(b"\xef\xbb\xbf \t\r\n"))

    def _unreadable_head(self, text: bytes) -> TraceError:
        if not text:
            return TraceError(f"The trace {self.path} is empty.", _RECORD_AGAIN)
        if text[:1] == b"{" and _parsed(text) is None:
            return TraceError(
                f"The trace {self.path} breaks off or is malformed before its first event.", _RECORD_AGAIN
            )
        return TraceError(f"{self.path} is not a profiler trace: it has no traceEvents.", _NOT_A_TRACE)

    def _last(self, rest: bytes, closing: bytes, seen: int) -> list[Event]:
        whole = _parsed(closing + rest)
        if isinstance(whole, dict):
            self.metadata |= {key: value for key, value in whole.items() if key != "traceEvents"}
            whole = whole["traceEvents"]
        if isinstance(whole, list):
            return _objects(whole)
        where = f"after about {seen:,} events" if seen else "at its first events"
        if rest.rstrip()[-1:] not in (b"]", b"}"):
            raise TraceError(f"The trace {self.path} is truncated: it breaks off {where}.", _RECORD_AGAIN)
        raise TraceError(f"The trace {self.path} is malformed {where}: no valid JSON follows.", _RECORD_AGAIN)


def _complete(text: bytes) -> tuple[list[Event], bytes]:
    """Split off the events that are whole.

    A cut between `}` and `{` may lie inside an event; it is between two events exactly if all before it is a list.
    """
    cuts = [match.end() for match in _BOUNDARY.finditer(text, max(0, len(text) - PIECE // 4))]
    for cut in reversed(cuts[-64:]):
        events = _parsed(b"[" + text[:cut].rstrip()[:-1] + b"]")
        if isinstance(events, list):
            return _objects(events), text[cut:]
    return [], text


def _objects(events: list[Any]) -> list[Event]:
    return events if all(type(event) is dict for event in events) else [e for e in events if type(e) is dict]


def _parsed(text: bytes) -> Any:
    """Parse JSON; None when it is not. Some writers leave NaN, Infinity and raw control characters in their traces."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(text.decode("utf-8", "replace"), strict=False)
    except (ValueError, RecursionError):
        return None


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a plain or gzipped file by its first bytes, whatever its name."""
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            with gzip.open(raw) if packed else raw as stream:
                yield stream  # type: ignore[misc]  # GzipFile reads bytes like any stream
    except FileNotFoundError:
        raise TraceError(f"There is no trace {path}.", "Check the path.") from None
    except IsADirectoryError:
        inside = sorted(p.name for p in path.rglob("*.json*"))[:5]
        hint = f"Give one of its files: {', '.join(inside)}." if inside else "Give a trace file."
        raise TraceError(f"{path} is a folder, not a trace.", hint) from None
    except PermissionError:
        raise TraceError(f"The trace {path} may not be read.", "Check its permissions.") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TraceError(f"The trace {path} is truncated or damaged: {error}.", _RECORD_AGAIN) from error


def write_chrome(events: Iterable[Event], path: str | Path, metadata: Mapping[str, Any] | None = None) -> Path:
    """Write events as a trace that Perfetto and chrome://tracing open; gzipped when the name ends in .gz."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    head = orjson.dumps(
        {"schemaVersion": 1, "displayTimeUnit": "ms", **(metadata or {})}, option=orjson.OPT_NON_STR_KEYS
    )
    with _writing(path) as stream:
        stream.write(head[:-1] + b',"traceEvents":[\n')
        for number, event in enumerate(events):
            stream.write((b",\n" if number else b"") + orjson.dumps(event, option=orjson.OPT_NON_STR_KEYS))
        stream.write(b"\n]}\n")
    return path


@contextmanager
def _writing(path: Path) -> Iterator[IO[bytes]]:
    """Write beside the file and move it there when complete, so that nobody reads half a trace."""
    part = path.with_name(path.name + ".part")
    try:
        # Level 2: a trace shrinks tenfold already, and the next levels take several times as long.
        with gzip.open(part, "wb", compresslevel=2) if path.suffix == ".gz" else part.open("wb") as stream:
            yield stream  # type: ignore[misc]  # GzipFile writes bytes like any stream
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
