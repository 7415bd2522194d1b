"""Profiler trace to time per layer: every kernel goes to the layer that launched it. Pure, no torch.

A kernel runs when the GPU gets to it, often long after its layer returned, so overlap in time says nothing. What
holds is the chain that CUPTI records: the kernel's correlation id names the call that launched it, and the launch lies,
on its own thread, inside the range that the layer's hook had open. The innermost such range gets the kernel. What has
no such chain goes to a named bucket, so that layers + buckets = total, exactly, in whole nanoseconds.

A trace without GPU work is read the same way with operators in place of kernels: each moment that a thread spends in an
operator goes to the innermost range open there and then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerprof.errors import SelectorError, nearest
from layerprof.trace import intervals, launches
from layerprof.trace.attribution import BUCKETS, GRAPH, NO_LAUNCH, OUTSIDE, Attribution, Row, heaviest, merged, total
from layerprof.trace.events import OURS, Columns, Label, Reader
from layerprof.trace.file import TraceFile
from layerprof.trace.intervals import NOWHERE, Ints
from layerprof.trace.launches import Launches

__all__ = ["BUCKETS", "GRAPH", "NO_LAUNCH", "OUTSIDE", "Attribution", "Row", "attribute", "merged", "total"]


def attribute(trace: str | Path | Iterable[dict[str, Any]], *, layers: Sequence[str] | None = None) -> Attribution:
    """Attribute a trace file's (or given events') work to the ranges in it.

    Ranges are those of our hooks; in a trace without them, every `record_function` range and every module that
    `with_stack` recorded. `layers` (names, or patterns with `*`) takes ranges by name instead, operators too.

    Raises TraceError for a file that cannot be read, SelectorError when `layers` matches no range.
    """
    reader = Reader(layers)
    if isinstance(trace, str | Path):
        for events in TraceFile(trace):
            reader.read(events)
    else:
        reader.read(trace)
    if layers is not None and not len(reader.columns.ranges.ts):
        raise _no_match(layers, reader.offered)
    return _attribute(reader.columns)


def _no_match(layers: Sequence[str], offered: set[str]) -> SelectorError:
    near = sorted({name for want in layers for name in nearest(want, offered, most=3, cutoff=0.3)})
    known = near or sorted(offered)[:5]
    return SelectorError(
        f"No range of the trace is called {' or '.join(layers)}.",
        f"It has {', '.join(known)}." if known else "It has no named ranges at all; leave the names out.",
    )


@dataclass(frozen=True, slots=True)
class _Ranges:
    start: Ints
    end: Ints
    thread: Ints
    label: Ints
    labels: list[Label]
    order: Ints

    def of(self, thread: int) -> Ints:
        """Ranges of one thread, outer before inner."""
        mine: Ints = self.order[self.thread[self.order] == thread]
        return mine


@dataclass(frozen=True, slots=True)
class _Work:
    """Pieces of work: when each ran, its name, where it was launched (thread, moment), and in which range or bucket."""

    start: Ints
    end: Ints
    name: Ints
    thread: Ints
    moment: Ints
    place: Ints
    names: list[str]


_BUCKET_PLACE = {OUTSIDE: NOWHERE, NO_LAUNCH: -2, GRAPH: -3}


def _attribute(columns: Columns) -> Attribution:
    ranges, bad_ranges = _ranges(columns)
    on_gpu = len(columns.work.ts) > 0
    work, bad_work, seen = _gpu_work(columns, ranges)
    if not on_gpu:
        work, bad_operators = _cpu_work(columns, ranges)
        bad_work += bad_operators
    length = work.end - work.start
    return Attribution(
        device="cuda" if on_gpu else "cpu",
        rows=tuple(_rows(ranges, work, seen)),
        buckets_ns={name: int(length[work.place == place].sum()) for name, place in _BUCKET_PLACE.items()},
        bucket_top={name: _top(work, work.place == place) for name, place in _BUCKET_PLACE.items()},
        total_ns=int(length.sum()),
        events=columns.events,
        skipped=columns.skipped + bad_ranges + bad_work,
        launches=seen.counts.made,
        launched_not_recorded=len(seen.counts.lost),
        launched_not_recorded_may_be_ns=seen.may_be_ns,
        graphs_not_recorded=seen.counts.lost_graphs,
        captured=seen.counts.captured,
        orphans=int((work.place == _BUCKET_PLACE[NO_LAUNCH]).sum()),
        warm_up_launches=seen.counts.warm_up,
        warm_up_lost=seen.counts.warm_up_lost,
    )


def _ranges(columns: Columns) -> tuple[_Ranges, int]:
    (start, end, thread, label, source), bad = columns.ranges.columns()
    if (source == OURS).any():
        start, end, thread, label = (column[source == OURS] for column in (start, end, thread, label))
    labels: list[Label] = columns.labels.listed()
    # Of two ranges with the same times the one with the longer name is inside: a submodule's name extends its holder's.
    ranking = sorted(range(len(labels)), key=lambda i: (len(labels[i][0]), labels[i][0], labels[i][1] or ""))
    rank = np.empty(len(labels), np.int64)
    rank[ranking] = np.arange(len(labels))
    order = np.lexsort((rank[label], -end, start)) if len(start) else np.zeros(0, np.int64)
    return _Ranges(start, end, thread, label, labels, order), bad


def _gpu_work(columns: Columns, ranges: _Ranges) -> tuple[_Work, int, _Seen]:
    (start, end, name, correlation), bad = columns.work.columns()
    made = launches.read(columns)
    inside = np.full(len(made.start), NOWHERE, np.int64)
    for thread in np.unique(made.thread):
        here = np.flatnonzero(made.thread == thread)
        inside[here] = _inside(ranges, int(thread), made.start[here])
    launch = launches.of_work(made, columns, correlation, start)
    seen = launch >= 0
    at = np.where(seen, launch, 0)
    known = _Seen.of(made, columns, ranges, inside, launch, end - start)
    place = np.full(len(start), _BUCKET_PLACE[NO_LAUNCH], np.int64)
    thread, moment = np.full(len(start), -1, np.int64), np.zeros(len(start), np.int64)
    kept = np.ones(len(start), bool)
    if len(made.start):
        place = np.where(seen & made.by_graph[at], _BUCKET_PLACE[GRAPH], np.where(seen, inside[at], place))
        thread, moment = np.where(seen, made.thread[at], -1), made.start[at]
        kept = ~(seen & made.warm_up[at])
    start, end, name, thread, moment, place = (it[kept] for it in (start, end, name, thread, moment, place))
    work = _Work(start, end, name, thread, moment, place, columns.names.listed())
    return work, bad + made.bad, known


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the trace shows of launches: how many, how many without a record, and what these may come to.

    `by_label` counts those without a record by the innermost range around them.
    """

    counts: launches.Counts
    by_label: Ints
    may_be_ns: int | None

    @classmethod
    def of(
        cls, made: Launches, columns: Columns, ranges: _Ranges, inside: Ints, launch_of_work: Ints, length: Ints
    ) -> _Seen:
        counts = launches.count(made, columns, launch_of_work)
        label = np.full(len(inside), NOWHERE, np.int64)
        label[inside >= 0] = ranges.label[inside[inside >= 0]]
        lost = label[counts.lost]
        by_label = np.bincount(lost[lost >= 0], minlength=len(ranges.labels))
        return cls(counts, by_label, launches.may_be_ns(made, counts, launch_of_work, length, label))


