"""Trace events to columns: what attribution needs of each event, in arrays of numbers. Pure, no torch."""

from __future__ import annotations

import fnmatch
import re
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerprof.records import Phase
from layerprof.trace.categories import ANNOTATION, LAUNCH, NO_CATEGORY, OPERATOR, PYTHON, WORK, is_known
from layerprof.trace.intervals import Ints
from layerprof.trace.step_names import is_servers

Label = tuple[str, Phase | None]
"""What a row stands for: a layer (or another range's name) and its phase, None where the trace does not tell."""

PREFIX = "lp:"
"""Begins the name of our ranges: `lp:<layer>#<call>|<phase>`."""

MODULE = "nn.Module: "
"""Begins the name of the ranges that torch's `with_stack` makes for modules."""

WARM_UP = "layerprof: warm-up launches"
"""Name of the range around launches that are made only for the profiler to lose them (`hooks/recording.py`)."""

RANGE_ARG = "layerprof"
"""Argument that holds our range's name in a trace whose events were renamed for another viewer."""

UNNAMED = "(no name)"
"""What stands for the empty name of a range that is none of ours."""

NO_CORRELATION = -1

NOT_RANGES = ("ProfilerStep#", "nccl:", "gloo:")

OTHER_CALL, KERNEL_LAUNCH, GRAPH_LAUNCH, COPY_CALL, FILL_CALL = range(5)
"""What a call of the driver is: launches always put work on a GPU, an empty fill or copy does not."""
LAUNCHING = (KERNEL_LAUNCH, GRAPH_LAUNCH)

KERNEL, COPY, FILL = KERNEL_LAUNCH, COPY_CALL, FILL_CALL
"""What a piece of work is, by the kind of call that makes it."""
NODE, LAUNCHED_NAME = "graph node id", "kernel"
"""Arguments: a piece of work's place in its CUDA graph (newer kineto), and what a launch launches (AMD)."""
NO_NAME = -1
_KERNEL_LAUNCH = re.compile(r"Launch(Cooperative)?Kernel|KernelLaunch")
_GRAPH_LAUNCH = re.compile(r"GraphLaunch")
_COPY, _FILL = re.compile(r"Memcpy"), re.compile(r"Memset|MemFill")
_CAPTURE = re.compile(r"(Begin|End)Capture")
_MERGED = re.compile(r"\[([^\]]+)\]")
_RANK = 1 << 40  # more than a trace has correlation ids
_SIGNED = (1 << 63) - 1  # a node id has 64 bits and no sign
_LARGEST_US = 9e15  # beyond this, nanoseconds leave 64 bits

OURS, ANNOTATED, MODULES, ASKED = range(4)
"""Where a range comes from: our hooks, `record_function`, `with_stack`, a name that the caller asked for."""


class Names:
    """Numbers for names, in the order of their first appearance."""

    def __init__(self) -> None:
        self.numbers: dict[Any, int] = {}

    def __call__(self, name: Any) -> int:
        """Return the name's number, a new one at its first appearance."""
        return self.numbers.setdefault(name, len(self.numbers))

    def listed(self) -> list[Any]:
        """Return the names by number."""
        return list(self.numbers)


class Texts(Names):
    """Numbers for names of events; raises TypeError for what is no text."""

    def __call__(self, name: Any) -> int:
        """Return the name's number, a new one at its first appearance."""
        number = self.numbers.get(name)
        if number is not None:
            return number
        if not isinstance(name, str):
            raise TypeError(f"a name that is {name!r}")
        return super().__call__(name)


@dataclass(slots=True)
class EventTable:
    """Events of one sort: start and length in microseconds as read, and some numbers each.

    `sizes` has a letter for each number: `q` for ids of 64 bits, `i` for numbers that count what the trace holds.
    """

    sizes: str
    ts: array[float] = field(default_factory=lambda: array("d"))
    dur: array[float] = field(default_factory=lambda: array("d"))
    rest: list[array[int]] = field(init=False)

    def __post_init__(self) -> None:
        self.rest = [array(size) for size in self.sizes]

    def add(self, ts: float, dur: float, *numbers: int) -> None:
        """Append one event."""
        self.ts.append(ts)
        self.dur.append(dur)
        for column, number in zip(self.rest, numbers):  # noqa: B905 - once per event: the check costs as much as the work
            column.append(number)

    def columns(self) -> tuple[list[Ints], int]:
        """Return start, end (both in nanoseconds) and the numbers, and how many events had no usable times."""
        ts, dur = np.frombuffer(self.ts), np.frombuffer(self.dur)
        good: NDArray[np.bool_] = (np.abs(ts) < _LARGEST_US) & (dur >= 0) & (dur < _LARGEST_US)
        # Microseconds since 1970 fill a float: times 1000 they would be off by 128 ns.
        whole = np.floor(ts[good])
        start = whole.astype(np.int64) * 1000 + np.rint((ts[good] - whole) * 1000).astype(np.int64)
        end = start + np.rint(dur[good] * 1000).astype(np.int64)
        rest = [np.frombuffer(column, column.typecode)[good].astype(np.int64, copy=False) for column in self.rest]
        return [start, end, *rest], int(len(good) - good.sum())


