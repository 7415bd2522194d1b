"""Events out of text that is no valid JSON: what is whole is read, what is not costs itself. Pure, no torch.

The text is walked value by value. An event that cannot be read ends where the next one begins that can: at an opening
brace and a key of events, with `ph` among its fields, which the objects inside of events do not have. The work grows
with the text, not with how much of it is broken.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

import orjson

from layerprof.trace.reading import values
from layerprof.trace.reading.values import BLANK, BrokenError, Event, IncompleteError

EVENT_LIMIT = 64 << 20
"""Signs in which an event must end; one that does not is given up."""

SUSPICIOUS = 64 << 10
"""Signs of an event, from which on it is looked at whether it holds others."""

WINDOW = 16 << 10
"""Signs that are looked at together; more where none of them ends an event."""

EVENTS_KEY = r'"traceEvents"\s*:\s*\['
_KEY_OF_EVENTS = re.compile(EVENTS_KEY)
_CLOSING = '{"traceEvents":['
_GAP = re.compile(rf"[{BLANK},]*")
BEGIN = re.compile(r'\{\s*"(ph|name|cat|pid|tid|ts|dur|args|id|s|bp|tts|tdur|cname)"\s*:')
"""How an event may begin."""
_LIST_OF_EVENTS = re.compile(rf"\[[{BLANK}\[]*" + BEGIN.pattern)
_LONGEST_BEGIN = 64
_BOUNDARY = re.compile(r"\}\s*,?\s*(?=\{)")
_TRIED, _SWALLOWED = 50, 3
_STOPPED = _NO_HEAD = -1
_BETWEEN = BLANK + ","
_CUTS = 3
_AFTER_EVENT = re.compile(rf"[{BLANK}]*(?:[,\]{{]|\Z)")
_AFTER_LIST = re.compile(rf'[{BLANK}]*(?:\}}|,\s*(?:"|\Z)|\Z)')
_GARBAGE = re.compile(r"[^,\[\]{]*")


class Form(Enum):
    """What holds the events: an object's `traceEvents`, a list, which may be left open, or lines with one each."""

    OBJECT = auto()
    LIST = auto()
    LINES = auto()


class State(Enum):
    """Where the walk is: among events, in one that it could not read, or behind the end of all."""

    AMONG = auto()
    LOST = auto()
    CLOSED = auto()