def _inside(ranges: _Ranges, thread: int, moments: Ints) -> Ints:
    times, inside = intervals.innermost(ranges.start, ranges.end, ranges.of(thread))
    return intervals.at(moments, times, inside)


def _cpu_work(columns: Columns, ranges: _Ranges) -> tuple[_Work, int]:
    """Cut each thread's time in operators where the innermost operator or range changes."""
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
    return _Work(begin, finish, called, where, begin, place, names), bad


def _rows(ranges: _Ranges, work: _Work, seen: _Seen) -> Iterator[Row]:
    length = work.end - work.start
    own = work.place >= 0
    label_of = ranges.label[work.place[own]]
    count = len(ranges.labels)
    self_ns = np.zeros(count, np.int64)
    np.add.at(self_ns, label_of, length[own])
    host_self = _host_self(ranges)
    kernels = np.bincount(label_of, minlength=count)
    tops = _tops(work, own, label_of)
    normal = _Slices(work, work.place >= NOWHERE)
    graphs = _Slices(work, work.place == _BUCKET_PLACE[GRAPH])
    members = np.argsort(ranges.label, kind="stable")
    bounds = np.searchsorted(ranges.label[members], np.arange(count + 1))
    first = [int(ranges.start[members[a:b]].min()) if b > a else 0 for a, b in pairwise(bounds.tolist())]
    for label in sorted(range(count), key=lambda i: (first[i], ranges.labels[i][0], ranges.labels[i][1] or "")):
        mine = members[bounds[label] : bounds[label + 1]]
        if not len(mine):
            continue
        name, phase = ranges.labels[label]
        inside = normal.inside(ranges, mine)
        yield Row(
            name=name,
            phase=phase,
            calls=len(mine),
            self_ns=int(self_ns[label]),
            inclusive_ns=inside.total,
            union_ns=inside.union,
            span_ns=inside.span,
            host_ns=inside.host,
            host_self_ns=int(host_self[label]),
            graph_ns=graphs.inside(ranges, mine).total,
            kernels=int(kernels[label]),
            top=tops.get(label, ()),
            not_recorded=int(seen.by_label[label]),
        )


