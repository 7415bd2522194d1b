"""Captures of CUDA graphs: what was launched in each, in order, and in which range. Pure numpy.

A launch that is captured runs nothing; it becomes a node of the graph, and runs in each of its replays. The ranges that
were open at that launch say whose work the node is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from layerprof.trace import launches
from layerprof.trace.attribution import RowPhase
from layerprof.trace.events import COPY, FILL, GRAPH_LAUNCH, KERNEL_LAUNCH, LAUNCHING, NO_NAME, Columns
from layerprof.trace.intervals import NOWHERE, Ints
from layerprof.trace.launches import LAST, Launches
from layerprof.trace.step_names import captured_size, size_in_file
from layerprof.trace.work import LaunchesSeen, Ranges, innermost

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
    """Return the captures of a trace in the order in which they began.

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
    found = []
    for which in np.unique(number[node & (number >= 0)]).tolist():
        taken = np.flatnonzero(node & (number == which))
        taken = taken[np.argsort(made.start[taken], kind="stable")]
        if (made.kind[taken] == KERNEL_LAUNCH).any():
            found.append(_capture(columns, made, taken, ranges, source, int(ended[which])))
    return sorted(found, key=lambda capture: capture.ended)


def _capture(columns: Columns, made: Launches, taken: Ints, ranges: Ranges, source: str, ended: int) -> Capture:
    names = columns.names.listed()
    kernels = made.kind[taken] == KERNEL_LAUNCH
    told = bool((made.name[taken][kernels] != NO_NAME).all())
    called = tuple(names[name] if name != NO_NAME else "" for name in made.name[taken].tolist()) if told else None
    title = _title(columns, made, taken)
    size = captured_size(title) if title else size_in_file(source)
    return Capture(source, title, size, made.kind[taken], called, _scene(made, taken, ranges), ended)


def _title(columns: Columns, made: Launches, taken: Ints) -> str:
    """Return the annotation around a capture that says that it is one; empty where there is none."""
    (start, end, thread, name), _ = columns.servers.columns()
    names = columns.names.listed()
    around = (start <= made.start[taken[0]]) & (end > made.start[taken[-1]]) & (thread == made.thread[taken[0]])
    titles = (names[name[place]] for place in np.flatnonzero(around).tolist())
    return next((title for title in titles if captured_size(title) is not None), "")


def _scene(made: Launches, taken: Ints, ranges: Ranges) -> Scene:
    """Return the ranges that hold some of a capture's launches, without those that only say that it is a capture."""
    first, last = int(made.start[taken].min()), int(made.start[taken].max())
    threads = np.unique(made.thread[taken])
    no_title = np.array([captured_size(name) is None for name, *_ in ranges.labels] or [True])
    kept: list[Ints] = []
    inner = np.full(len(taken), NOWHERE, np.int64)
    for thread in threads.tolist():
        here = made.thread[taken] == thread
        moments = made.start[taken][here]
        mine = ranges.of(thread)
        mine = mine[no_title[ranges.label[mine]]]
        holds = np.searchsorted(moments, ranges.end[mine]) > np.searchsorted(moments, ranges.start[mine])
        kept.append(mine[holds])
        inner[here] = innermost(ranges, thread, moments)
    chosen = np.concatenate(kept) if kept else np.zeros(0, np.int64)
    place = np.full(len(ranges.start) + 1, NOWHERE)
    place[chosen] = np.arange(len(chosen))
    return Scene(
        np.clip(ranges.start[chosen] - first, 0, None),
        np.clip(ranges.end[chosen] - first, None, last - first + 1),
        np.searchsorted(threads, ranges.thread[chosen]),
        tuple(ranges.labels[label][:2] for label in ranges.label[chosen].tolist()),
        place[inner],
        made.start[taken] - first,
        np.searchsorted(threads, made.thread[taken]),
    )