@dataclass(slots=True)
class Salvage:
    """Walks through text that comes in pieces.

    `read_before` counts the events that were read, also by whoever reads pieces that need no salvage; `unreadable`
    those that were given up, the first of them after `first_after` others. `cut_off` is whether the text ends before
    what it began does, `half` whether the last one given up is what it ends in. `documents` counts traces that follow
    each other. `metadata` is what stands beside the events.
    """

    form: Form
    state: State = State.AMONG
    read_before: int = 0
    unreadable: int = 0
    first_after: int = 0
    cut_off: bool = False
    half: bool = False
    documents: int = 1
    metadata: dict[str, Any] = field(default_factory=dict)
    _text: str = ""
    _final: bool = False
    _events: list[Event] = field(default_factory=list)
    _done: int = 0
    _key: str = "ph"
    _next_head: int = -1

    def read(self, text: str, final: bool) -> tuple[list[Event], str]:
        """Return the events in the text, and its end, which is to stand before the next piece: none where `final`.

        It is walked window by window, because the place of each error is told in lines, which are counted from the
        begin of what was looked at.
        """
        events: list[Event] = []
        begin, size = 0, WINDOW
        while True:
            end = begin + size
            last = final and end >= len(text)
            found, went = ([], 0) if last else self._quickly(text[begin:end])
            if not went:
                found, went = self._walk(text[begin:end], last)
            self.read_before += len(found)
            events += found
            begin, size = begin + went, WINDOW if went else 2 * size
            if end >= len(text):
                return events, text[begin:]

    def _quickly(self, text: str) -> tuple[list[Event], int]:
        """Return what `_walk` does, where all is well and separated by commas or lines, else nothing."""
        if self.state is not State.AMONG:
            return [], 0
        for found in reversed([*_BOUNDARY.finditer(text, len(text) - len(text) // 4)][-_CUTS:]):
            within = text[: found.start() + 1].strip(_BETWEEN)
            within = _BOUNDARY.sub("},", within) if self.form is Form.LINES else within
            try:
                items = orjson.loads(f"[{within}]")
            except orjson.JSONDecodeError:
                continue
            return [item for item in items if type(item) is dict], found.end()
        return [], 0

    def _walk(self, text: str, final: bool) -> tuple[list[Event], int]:
        """Return the events in the text, and how far it is done with."""
        self._events, self._text, self._final, self._next_head, self._done = [], text, final, -1, len(text)
        place = 0
        while place != _STOPPED:
            place = self._search(place) if self.state is State.LOST else self._step(place)
        return self._events, len(text) if final else self._done

    def _stop(self, place: int) -> int:
        """End the walk through this text; what begins at the place is looked at again with more behind it."""
        self._done = place
        return _STOPPED

    def _enough(self, place: int) -> bool:
        """Whether to decide on what begins at the place, though its end is not in the text."""
        size = len(self._text) - place
        return self._final or size > EVENT_LIMIT or (size > SUSPICIOUS and self._swallows(place))

    def _swallows(self, place: int) -> bool:
        """Whether a value that goes on and on has others in it that are events: a bracket in it was lost."""
        inside = 0
        for _, begin in zip(range(_TRIED), BEGIN.finditer(self._text, place + 1), strict=False):
            try:
                value, _ = values.decoded(self._text, begin.start())
            except (IncompleteError, BrokenError):
                continue
            inside += is_event(value)
        return inside >= _SWALLOWED

    def _step(self, place: int) -> int:
        place = values.end_of(_GAP, self._text, place)
        if place == len(self._text):
            self.cut_off |= self._final and self.state is State.AMONG and self.form is Form.OBJECT
            return self._stop(place)
        sign = self._text[place]
        if sign == "]":
            return self._list_end(place)
        if sign == "[" and self.state is State.CLOSED:
            self.documents, self.form, self.state = self.documents + 1, Form.LIST, State.AMONG
            return place + 1
        if sign == "[" and _LIST_OF_EVENTS.match(self._text, place):
            return place + 1
        if sign == "{" and self.state is State.CLOSED:
            self.form, self.state = Form.LINES, State.AMONG
        return self._value(place)

    def _value(self, place: int) -> int:
        """Take in what begins at the place: an event, another trace, or something that is passed over."""
        try:
            value, end = values.decoded(self._text, place)
        except IncompleteError as error:
            if (head := self._head(place, error.at)) != _NO_HEAD:
                return head
            if not self._enough(place):
                return self._stop(place)
            self.cut_off = self._final
            return self._give_up(place, half=self._final)
        except BrokenError as error:
            head = self._head(place, error.at)
            return self._give_up(place) if head == _NO_HEAD else head
        return self._object(value, place, end) if type(value) is dict else end

    def _object(self, value: Event, place: int, end: int) -> int:
        if isinstance(value.get("traceEvents"), list):
            return self._whole_document(value, end)
        if (well := self._ends_well(end)) is None:
            return self._stop(place)
        if not well:
            return self._give_up(place)
        self._events.append(value)
        return end

    def _ends_well(self, end: int) -> bool | None:
        """Whether what ends there was an object, and no part of one that is broken; None where more must be seen."""
        after = _AFTER_EVENT.match(self._text, end)
        if after is not None:
            return True if after.end() < len(self._text) or self._final or self.form is Form.LINES else None
        behind = values.end_of(_GARBAGE, self._text, end)
        if behind == len(self._text) and not self._enough(end):
            return None
        return '"' not in self._text[end:behind]

    def _give_up(self, place: int, *, half: bool = False) -> int:
        """Count what begins at the place, if it is an event, and look for the next one; `half` of it is there."""
        text = self._text
        counts = text[place] == "{"
        if not counts:
            behind = values.end_of(_GARBAGE, text, place)
            if behind == len(text) and not self._enough(place):
                return self._stop(place)
            counts = '"' in text[place:behind]
        begin = BEGIN.match(text, place)
        self._key = begin.group(1) if begin else "ph"
        if counts:
            self._count(half)
        self.state = State.LOST
        return place + 1

    def _count(self, half: bool) -> None:
        self.half = half
        if not self.unreadable:
            self.first_after = self.read_before + len(self._events)
        self.unreadable += 1

    def _search(self, place: int) -> int:
        """Find the next event that can be read."""
        while (begin := BEGIN.search(self._text, place)) is not None:
            found = begin.start()
            half, behind = False, found + 1
            try:
                value, end = values.decoded(self._text, found)
            except IncompleteError:
                if not self._enough(found):
                    return self._stop(found)
                self.cut_off = half = self._final
            except BrokenError as error:
                behind = max(behind, min(error.at, len(self._text))) if error.nested else behind
            else:
                if is_event(value) and self._ends_well(end) is not False:
                    self.state, self.cut_off, self.half = State.AMONG, False, False
                    return found
                place = end
                continue
            if begin.group(1) == self._key:
                self._count(half)
            place = behind
        if self._final:
            self.cut_off |= not self._text.rstrip().endswith(("}", "]"))
        return self._stop(max(place, len(self._text) - _LONGEST_BEGIN))

    def _head(self, place: int, good_until: int) -> int:
        """Return where the events of another trace begin, if it is one's head that begins at the place."""
        if self._text[place] != "{" or BEGIN.match(self._text, place):
            return _NO_HEAD
        if self._next_head < place:
            found = _KEY_OF_EVENTS.search(self._text, place)
            self._next_head = found.end() if found else len(self._text) + 1
        if self._next_head > good_until:
            return _NO_HEAD
        self.metadata |= beside_events(values.parsed(self._text[place : self._next_head] + "]}"))
        self.documents, self.form, self.state = self.documents + 1, Form.OBJECT, State.AMONG
        return self._next_head

    def _whole_document(self, value: Event, end: int) -> int:
        self._events += [event for event in value["traceEvents"] if type(event) is dict]
        self.metadata |= beside_events(value)
        self.documents, self.state = self.documents + 1, State.CLOSED
        return end

    def _list_end(self, place: int) -> int:
        """Take in what stands behind the list of events; a bracket that ends no list is passed over."""
        if self.form is Form.LIST:
            self.state = State.CLOSED
        after = _AFTER_LIST.match(self._text, place + 1)
        if self.form is not Form.OBJECT or self.state is State.CLOSED or after is None:
            return place + 1
        try:
            value, end = values.decoded(_CLOSING + self._text[place:], 0)
        except IncompleteError:
            if not self._enough(place):
                return self._stop(place)
            self.state, self.cut_off = State.CLOSED, self._final
            return self._stop(len(self._text))
        except BrokenError:
            self.state, self._key = State.LOST, "ph"
            return place + 1
        self.metadata |= beside_events(value)
        self.state = State.CLOSED
        return place + end - len(_CLOSING)


def is_event(value: Any) -> bool:
    """Whether an object is an event: the format gives each its kind, one letter in `ph`."""
    kind = value.get("ph")
    return isinstance(kind, str) and len(kind) == 1


def beside_events(document: Any) -> dict[str, Any]:
    """Return what an object that holds a trace says beside its events; nothing for what is no object."""
    return {key: item for key, item in document.items() if key != "traceEvents"} if isinstance(document, dict) else {}
