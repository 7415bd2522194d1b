"""Launches of a trace: which one put each kernel on the GPU, and which ones have no kernel to show for it. Pure numpy.

A launch without a record has one of three reasons. It was captured into a CUDA graph, and its kernel runs when the
graph is replayed. It was made only for the profiler to lose (`hooks/recording.py`). Or the profiler lost it: CUPTI
drops the first kernel records of a session (pytorch issue 192021), buffers overflow, a recording ends too early. What
was lost is counted, since a total that shrinks in silence looks like a faster model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from layerprof.trace import intervals
from layerprof.trace.events import GRAPH_LAUNCH, LAUNCHING, NO_CORRELATION, Columns
from layerprof.trace.intervals import Ints

Mask = NDArray[np.bool_]

NOT_KNOWN = -1

FIRST, LAST = np.iinfo(np.int64).min, np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Launches:
    """Calls of the driver, a row each: times in nanoseconds, thread, correlation id, kind; `bad` could not be read.

    `name` is that of the kernel that it launches, NO_NAME where the trace does not tell. `warm_up` marks those that
    were made only for the profiler to lose.
    """

    start: Ints
    end: Ints
    thread: Ints
    correlation: Ints
    kind: Ints
    name: Ints
    warm_up: Mask
    bad: int

    @property
    def by_graph(self) -> Mask:
        """Which of them launch a CUDA graph."""
        graphs: Mask = self.kind == GRAPH_LAUNCH
        return graphs


@dataclass(frozen=True, slots=True)
class Counts:
    """How many launches of kernels and graphs a trace shows, and how many of them have no record of their work.

    `lost` are the positions of those that the profiler lost, `lost_graphs` counts the whole graphs among them.
    `captured` counts those that went into a graph, `warm_up` those that were made to be lost, and `warm_up_lost` how
    many of these were.
    """

    made: int
    lost: Ints
    lost_graphs: int
    captured: int
    warm_up: int
    warm_up_lost: int


def read(columns: Columns) -> Launches:
    """Return the launches of a trace."""
    (start, end, thread, correlation, kind, name), bad = columns.launches.columns()
    (begin, finish, where), _ = columns.warm_ups.columns()
    warm_up = np.zeros(len(start), bool)
    for number in np.unique(where):
        mine, here = where == number, thread == number
        warm_up[here] = _within(start[here], begin[mine], finish[mine])
    return Launches(start, end, thread, correlation, kind, name, warm_up, bad)


def of_work(launches: Launches, columns: Columns, wanted: Ints, started: Ints, stream: Ints) -> tuple[Ints, int]:
    """Return for each piece of work (correlation id, start, stream) the position of its launch, or -1.

    A correlation id that launches of several processes bear (traces of several ranks in one file) goes to the process
    of the device (`_process_of`). Of several launches there it goes to the last before the kernel started, else to the
    first of all. Returned, too, is for how many pieces the process is a guess.
    """
    order = np.lexsort((_ranks(columns)[launches.thread], launches.start, launches.correlation))
    ids, times = launches.correlation[order], launches.start[order]
    first, last = np.searchsorted(ids, wanted, "left"), np.searchsorted(ids, wanted, "right")
    number = processes(columns)
    process, device = number[launches.thread][order], number[stream]
    alone = np.flatnonzero(last - first == 1)
    owner = _process_of(columns, device, process, (device[alone], process[first[alone]]))
    chosen, unsure = first.copy(), 0
    for kernel in np.flatnonzero((last - first > 1) & (wanted != NO_CORRELATION)).tolist():
        able = np.arange(first[kernel], last[kernel])
        if (process[able] != process[able[0]]).any():
            mine, known = owner.get(int(device[kernel]), (NOT_KNOWN, False))
            unsure += not known
            able = able[process[able] == mine] if (process[able] == mine).any() else able
        before = np.searchsorted(times[able], started[kernel], "right")
        chosen[kernel] = able[max(int(before) - 1, 0)]
    found = (last > first) & (wanted != NO_CORRELATION)
    result = np.full(len(wanted), -1, np.int64)
    result[found] = order[chosen[found]]
    return result, unsure


def _process_of(columns: Columns, device: Ints, process: Ints, seen: tuple[Ints, Ints]) -> dict[int, tuple[int, bool]]:
    """Return for devices the process that launches their work, and whether that is known.

    Known is it by work whose id launches of one process alone bear: `seen`, its device and that process. Of the others,
    where there are as many devices as processes, the first device is taken for the first's; a single one is known, too.
    """
    votes: dict[int, Counter[int]] = {}
    for where, whose in zip(*(column.tolist() for column in seen), strict=True):
        votes.setdefault(where, Counter())[whose] += 1
    owner = {where: (found.most_common(1)[0][0], True) for where, found in votes.items()}
    owned = {whose for whose, _ in owner.values()}
    pids = list(dict.fromkeys(pid for pid, _ in columns.threads.listed()))
    devices, able = (
        sorted(set(numbers.tolist()) - taken, key=lambda number: _by_number(pids[number]))
        for numbers, taken in ((device, set(owner)), (process, owned))
    )
    if len(devices) == len(able):
        owner |= {where: (able[n], bool(owner) and len(able) == 1) for n, where in enumerate(devices)}
    return owner


def _by_number(pid: object) -> tuple[bool, float, str]:
    """Return what processes are sorted by: numbers by their size, and behind them all else by how it is written."""
    return (False, float(pid), "") if isinstance(pid, int | float) else (True, 0.0, repr(pid))


def _ranks(columns: Columns) -> Ints:
    """Rank of each thread by its name, so that nothing depends on the order of events."""
    threads = [repr(thread) for thread in columns.threads.listed()]
    rank = np.empty(len(threads), np.int64)
    rank[sorted(range(len(threads)), key=threads.__getitem__)] = np.arange(len(threads))
    return rank


def count(launches: Launches, columns: Columns, launch_of_work: Ints) -> Counts:
    """Return how many launches there are, and which have no record of their work.

    Counted are launches of kernels and graphs: an empty fill or copy is called like a full one and runs nothing. A call
    that only hands on to another one (a driver's launch inside a runtime's) is that one: together they count once.
    """
    recorded = np.zeros(len(launches.start), bool)
    recorded[launch_of_work[launch_of_work >= 0]] = True
    launching = np.isin(launches.kind, LAUNCHING)
    missing = launching & ~recorded
    missing &= ~handed_on(launches, missing, launching & recorded)
    taken, _ = captures(launches, columns, launching & recorded)
    captured = missing & ~launches.warm_up & (taken >= 0)
    lost = missing & ~launches.warm_up & ~captured
    lost &= ~_untied(lost, launches, columns)
    return Counts(
        made=int(((launching & recorded & ~launches.warm_up) | lost).sum()),
        lost=np.flatnonzero(lost),
        lost_graphs=int((lost & launches.by_graph).sum()),
        captured=int(captured.sum()),
        warm_up=int((launching & launches.warm_up).sum()),
        warm_up_lost=int((missing & launches.warm_up).sum()),
    )


def _untied(lost: Mask, launches: Launches, columns: Columns) -> Mask:
    """Tell which launches may have a record that nothing ties to them: as many as there is work without any id."""
    (_, _, _, correlation, *_), _ = columns.work.columns()
    untied = int((correlation == NO_CORRELATION).sum())
    result = np.zeros(len(lost), bool)
    result[np.flatnonzero(lost)[np.argsort(launches.start[lost], kind="stable")][::-1][:untied]] = True
    return result


def handed_on(launches: Launches, missing: Mask, recorded: Mask) -> Mask:
    """Tell which launches without a record lie inside another launch, or have one with a record inside."""
    result = np.zeros(len(missing), bool)
    for number in np.unique(launches.thread[missing]):
        there = recorded & (launches.thread == number)
        here = np.flatnonzero(missing & (launches.thread == number))
        start, end = launches.start[here], launches.end[here]
        times = np.sort(launches.start[there])
        holds = np.searchsorted(times, end, "left") > np.searchsorted(times, start, "left")
        inside = _within(start, launches.start[there], launches.end[there])
        order = np.argsort(start, kind="stable")
        inner = np.zeros(len(here), bool)
        inner[order[1:]] = start[order[1:]] < np.maximum.accumulate(end[order])[:-1]
        result[here] = holds | inside | inner
    return result


def captures(launches: Launches, columns: Columns, recorded: Mask) -> tuple[Ints, Ints]:
    """Return for each launch the number of the capture during which it was made, -1 for none, and when each ended.

    `recorded` are the launches of which the trace has work: they ran at once. A capture takes what other threads launch
    into its stream, too, as autograd's do. One whose beginning was not recorded began before all; one whose end was not
    goes on until its thread launches something that runs at once.
    """
    (start, end, thread, begins), _ = columns.captures.columns()
    result = np.full(len(launches.start), -1, np.int64)
    ends: list[Ints] = []
    if not len(start):
        return result, np.zeros(0, np.int64)
    process = processes(columns)
    for number in np.unique(process[thread]):
        mine, here = np.flatnonzero(process[thread] == number), process[launches.thread] == number
        moments = [(int(start[i]), 1) if begins[i] else (int(end[i]), -1) for i in mine]
        opened, closed = _open(sorted(moments))
        if closed[-1] == LAST:
            runs = recorded & np.isin(launches.thread, thread[mine]) & (launches.start > opened[-1])
            closed[-1] = launches.start[runs].min() if runs.any() else LAST
        place = np.searchsorted(opened, launches.start, "right") - 1
        inside = here & (place >= 0) & (launches.start < closed[np.maximum(place, 0)])
        result[inside] = place[inside] + sum(map(len, ends))
        ends.append(closed)
    return result, np.concatenate(ends)


def processes(columns: Columns) -> Ints:
    """Return a number for the process of each thread; of a stream, for its device."""
    numbers: dict[object, int] = {}
    pids = [pid for pid, _ in columns.threads.listed()]
    return np.array([numbers.setdefault(pid, len(numbers)) for pid in pids], np.int64)


def _open(moments: Sequence[tuple[int, int]]) -> tuple[Ints, Ints]:
    """Return from when until when at least one capture is open, given when each begins (+1) and ends (-1)."""
    depth = max(0, -min(0, *np.cumsum([step for _, step in moments]).tolist()))  # those that were open before
    opened, closed = [FIRST] if depth else [], []
    for moment, step in moments:
        depth += step
        if step > 0 and depth == 1:
            opened.append(moment)
        elif depth == 0:
            closed.append(moment)
    closed += [LAST] * (len(opened) - len(closed))
    return np.array(opened, np.int64), np.array(closed, np.int64)


def _within(moments: Ints, starts: Ints, ends: Ints) -> Mask:
    """Tell which moments lie in one of the intervals."""
    if not len(starts):
        return np.zeros(len(moments), bool)
    starts, ends = intervals.merged(starts, ends)
    place = np.searchsorted(starts, moments, "right") - 1
    inside: Mask = (place >= 0) & (moments < ends[np.maximum(place, 0)])
    return inside


def may_be_ns(launches: Launches, counts: Counts, launch_of_work: Ints, length: Ints, label: Ints) -> int | None:
    """Return how long the lost work may have run: for each launch the mean of those of its kind with the same label.

    `length` is that of each piece of work, `label` that of each launch. Where none with its label was recorded, the
    mean of its kind in the whole trace; None where there is none of its kind at all.
    """
    seen = launch_of_work >= 0
    spent = np.bincount(launch_of_work[seen], length[seen], len(launches.start)).astype(np.float64)
    recorded = np.flatnonzero(np.bincount(launch_of_work[seen], minlength=len(launches.start)) * ~launches.warm_up)
    of_kind = _means(launches.kind, recorded, spent, counts.lost)
    place = launches.kind * (int(label.max(initial=0)) + 2) + label + 1
    alike = _means(place, recorded, spent, counts.lost)
    guesses = np.where(np.isnan(alike), of_kind, alike)
    return None if np.isnan(guesses).any() else round(float(guesses.sum()))


def _means(group: Ints, recorded: Ints, spent: NDArray[np.float64], wanted: Ints) -> NDArray[np.float64]:
    """Return for each wanted launch the mean of what the recorded ones of its group spent, NaN where there is none."""
    size = int(group.max(initial=0)) + 1
    total, many = np.bincount(group[recorded], spent[recorded], size), np.bincount(group[recorded], minlength=size)
    with np.errstate(invalid="ignore"):
        means = total / many
    chosen: NDArray[np.float64] = means[group[wanted]]
    return chosen