@dataclass(slots=True)
class Columns:
    """A trace's events by sort.

    `work` (name, correlation, graph node, kind, stream): what ran on a GPU. `launches` (thread, correlation, kind of
    call, name of the kernel where it is told): calls that put work there. `captures` (thread, begins): where the
    capture of a CUDA graph begins and ends. `warm_ups` (thread): in them launches were made for the profiler to lose.
    `ranges` (thread, label, source). `servers` (thread, name): a server's annotations of its steps and captures.
    `operators` (thread, name): operators on the host. `unknown`: events and nanoseconds of each category that is not
    known.
    """

    work: EventTable = field(default_factory=lambda: EventTable("iqqii"))
    launches: EventTable = field(default_factory=lambda: EventTable("iqii"))
    servers: EventTable = field(default_factory=lambda: EventTable("ii"))
    captures: EventTable = field(default_factory=lambda: EventTable("ii"))
    warm_ups: EventTable = field(default_factory=lambda: EventTable("i"))
    ranges: EventTable = field(default_factory=lambda: EventTable("iii"))
    operators: EventTable = field(default_factory=lambda: EventTable("ii"))
    names: Texts = field(default_factory=Texts)
    labels: Names = field(default_factory=Names)
    threads: Names = field(default_factory=Names)
    events: int = 0
    skipped: int = 0
    unknown: dict[str, tuple[int, int]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    @property
    def devices(self) -> int:
        """How many devices ran work, at least one: torch's profiler gives each of them a process of its own."""
        threads = self.threads.listed()
        return len({threads[stream][0] for stream in set(self.work.rest[-1])}) or 1


class Reader:
    """Fills columns from events. `wanted` are patterns of names that count as ranges; None takes what is customary.

    Customary are the ranges of our hooks and, in a trace that has none, every `record_function` and every module of
    `with_stack`, but not the profiler's steps and collectives.
    """

    def __init__(self, wanted: Sequence[str] | None = None) -> None:
        self.columns = Columns()
        self.offered: set[str] = set()
        self._wanted = None if wanted is None else tuple(wanted)
        self._answers: dict[str, bool] = {}
        self._kinds: dict[str, tuple[int, bool | None]] = {}
        self._ranks: dict[str, int] = {}
        self._prefixes = Names()
        self._sorts: dict[str, int] = {}

    def read(self, events: Iterable[Any]) -> None:
        """Add complete events (`ph` X); others are passed over, unusable ones counted in `skipped`."""
        columns = self.columns
        for event in events:
            columns.events += 1
            try:
                if event.get("ph") == "X":
                    self._add(event, event.get("cat"))
            except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
                columns.skipped += 1

    def _add(self, event: Any, category: Any) -> None:
        columns = self.columns
        if category in OPERATOR:
            if not self._range(event, category):
                columns.operators.add(*_times(event), self._thread(event), columns.names(event["name"]))
        elif category in LAUNCH:
            self._launch(event)
        elif category in WORK:
            self._work(event, category)
        elif category in (ANNOTATION, PYTHON):
            self._range(event, category)
        elif not is_known(category):
            ns = round(_times(event)[1] * 1000)
            name = str(category or NO_CATEGORY)
            events, before = columns.unknown.get(name, (0, 0))
            columns.unknown[name] = events + 1, before + ns

    def _launch(self, event: Any) -> None:
        """Add a call of the driver, and what it says of a graph's capture."""
        columns, name = self.columns, event["name"]
        kind, begins = self._kinds.get(name) or self._kinds.setdefault(name, call_kind(name))
        number = self._correlation(event)
        if number != NO_CORRELATION:
            launched = event["args"].get(LAUNCHED_NAME)
            called = NO_NAME if launched is None else columns.names(str(launched))
            columns.launches.add(*_times(event), self._thread(event), number, kind, called)
        if begins is not None:
            columns.captures.add(*_times(event), self._thread(event), begins)

    def _work(self, event: Any, category: str) -> None:
        kind = self._sorts.get(category) or self._sorts.setdefault(category, work_kind(category))
        node = (event.get("args") or {}).get(NODE)
        node = NO_CORRELATION if node is None else int(node) & _SIGNED
        name, stream = self.columns.names(event["name"]), self._thread(event)
        self.columns.work.add(*_times(event), name, self._correlation(event), node, kind, stream)

    def _correlation(self, event: Any) -> int:
        """Return the correlation id, apart for each rank: merged traces have `[TP03] 1003` as process and device."""
        number, process = correlation(event), event.get("pid")
        if type(process) is not str or not 0 <= number < _RANK:
            return number
        rank = self._ranks.get(process)
        if rank is None:
            found = _MERGED.match(process)
            rank = self._ranks[process] = self._prefixes(found[1]) + 1 if found else 0
        return number + rank * _RANK

    def _thread(self, event: Any) -> int:
        return self.columns.threads((event.get("pid"), event.get("tid")))

    def _range(self, event: Any, category: str) -> bool:
        """Add the event if it is a range; return whether it is."""
        name: str = event["name"]
        if name == WARM_UP:
            self.columns.warm_ups.add(*_times(event), self._thread(event))
            return True
        if category == ANNOTATION and is_servers(name):
            self.columns.servers.add(*_times(event), self._thread(event), self.columns.names(name))
        found, source = label(name, event.get("args"), category)
        if found is None:
            return False
        if source != ASKED:
            self.offered.add(found[0])
        if self._wanted is None:
            if source == ASKED or name.startswith(NOT_RANGES):
                return False
        elif not self._asked(found[0]):
            # A range of ours that was not asked for is no operator either.
            return source == OURS
        self.columns.ranges.add(*_times(event), self._thread(event), self.columns.labels(found), source)
        return True

    def _asked(self, name: str) -> bool:
        answer = self._answers.get(name)
        if answer is None:
            answer = any(name == want or fnmatch.fnmatchcase(name, want) for want in self._wanted or ())
            self._answers[name] = answer
        return answer


def call_kind(name: str) -> tuple[int, bool | None]:
    """Return what a call of the driver is, and whether it begins or ends a graph's capture (None: neither).

    Names are CUDA's, HIP's and Level Zero's: cudaLaunchKernelExC, cuLaunchCooperativeKernel, hipExtModuleLaunchKernel,
    urEnqueueKernelLaunch, cudaGraphLaunch, hipStreamBeginCapture, ...
    """
    patterns = ((KERNEL_LAUNCH, _KERNEL_LAUNCH), (GRAPH_LAUNCH, _GRAPH_LAUNCH), (COPY_CALL, _COPY), (FILL_CALL, _FILL))
    kind = next((kind for kind, pattern in patterns if pattern.search(name)), OTHER_CALL)
    capture = _CAPTURE.search(name)
    return kind, capture.group(1) == "Begin" if capture else None


def work_kind(category: str) -> int:
    """Return whether a category of work is of kernels, copies or fills."""
    name = category.lower()
    return COPY if "memcpy" in name else FILL if "memset" in name else KERNEL


def label(name: str, args: Any, category: str) -> tuple[Label | None, int]:
    """Return what an operator, annotation or Python event stands for as a range (None: nothing), and its source."""
    if name.startswith(PREFIX):
        return parse(name), OURS
    if args and RANGE_ARG in args:
        return parse(args[RANGE_ARG]), OURS
    if category == PYTHON:
        return ((name[len(MODULE) :] or UNNAMED, None) if name.startswith(MODULE) else None), MODULES
    return (name or UNNAMED, None), (ANNOTATED if category == ANNOTATION else ASKED)


def parse(name: str) -> Label:
    """Split `lp:<layer>#<call>|<phase>`; a part that is missing is left out."""
    text = name[len(PREFIX) :]
    body, bar, last = text.rpartition("|")
    phase = Phase(last) if bar and last in set(Phase) else None
    body = body if phase is not None else text
    layer, mark, call = body.rpartition("#")
    return (layer if mark and call.isdigit() else body), phase


def _times(event: Any) -> tuple[float, float]:
    return float(event["ts"]), float(event.get("dur") or 0.0)


def correlation(event: Any) -> int:
    """Return the id that ties a launch to what it launched, NO_CORRELATION where there is none."""
    value = (event.get("args") or {}).get("correlation")
    if value is None:
        return NO_CORRELATION
    number = int(value)
    return number if 0 <= number < 1 << 63 else NO_CORRELATION
