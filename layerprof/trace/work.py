"""Columns of a trace -> the ranges in it, and pieces of work, each with the range or bucket that it belongs to."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from layerprof.trace import intervals, launches
from layerprof.trace.attribution import GRAPH, NO_LAUNCH, OUTSIDE, Key
from layerprof.trace.events import KERNEL, NO_CORRELATION, OURS, Columns
from layerprof.trace.intervals import NOWHERE, Ints
from layerprof.trace.launches import Launches, Mask
from layerprof.trace.steps import ServerSteps


@dataclass(frozen=True, slots=True)
class Ranges:
    """Calls of layers (or other ranges): times, thread and label of each; `order` has outer ones before inner.

    Those on threads from `unreal` on never were on any thread: they stand for a part of a CUDA graph's replay, in times
    of their own. `seen` is the moment of the launch that ran them, `holder` the range that it lay in; a real one's is
    its start, and NOWHERE.
    """

    start: Ints
    end: Ints
    thread: Ints
    label: Ints
    labels: list[Key]
    order: Ints
    seen: Ints
    holder: Ints
    unreal: int

    def of(self, thread: int) -> Ints:
        """Ranges of one thread, outer before inner."""
        mine: Ints = self.order[self.thread[self.order] == thread]
        return mine

    @property
    def is_real(self) -> Mask:
        """Which of them were on a thread."""
        real: Mask = self.thread < self.unreal
        return real


@dataclass(frozen=True, slots=True)
class Pieces:
    """Pieces of work: when each ran, its name, where it was launched (thread, moment), and in which range or bucket.

    `launch` is the position of its launch (NOWHERE: none seen), `node` its place in its CUDA graph where the trace
    tells, `kind` whether it is a kernel, a copy or a fill, and `stream` where it ran. `unreal_thread` and
    `unreal_moment` are where it belongs among the ranges that never were on a thread; NOWHERE for work in none.
    """

    start: Ints
    end: Ints
    name: Ints
    thread: Ints
    moment: Ints
    place: Ints
    names: list[str]
    launch: Ints
    node: Ints
    kind: Ints
    stream: Ints
    unreal_thread: Ints
    unreal_moment: Ints

    @property
    def length(self) -> Ints:
        """How long each ran, in nanoseconds."""
        return self.end - self.start

    def length_of(self, pieces: Ints) -> Ints:
        """Return how long some of them ran; of a few it costs as little as they are."""
        return self.end[pieces] - self.start[pieces]


PLACE_OF_BUCKET = {OUTSIDE: NOWHERE, NO_LAUNCH: -2, GRAPH: -3}
"""What stands as a piece's place where no range is it."""


def find_ranges(columns: Columns, steps: ServerSteps) -> tuple[Ranges, int]:
    """Return the ranges, ours alone where there are some, and how many could not be read.

    One without a phase of its own has that of the server's step in which it began.
    """
    (start, end, thread, label, source), bad = columns.ranges.columns()
    if (source == OURS).any():
        start, end, thread, label = (column[source == OURS] for column in (start, end, thread, label))
    names = columns.labels.listed()
    label, labels = steps.labelled(start, thread, label, names)
    order = outer_first(start, end, label, labels)
    unreal = len(columns.threads.numbers)
    return Ranges(start, end, thread, label, labels, order, start, np.full(len(start), NOWHERE), unreal), bad


def outer_first(start: Ints, end: Ints, label: Ints, labels: list[Key]) -> Ints:
    """Return ranges in an order that has outer ones before inner.

    Of two with the same times the one with the longer name is inside: a submodule's name extends its holder's.
    """
    ranking = sorted(range(len(labels)), key=lambda i: (len(labels[i][0]), labels[i][0], labels[i][1] or ""))
    rank = np.empty(len(labels), np.int64)
    rank[ranking] = np.arange(len(labels))
    return np.lexsort((rank[label], -end, start)) if len(start) else np.zeros(0, np.int64)


