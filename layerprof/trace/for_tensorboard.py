"""A trace rewritten for torch-tb-profiler, which by itself shows neither layers nor today's GPU times. Pure, no torch.

What its last release (0.4.3) needs, as read in its parser: launches in the category `runtime`, not `cuda_runtime` or
`cuda_driver`; modules as `python_function` events with a module id and a parent id; and each launch inside an operator
with the same `External id`, or its kernels belong to nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from layerprof.trace import intervals
from layerprof.trace.categories import ANNOTATION, LAUNCH, OPERATOR, PYTHON, WORK
from layerprof.trace.events import ANNOTATED, ASKED, MODULE, MODULES, NOT_RANGES, OURS, RANGE_ARG, correlation, label
from layerprof.trace.file import TraceFile, write_chrome
from layerprof.trace.intervals import NOWHERE
from layerprof.trace.reading.values import Event

FIRST_ID = 1 << 40
"""Python ids, module ids and external ids of ours begin here, far from any that torch gives."""

NO_OPERATOR = 0
"""External id of a launch that no operator made: torch-tb-profiler puts those at the root of their thread."""


def rewrite_for_tensorboard(
    trace: str | Path, out_folder: str | Path, worker: str, layers: Sequence[str] | None = None
) -> Path:
    """Write `out_folder/<worker>.pt.trace.json.gz` and return its path.

    `worker` is what the plugin lists, with `.<nanoseconds>` behind it where one worker has several traces. Every call
    of a layer becomes a call of the module of that name, nested as recorded; operators, kernels and times stay as they
    are. In a trace without our ranges those of `record_function` become modules, unless it has modules of its own.
    `layers` restricts the modules to these names.

    Raises TraceError as `TraceFile` does.
    """
    source = TraceFile(trace)
    plan = _Changes(None if layers is None else frozenset(layers))
    for events in source:
        for event in events:
            plan.note(event)
    plan.settle()
    path = Path(out_folder) / f"{worker}.pt.trace.json.gz"
    rewritten = (new for events in TraceFile(trace) for event in events for new in plan.rewrite(event))
    return write_chrome(rewritten, path, source.metadata)


@dataclass(slots=True)
class _ModuleCall:
    """One range: its thread, its times in nanoseconds, its module's name."""

    thread: tuple[Any, Any]
    start: int
    end: int
    name: str


@dataclass(slots=True)
class _Launch:
    """One launch: where and when, and its external id (None where it has none)."""

    thread: tuple[Any, Any]
    ts: int
    correlation: int
    external: Any