def _host_self(ranges: _Ranges) -> Ints:
    """Return for each label the time, over all threads, in which a range of that label was the innermost."""
    spent = np.zeros(len(ranges.labels), np.int64)
    for thread in np.unique(ranges.thread):
        times, inside = intervals.innermost(ranges.start, ranges.end, ranges.of(int(thread)))
        length, holder = np.diff(times), inside[:-1]
        np.add.at(spent, ranges.label[holder[holder != NOWHERE]], length[holder != NOWHERE])
    return spent


@dataclass(slots=True)
class _Inside:
    total: int = 0
    union: int = 0
    span: int = 0
    host: int = 0


class _Slices:
    """Pieces of work in the order of their launches, thread by thread, so that a range's work is a slice."""

    def __init__(self, work: _Work, which: NDArray[np.bool_]) -> None:
        self._threads: dict[int, tuple[Ints, Ints, Ints, Ints]] = {}
        chosen = np.flatnonzero(which)
        if not len(chosen):
            return
        chosen = chosen[np.lexsort((work.moment[chosen], work.thread[chosen]))]
        threads, firsts = np.unique(work.thread[chosen], return_index=True)
        for thread, here in zip(threads, np.split(chosen, firsts[1:]), strict=True):
            length = np.r_[0, np.cumsum(work.end[here] - work.start[here])]
            self._threads[int(thread)] = work.moment[here], work.start[here], work.end[here], length

    def inside(self, ranges: _Ranges, mine: Ints) -> _Inside:
        """Sum up what was launched inside the given ranges; where they overlap or nest, once."""
        result = _Inside()
        starts: list[Ints] = []
        ends: list[Ints] = []
        for thread in np.unique(ranges.thread[mine]):
            here = mine[ranges.thread[mine] == thread]
            begin, finish = intervals.merged(ranges.start[here], ranges.end[here])
            result.host += int((finish - begin).sum())
            if int(thread) not in self._threads:
                continue
            moments, start, end, length = self._threads[int(thread)]
            low, high = np.searchsorted(moments, begin), np.searchsorted(moments, finish)
            low, high = low[high > low], high[high > low]
            result.total += int((length[high] - length[low]).sum())
            if len(low):
                picked = _concatenated(low, high)
                starts.append(start[picked])
                ends.append(end[picked])
                runs = np.r_[0, np.cumsum(high - low)[:-1]]
                span = np.maximum.reduceat(ends[-1], runs) - np.minimum.reduceat(starts[-1], runs)
                result.span += int(span.sum())
        if starts:
            result.union = intervals.covered(np.concatenate(starts), np.concatenate(ends))
        return result


def _concatenated(low: Ints, high: Ints) -> Ints:
    """Return `low[0] .. high[0] - 1, low[1] .. high[1] - 1, ...`."""
    sizes = high - low
    offsets: Ints = low - np.r_[0, np.cumsum(sizes)[:-1]]
    return np.arange(int(sizes.sum()), dtype=np.int64) + np.repeat(offsets, sizes)


def _tops(work: _Work, own: NDArray[np.bool_], label_of: Ints) -> dict[int, tuple[tuple[str, int], ...]]:
    """Return the heaviest own kernels of each label."""
    codes, where = np.unique(label_of * len(work.names) + work.name[own], return_inverse=True)
    totals = np.zeros(len(codes), np.int64)
    np.add.at(totals, where, (work.end - work.start)[own])
    found: dict[int, list[tuple[str, int]]] = {}
    for code, spent in zip(codes.tolist(), totals.tolist(), strict=True):
        label, name = divmod(code, len(work.names))
        found.setdefault(label, []).append((work.names[name], spent))
    return {label: heaviest(items) for label, items in found.items()}


def _top(work: _Work, which: NDArray[np.bool_]) -> tuple[tuple[str, int], ...]:
    return _tops(work, which, np.zeros(int(which.sum()), np.int64)).get(0, ())