def gpu_work(columns: Columns, ranges: Ranges) -> tuple[Pieces, int, LaunchesSeen]:
    """Return what ran on a GPU by its launch, how many events could not be read, and what is seen of launches."""
    (start, end, name, correlation, node, kind, stream), bad = columns.work.columns()
    made = launches.read(columns)
    inside = np.full(len(made.start), NOWHERE, np.int64)
    for thread in np.unique(made.thread):
        here = np.flatnonzero(made.thread == thread)
        inside[here] = innermost(ranges, int(thread), made.start[here])
    launch, unsure = launches.of_work(made, columns, correlation, start, stream)
    seen = launch >= 0
    at = np.where(seen, launch, 0)
    known = replace(LaunchesSeen.of(made, columns, ranges, inside, launch, end - start), unsure=unsure)
    place = np.full(len(start), PLACE_OF_BUCKET[NO_LAUNCH], np.int64)
    thread, moment = np.full(len(start), -1, np.int64), np.zeros(len(start), np.int64)
    kept = np.ones(len(start), bool)
    if len(made.start):
        place = np.where(seen & made.by_graph[at], PLACE_OF_BUCKET[GRAPH], np.where(seen, inside[at], place))
        thread, moment = np.where(seen, made.thread[at], -1), made.start[at]
        kept = ~(seen & made.warm_up[at])
    nowhere = np.full(len(start), NOWHERE)
    found = (start, end, name, thread, moment, place, launch, node, kind, stream, nowhere, nowhere)
    start, end, name, thread, moment, place, *rest = (it[kept] for it in found)
    return Pieces(start, end, name, thread, moment, place, columns.names.listed(), *rest), bad + made.bad, known


@dataclass(frozen=True, slots=True)
class LaunchesSeen:
    """What the trace shows of launches: how many, how many without a record, and what these may come to.

    `made` are the launches and `inside` the innermost range around each. `by_label` counts those without a record by
    the range around them. `unsure` pieces of work have the id of launches in several processes.
    """

    made: Launches
    inside: Ints
    counts: launches.Counts
    by_label: Ints
    may_be_ns: int | None
    unsure: int = 0

    @classmethod
    def of(
        cls, made: Launches, columns: Columns, ranges: Ranges, inside: Ints, launch_of_work: Ints, length: Ints
    ) -> LaunchesSeen:
        """Count launches; `inside` is the range around each, `launch_of_work` and `length` are of the work."""
        counts = launches.count(made, columns, launch_of_work)
        label = np.full(len(inside), NOWHERE, np.int64)
        label[inside >= 0] = ranges.label[inside[inside >= 0]]
        lost = label[counts.lost]
        by_label = np.bincount(lost[lost >= 0], minlength=len(ranges.labels))
        may_be = launches.may_be_ns(made, counts, launch_of_work, length, label)
        return cls(made, inside, counts, by_label, may_be)


def innermost(ranges: Ranges, thread: int, moments: Ints) -> Ints:
    """Return the innermost range open on a thread at each moment; NOWHERE for none."""
    times, inside = intervals.innermost(ranges.start, ranges.end, ranges.of(thread))
    return intervals.at(moments, times, inside)


def cpu_work(columns: Columns, ranges: Ranges) -> tuple[Pieces, int]:
    """Cut each thread's time in operators where the innermost operator or range changes; count the unreadable."""
    (start, end, thread, name), bad = columns.operators.columns()
    names: list[str] = columns.names.listed()
    ranking = np.empty(len(names), np.int64)
    ranking[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
    order = np.lexsort((ranking[name], -end, start)) if len(start) else np.zeros(0, np.int64)
    pieces: list[tuple[Ints, Ints, Ints, Ints, Ints]] = []
    for number in np.unique(thread):
        times, inner = intervals.innermost(start, end, order[thread[order] == number])
        range_times, range_inner = intervals.innermost(ranges.start, ranges.end, ranges.of(int(number)))
        cuts = np.union1d(times, range_times)
        operator, place = intervals.at(cuts, times, inner)[:-1], intervals.at(cuts, range_times, range_inner)[:-1]
        busy = operator != NOWHERE
        begin, finish = cuts[:-1][busy], cuts[1:][busy]
        pieces.append((begin, finish, name[operator[busy]], np.full(len(begin), number), place[busy]))
    empty = np.zeros(0, np.int64)
    columns_of = [np.concatenate(parts) for parts in zip(*pieces, strict=True)] if pieces else [empty] * 5
    begin, finish, called, where, place = columns_of
    nowhere = np.full(len(begin), NOWHERE)
    no_id, kernel = np.full(len(begin), NO_CORRELATION), np.full(len(begin), KERNEL)
    rest = (nowhere, no_id, kernel, where, nowhere, nowhere)
    return Pieces(begin, finish, called, where, begin, place, names, *rest), bad
