"""Profiler trace files: reading them in pieces, whatever their size, and writing them. Pure, no torch.

A trace is Chrome's trace event format as torch.profiler writes it: an object whose `traceEvents` is a list of events,
or that list alone, or one event a line, as JSON or gzipped JSON. Reading goes by pieces of a few megabytes, so memory
does not grow with the file. A piece that is no valid JSON goes through `salvage`, so that what is broken costs itself.
"""

from __future__ import annotations

import codecs
import gzip
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import orjson

from layerprof.errors import TraceError
from layerprof.trace.reading import head
from layerprof.trace.reading.head import RECORD_AGAIN
from layerprof.trace.reading.salvage import Form, Salvage, State, beside_events
from layerprof.trace.reading.source import Source, called, opened
from layerprof.trace.reading.values import Event

PIECE = 4 << 20
"""Bytes read at a time."""

_BOUNDARY = re.compile(rb"\}\s*,\s*(?=\{)")
_CUTS = 64
"""Boundaries at which it is tried to cut a piece."""
_CLOSING = {Form.OBJECT: b'{"traceEvents":[', Form.LIST: b"["}


class TraceFile:
    """A trace on disk, or for `-` on standard input.

    Iterating yields its events in lists; all that is told below is complete after the last one.

    `metadata` is what stands beside the events. `unreadable` counts the events that were given up, `cut_off` is whether
    the file ends before the trace does, `remarks` says both and what to do, in sentences.

    Raises TraceError, while iterating, for a file that is missing or empty, or of which no event can be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.called = called(self.path)
        self.metadata: dict[str, Any] = {}
        self.unreadable = 0
        self.cut_off = False
        self.remarks: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[list[Event]]:
        with opened(self.path) as source:
            found = head.find(source, Path(self.called), PIECE)
            salvage = Salvage(found.form, found.state, metadata=found.metadata)
            yield from _pieces(found.rest, source, salvage)
            self._take_over(salvage, found.whole, source.damage)

    def _take_over(self, salvage: Salvage, whole_head: bool, damage: str | None) -> None:
        self.metadata, self.unreadable = salvage.metadata, salvage.unreadable
        self.cut_off = salvage.cut_off
        if not salvage.read_before:
            raise self._nothing_read(damage)
        self.remarks = tuple(self._remarks(salvage, whole_head, damage))

    def _nothing_read(self, damage: str | None) -> TraceError:
        if self.cut_off or damage:
            why = damage or "it breaks off"
            return TraceError(f"The trace {self.called} is truncated at its first events: {why}.", RECORD_AGAIN)
        if self.unreadable:
            return TraceError(f"The trace {self.called} is malformed: none of its events can be read.", RECORD_AGAIN)
        return TraceError(f"The trace {self.called} holds no events.", RECORD_AGAIN)

    def _remarks(self, salvage: Salvage, whole_head: bool, damage: str | None) -> Iterator[str]:
        if lost := salvage.unreadable - salvage.half:
            yield (
                f"{self.called} is malformed: {lost:,} of its events cannot be read, the first of them after "
                f"{salvage.first_after:,} others. Most often quotes or backslashes in names do that, which older "
                "releases of torch write as they are: record with a newer one, or without with_stack."
            )
        if not whole_head:
            yield f"{self.called} is malformed before its first event: what stands there is not read."
        if self.cut_off or damage:
            why = damage or "it breaks off"
            yield (
                f"{self.called} is not whole: {why} after {salvage.read_before:,} events, and what ran later is in no "
                f"figure. {RECORD_AGAIN}"
            )
        if salvage.documents > 1:
            yield (
                f"{self.called} holds {salvage.documents:,} traces, one behind the other, read as one; where both use "
                "an id, work may go to a launch of the other. Cut it up to read them apart."
            )


def _pieces(rest: bytes, source: Source, salvage: Salvage) -> Iterator[list[Event]]:
    """Yield events as soon as they are whole; what is read without any is doubled, so that no byte is tried often."""
    text, enough = b"", 0
    for piece in _portions(rest, source):
        text += piece
        if len(text) < enough:
            continue
        events, text = _complete(text, salvage)
        enough = 0 if events else 2 * len(text)
        if events:
            yield events
    yield _last(text, salvage)


def _portions(rest: bytes, source: Source) -> Iterator[bytes]:
    for place in range(0, len(rest), PIECE):
        yield rest[place : place + PIECE]
    while piece := source.read(PIECE):
        yield piece


def _complete(text: bytes, salvage: Salvage) -> tuple[list[Event], bytes]:
    """Split off the events that are whole.

    A cut between `}` and `{` may lie inside an event; it is between two events exactly if all before it is a list.
    """
    cuts: list[int] = []
    if salvage.state is State.AMONG and salvage.form in _CLOSING:
        cuts = [match.end() for match in _BOUNDARY.finditer(text, max(0, len(text) - PIECE // 4))]
    valid = len(text)
    for cut in reversed(cuts[-_CUTS:]):
        if cut > valid:
            continue
        try:
            events = orjson.loads(b"[" + text[:cut].rstrip()[:-1] + b"]")
        except orjson.JSONDecodeError as error:
            valid = len(error.doc[: error.pos].encode())
        else:
            return _counted(events, salvage), text[cut:]
    return _salvaged(text, salvage, final=False)


def _last(text: bytes, salvage: Salvage) -> list[Event]:
    if salvage.state is State.AMONG and salvage.form in _CLOSING:
        try:
            whole = orjson.loads(_CLOSING[salvage.form] + text)
        except orjson.JSONDecodeError:
            pass
        else:
            salvage.metadata |= beside_events(whole)
            return _counted(whole["traceEvents"] if isinstance(whole, dict) else whole, salvage)
    return _salvaged(text, salvage, final=True)[0]


def _salvaged(text: bytes, salvage: Salvage, final: bool) -> tuple[list[Event], bytes]:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    events, rest = salvage.read(decoder.decode(text, final), final)
    return events, rest.encode() + decoder.getstate()[0]


def _counted(items: list[Any], salvage: Salvage) -> list[Event]:
    events = items if all(type(item) is dict for item in items) else [item for item in items if type(item) is dict]
    salvage.read_before += len(events)
    return events


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
