"""Where the events of a trace file begin, and what stands before them. Pure, no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from layerprof.errors import TraceError
from layerprof.trace.reading import values
from layerprof.trace.reading.salvage import BEGIN, EVENTS_KEY, Form, State, beside_events, is_event
from layerprof.trace.reading.source import Source

HEAD_LIMIT = 64 << 20
"""Bytes in which the events must begin."""

_EVENTS_KEY = re.compile(EVENTS_KEY.encode())
_BLANK = b"\xef\xbb\xbf \t\r\n"
_MOST_KEYS = 64
_MOST_TRIED = 1000
_FIRST_EVENT = 1 << 20
RECORD_AGAIN = "Record it again and let the profiler stop by itself before the process ends."
_NOT_A_TRACE = "Give a trace that torch.profiler exported (.json or .json.gz), or a run's trace folder's file."


@dataclass(frozen=True, slots=True)
class Head:
    """What was read: the form of the trace, where the walk is to begin, what stood there, and the rest of the bytes.

    `whole` is whether what stands before the events was read.
    """

    rest: bytes
    form: Form
    state: State = State.AMONG
    metadata: dict[str, Any] = field(default_factory=dict)
    whole: bool = True


def find(source: Source, path: Path, piece: int) -> Head:
    """Read pieces up to the first event. Raises TraceError where there is none."""
    text = b""
    while True:
        more = source.read(piece)
        text = (text + more).lstrip(_BLANK)
        at_end = not more or len(text) > HEAD_LIMIT
        found = _in_list(text) or _in_object(text) or _in_lines(text)
        if found is None and at_end:
            found = _anywhere(text)
        if found is not None:
            return found
        if at_end:
            raise _none(text, path, source.damage)


def _in_list(text: bytes) -> Head | None:
    return Head(text[1:], Form.LIST) if text[:1] == b"[" else None


def _in_object(text: bytes) -> Head | None:
    """Find `traceEvents` in the object that the file is; in one inside of it, it is another's."""
    for _, match in zip(range(_MOST_KEYS), _EVENTS_KEY.finditer(text), strict=False):
        before = text[: match.end()].decode("utf-8", "replace") + "]}"
        try:
            document, _ = values.decoded(before, 0)
        except values.IncompleteError:
            continue
        except values.BrokenError as error:
            if error.at < len(before) - 2:
                return Head(text[match.end() :], Form.OBJECT, whole=False)
            continue
        if isinstance(document, dict):
            return Head(text[match.end() :], Form.OBJECT, metadata=beside_events(document))
    return None


def _in_lines(text: bytes) -> Head | None:
    """Take the file for one event a line, if its first value is an event."""
    if text[:1] != b"{":
        return None
    try:
        first, _ = values.decoded(text[:_FIRST_EVENT].decode("utf-8", "replace"), 0)
    except (values.IncompleteError, values.BrokenError):
        return None
    return Head(text, Form.LINES) if is_event(first) else None


def _anywhere(text: bytes) -> Head | None:
    """Find an event in a file whose beginning says nothing."""
    shown = text.decode("utf-8", "replace")
    for _, begin in zip(range(_MOST_TRIED), BEGIN.finditer(shown), strict=False):
        try:
            value, _ = values.decoded(shown, begin.start())
        except (values.IncompleteError, values.BrokenError):
            continue
        if is_event(value):
            form = Form.LINES if BEGIN.match(shown) else Form.OBJECT
            return Head(text, form, State.LOST, whole=False)
    return None


def _none(text: bytes, path: Path, damage: str | None) -> TraceError:
    """Return what is wrong with a file in which no event was found."""
    if damage is not None:
        return TraceError(f"The trace {path} is truncated or damaged before its first event: {damage}.", RECORD_AGAIN)
    if not text:
        return TraceError(f"The trace {path} is empty.", RECORD_AGAIN)
    if text[:1] == b"{" and values.parsed(text) is None:
        return TraceError(f"The trace {path} breaks off or is malformed before its first event.", RECORD_AGAIN)
    return TraceError(f"{path} is not a profiler trace: it has no traceEvents.", _NOT_A_TRACE)