class _Changes:
    """What the second reading has to change, found out by the first."""

    def __init__(self, wanted: frozenset[str] | None) -> None:
        self._wanted = wanted
        self._calls: dict[int, list[_ModuleCall]] = {OURS: [], MODULES: [], ANNOTATED: []}
        self._launches: list[_Launch] = []
        self._operators: set[Any] = set()
        self._source = OURS
        self._ids: dict[str, int] = {}
        self._parents: dict[str, int | None] = {}
        self._bare: list[tuple[int, int] | None] = []
        self._externals: dict[int, int] = {}
        self._launched = 0
        self._on_gpu = False
        self._cut: dict[tuple[tuple[Any, Any], int, str], int] = {}

    def note(self, given: Event) -> None:
        """Take in one event of the first reading."""
        event = _readable(given)
        if event is None or event["ph"] != "X":
            return
        category = event["cat"]
        name, source = _module(event)
        if name is not None:
            start, end = _nanoseconds(event)
            self._calls[source].append(_ModuleCall(_thread(event), start, end, name))
        elif category in OPERATOR:
            self._operators.add(_arguments(event).get("External id"))
        elif category in LAUNCH:
            external = _arguments(event).get("External id")
            ts, _ = _nanoseconds(event)
            self._launches.append(_Launch(_thread(event), ts, correlation(event), external))
        elif category in WORK:
            self._on_gpu = True

    def settle(self) -> None:
        """Decide, once all events are known."""
        self._source = next((source for source, calls in self._calls.items() if calls), OURS)
        calls = [c for c in self._calls[self._source] if self._wanted is None or c.name in self._wanted]
        threads: dict[tuple[Any, Any], list[_ModuleCall]] = {}
        for call in sorted(calls, key=lambda c: (c.start, -c.end, len(c.name))):
            threads.setdefault(call.thread, []).append(call)
            self._ids.setdefault(call.name, FIRST_ID + len(self._ids))
        for mine in threads.values():
            self._nest(mine)
        self._find_bare_launches(threads)

    def _nest(self, calls: Sequence[_ModuleCall]) -> None:
        """Take as a module's parent the one around its first call, so that the hierarchy has every module once.

        A call that crosses the end of the one around it is cut there: the plugin fails on crossing modules.
        """
        stack: list[_ModuleCall] = []
        for call in calls:
            while stack and stack[-1].end <= call.start:
                stack.pop()
            if stack and call.end > stack[-1].end:
                call.end = stack[-1].end
                self._cut[call.thread, call.start, call.name] = call.end
            parent = stack[-1].name if stack and stack[-1].name != call.name else None
            self._parents.setdefault(call.name, None if parent is None else self._ids[parent])
            stack.append(call)

    def _find_bare_launches(self, threads: dict[tuple[Any, Any], list[_ModuleCall]]) -> None:
        """Give a launch that no operator made, such as Triton's, an external id for an operator of its own."""
        self._bare = [None] * len(self._launches)  # external id, and the end of the range around
        if not self._on_gpu:  # nothing to tie to an operator, whose time would be read as work
            return
        steps = {
            thread: intervals.innermost(
                np.array([call.start for call in calls], np.int64),
                np.array([call.end for call in calls], np.int64),
                np.arange(len(calls)),
            )
            for thread, calls in threads.items()
        }
        for number, launch in enumerate(self._launches):
            if launch.external in self._operators and launch.external is not None:
                continue
            inside = NOWHERE
            if launch.thread in steps:
                inside = int(intervals.at(np.array([launch.ts], np.int64), *steps[launch.thread])[0])
            external = NO_OPERATOR if inside == NOWHERE else FIRST_ID + number
            self._bare[number] = external, 0 if inside == NOWHERE else threads[launch.thread][inside].end
            self._externals[launch.correlation] = external

    def rewrite(self, given: Event) -> Iterator[Event]:
        """Yield what takes the event's place."""
        event = _readable(given)
        if event is None:
            return
        if event["ph"] != "X":
            yield event
            return
        name, source = _module(event)
        if name is not None and source == self._source and source != MODULES:
            if name in self._ids:
                yield self._module_event(event, name)
            if source == ANNOTATED:
                yield event
        elif event["cat"] in LAUNCH:
            yield from self._rewrite_launch(event)
        elif event["cat"] in WORK:
            yield self._rewrite_work(event)
        else:
            yield event

    def _module_event(self, event: Event, name: str) -> Event:
        own = self._ids[name]
        ids = {"Python id": own, "Python parent id": self._parents[name], "Python module id": own}
        mark = {RANGE_ARG: _arguments(event).get(RANGE_ARG, event["name"])}
        ours = mark if self._source == OURS else {}
        start, _ = _nanoseconds(event)
        end = self._cut.get((_thread(event), start, name))
        dur = {} if end is None else {"dur": (end - start) / 1000}
        return {**event, "cat": PYTHON, "name": f"{MODULE}{name}", **dur, "args": {**ids, **ours}}

    def _rewrite_launch(self, event: Event) -> Iterator[Event]:
        bare = self._bare[self._launched]
        self._launched += 1
        event = {**event, "cat": "runtime"}
        if bare is None:
            yield event
            return
        external, end = bare
        if external != NO_OPERATOR:
            # Cut where its module ends: an interval that crosses another is thrown away, with all that is in it.
            dur = min(event["dur"], end / 1000 - event["ts"])
            yield {**event, "cat": "cpu_op", "dur": dur, "args": {"External id": external}}
        yield _with(event, {"External id": external})

    def _rewrite_work(self, event: Event) -> Event:
        given = _arguments(event)
        external = self._externals.get(correlation(event))
        new = {} if external is None else {"External id": external}
        if isinstance(given.get("correlation"), str):
            new["correlation"] = correlation(event)
        if not isinstance(given.get("device"), int):
            new["device"] = event["pid"] if isinstance(event.get("pid"), int) else 0
        return _with(event, new) if new else event


def _module(event: Event) -> tuple[str | None, int]:
    """Return the module name that an event's range stands for, and where the range comes from."""
    category, name = event["cat"], event["name"]
    if category not in (PYTHON, ANNOTATION, *OPERATOR):
        return None, ASKED
    found, source = label(name, _arguments(event), category)
    if found is None or source == ASKED or name.startswith(NOT_RANGES):
        return None, source
    return found[0], source


def _readable(event: Event) -> Event | None:
    """Fill in what torch-tb-profiler takes for granted; None for an event that no viewer could place."""
    if "ph" not in event:
        return None
    if not isinstance(event.get("name"), str):
        event = {**event, "name": str(event.get("name", ""))}
    if event["ph"] != "X":
        return event
    if not isinstance(event.get("cat"), str):
        event = {**event, "cat": str(event.get("cat", ""))}
    ts, dur = event.get("ts"), event.get("dur")
    if type(ts) is float and type(dur) is float and ts - ts == 0 and dur >= 0:
        return event
    try:
        ts, dur = float(event["ts"]), float(dur or 0)
    except (KeyError, TypeError, ValueError):
        return None
    return {**event, "ts": ts, "dur": dur} if math.isfinite(ts) and 0 <= dur < math.inf else None


def _arguments(event: Event) -> dict[str, Any]:
    given = event.get("args")
    return given if isinstance(given, dict) else {}


def _with(event: Event, arguments: dict[str, Any]) -> Event:
    return {**event, "args": {**_arguments(event), **arguments}}


def _thread(event: Event) -> tuple[Any, Any]:
    return event.get("pid"), event.get("tid")


def _nanoseconds(event: Event) -> tuple[int, int]:
    start = round(event["ts"] * 1000)
    return start, start + round(event["dur"] * 1000)
