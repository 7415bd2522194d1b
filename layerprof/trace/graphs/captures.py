"""Captures of CUDA graphs: what was launched in each, in order, and in which range. Pure numpy.

A launch that is captured runs nothing; it becomes a node of the graph, and runs in each of its replays. The ranges that
were open at that launch say whose work the node is.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from layerprof.trace import intervals, launches
from layerprof.trace.attribution import RowPhase
from layerprof.trace.events import COPY, FILL, GRAPH_LAUNCH, KERNEL_LAUNCH, LAUNCHING, NO_NAME, Columns
from layerprof.trace.intervals import NOWHERE, Ints
from layerprof.trace.launches import LAST, Launches
from layerprof.trace.step_names import captured_size, size_in_file
from layerprof.trace.work import LaunchesSeen, Ranges

NODES = (KERNEL_LAUNCH, COPY, FILL)
"""Calls that become nodes of a graph."""


@dataclass(frozen=True, slots=True)
class Scene:
    """The ranges around a capture's launches, outer ones before inner: when each begins and ends, and its label.

    Times are nanoseconds from the capture's first launch, cut to what lies between it and the last; `thread` counts
    the threads that launched. `inner` is for each launch the innermost range, `moment` and `where` its time and thread.
    """

    start: Ints
    end: Ints
    thread: Ints
    labels: tuple[tuple[str, RowPhase], ...]
    inner: Ints
    moment: Ints
    where: Ints

    @property
    def length(self) -> int:
        """How long it is, with room after the last launch."""
        return int(self.moment.max(initial=0)) + 2


@dataclass(frozen=True, slots=True)
class Capture:
    """What one capture took: for each launch its kind and, where the trace tells (AMD's do), its kernel's name.

    `source` is the trace's name, `title` the annotation around it that says so, `size` the rows that it is for,
    `ended` when it ended on the clock of its trace.
    """

    source: str
    title: str
    size: int | None
    kinds: Ints
    names: tuple[str, ...] | None
    scene: Scene
    ended: int

    @property
    def told(self) -> str:
        """How it is called in reports."""
        return f"{self.title} in {self.source}" if self.title else self.source

    @property
    def labels(self) -> tuple[str, ...]:
        """For each launch the name of the innermost range; none is empty."""
        names = [name for name, _ in self.scene.labels]
        return tuple(names[place] if place >= 0 else "" for place in self.scene.inner.tolist())


def find(columns: Columns, ranges: Ranges, seen: LaunchesSeen, launch_of_work: Ints, source: str) -> list[Capture]:
    """Return the captures of a trace in the order in which they ended.

    In a trace that shows neither begin nor end of one, all launches without work are taken for one capture, unless
    some launch of a graph is there, which would be a trace of replays with work missing.
    """
    made = seen.made
    ran = np.zeros(len(made.start), bool)
    ran[launch_of_work[launch_of_work >= 0]] = True
    node = np.isin(made.kind, NODES) & ~ran & ~made.warm_up
    node &= ~launches.handed_on(made, node & (made.kind == KERNEL_LAUNCH), np.isin(made.kind, LAUNCHING) & ran)
    number, ended = launches.captures(made, columns, np.isin(made.kind, LAUNCHING) & ran)
    if not len(ended) and not (made.kind == GRAPH_LAUNCH).any():
        number, ended = np.zeros(len(made.start), np.int64), np.array([LAST])
    every = np.flatnonzero(node & (number >= 0))
    every = every[np.lexsort((made.start[every], number[every]))]
    numbers, firsts = np.unique(number[every], return_index=True)
    names, around = columns.names.listed(), _Around(ranges)
    titles = [title for title in _annotations(columns, names) if captured_size(title.name) is not None]
    found = []
    for which, (begin, end) in zip(numbers.tolist(), pairwise([*firsts.tolist(), len(every)]), strict=True):
        taken = every[begin:end]
        if (made.kind[taken] == KERNEL_LAUNCH).any():
            title = _title(titles, made, taken)
            found.append(_capture(names, made, taken, around, source, title, int(ended[which])))
    return sorted(found, key=lambda capture: capture.ended)


def _capture(
    names: Sequence[str], made: Launches, taken: Ints, around: _Around, source: str, title: str, ended: int
) -> Capture:
    kernels = made.kind[taken] == KERNEL_LAUNCH
    told = bool((made.name[taken][kernels] != NO_NAME).all())
    called = tuple(names[name] if name != NO_NAME else "" for name in made.name[taken].tolist()) if told else None
    size = captured_size(title) if title else size_in_file(source)
    return Capture(source, title, size, made.kind[taken], called, _scene(made, taken, around), ended)


class _Annotation(NamedTuple):
    start: int
    end: int
    thread: int
    name: str


def _annotations(columns: Columns, names: Sequence[str]) -> list[_Annotation]:
    """Return a server's annotations, outer ones before inner."""
    (start, end, thread, name), _ = columns.servers.columns()
    every = zip(start.tolist(), end.tolist(), thread.tolist(), name.tolist(), strict=True)
    found = (_Annotation(begin, finish, where, names[called]) for begin, finish, where, called in every)
    return sorted(found, key=lambda annotation: (annotation.start, -annotation.end, annotation.name))


def _title(titles: Sequence[_Annotation], made: Launches, taken: Ints) -> str:
    """Return the annotation around a capture that says that it is one; empty where there is none."""
    first, last, thread = int(made.start[taken[0]]), int(made.start[taken[-1]]), int(made.thread[taken[0]])
    upto = bisect_right(titles, first, key=lambda title: title.start)
    around = (title.name for title in titles[:upto] if title.end > last and title.thread == thread)
    return next(around, "")


class _Around:
    """Finds the ranges around a capture's launches, without those that only say that it is a capture."""

    def __init__(self, ranges: Ranges) -> None:
        self.ranges = ranges
        self._no_title = np.array([captured_size(name) is None for name, *_ in ranges.labels] or [True])
        self._known: dict[int, tuple[Ints, Ints, Ints]] = {}

    def holding(self, thread: int, moments: Ints) -> Ints:
        """Return the ranges of a thread that hold some of the moments, which are in order; outer ones before inner."""
        ranges = self.ranges
        if thread not in self._known:
            mine = ranges.of(thread)
            mine = mine[self._no_title[ranges.label[mine]]]
            self._known[thread] = mine, ranges.start[mine], np.maximum.accumulate(ranges.end[mine])
        mine, starts, reach = self._known[thread]
        able = mine[np.searchsorted(reach, moments[0], "right") : np.searchsorted(starts, moments[-1], "right")]
        holds = np.searchsorted(moments, ranges.end[able]) > np.searchsorted(moments, ranges.start[able])
        held: Ints = able[holds]
        return held


def _scene(made: Launches, taken: Ints, around: _Around) -> Scene:
    """Return the ranges that hold some of a capture's launches."""
    ranges = around.ranges
    first, last = int(made.start[taken].min()), int(made.start[taken].max())
    threads = np.unique(made.thread[taken])
    kept: list[Ints] = []
    inner = np.full(len(taken), NOWHERE, np.int64)
    for thread in threads.tolist():
        here = made.thread[taken] == thread
        moments = made.start[taken][here]
        mine = around.holding(thread, moments)
        # Those that hold some, outer before inner: the innermost of them is the innermost of all.
        times, inside = intervals.innermost(ranges.start[mine], ranges.end[mine], np.arange(len(mine)))
        place = intervals.at(moments, times, inside)
        inner[here] = np.where(place == NOWHERE, NOWHERE, place + sum(map(len, kept)))
        kept.append(mine)
    chosen = np.concatenate(kept)
    return Scene(
        np.clip(ranges.start[chosen] - first, 0, None),
        np.clip(ranges.end[chosen] - first, None, last - first + 1),
        np.searchsorted(threads, ranges.thread[chosen]),
        tuple(ranges.labels[label][:2] for label in ranges.label[chosen].tolist()),
        inner,
        made.start[taken] - first,
        np.searchsorted(threads, made.thread[taken]),
    )
