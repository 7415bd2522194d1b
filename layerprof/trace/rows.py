"""Ranges and pieces of work -> rows: for each layer (or other range) and phase, what was launched inside it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from layerprof.trace import intervals
from layerprof.trace.attribution import GRAPH, Row, heaviest
from layerprof.trace.intervals import NOWHERE, Ints
from layerprof.trace.work import PLACE_OF_BUCKET, LaunchesSeen, Pieces, Ranges


def rows_of(ranges: Ranges, work: Pieces, seen: LaunchesSeen) -> list[Row]:
    """Return a row for each label, in the order of their first calls."""
    length = work.length
    own = work.place >= 0
    label_of = ranges.label[work.place[own]]
    count = len(ranges.labels)
    self_ns = np.zeros(count, np.int64)
    np.add.at(self_ns, label_of, length[own])
    host_self = _host_self(ranges)
    kernels = np.bincount(label_of, minlength=count)
    tops = _tops(work, own, label_of)
    inner = _Inner(ranges, work)
    lost = np.zeros(count, np.int64)
    lost[: len(seen.by_label)] = seen.by_label
    members, bounds = _members(ranges, inner.used)
    first = [_first(ranges, members[a:b]) for a, b in pairwise(bounds.tolist())]
    order = sorted(range(count), key=lambda i: (first[i], ranges.labels[i][0], ranges.labels[i][1] or ""))
    order = [label for label in order if bounds[label + 1] > bounds[label]]
    holders = _holders(ranges, members, bounds, {label: place for place, label in enumerate(order)})
    rows = []
    for label in order:
        mine = members[bounds[label] : bounds[label + 1]]
        name, phase, naming = ranges.labels[label]
        inside, graphs = inner.of(mine)
        rows.append(
            Row(
                name=name,
                phase=phase,
                calls=len(mine),
                self_ns=int(self_ns[label]),
                inclusive_ns=inside.total,
                union_ns=inside.union,
                span_ns=inside.span,
                host_ns=inside.host,
                host_self_ns=int(host_self[label]),
                graph_ns=graphs,
                kernels=int(kernels[label]),
                top=tops.get(label, ()),
                not_recorded=int(lost[label]),
                naming=naming,
                parent=holders.get(label),
            )
        )
    return rows


def _members(ranges: Ranges, used: NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """Return the ranges that are of use label by label, and where each label's begin."""
    members = np.argsort(ranges.label, kind="stable")
    members = members[used[members]]
    return members, np.searchsorted(ranges.label[members], np.arange(len(ranges.labels) + 1))


def _first(ranges: Ranges, mine: Ints) -> tuple[int, int]:
    """Return when the first of some ranges began: on the clock of the trace, then in the times of its own."""
    if not len(mine):
        return 0, 0
    seen = ranges.seen[mine]
    return int(seen.min()), int(ranges.start[mine][seen == seen.min()].min())


def _holders(ranges: Ranges, members: Ints, bounds: Ints, place: dict[int, int]) -> dict[int, int]:
    """Return for each label the place of the row whose calls hold most of its own; none for what mostly stands alone.

    A label within itself (a module that calls another of its name) is held by what holds the outermost.
    """
    held = _held_by(ranges)
    result: dict[int, int] = {}
    for label in place:
        above = held[members[bounds[label] : bounds[label + 1]]]
        labels = np.where(above >= 0, ranges.label[above], NOWHERE)
        labels = labels[labels != label]
        if len(labels):
            # Of those that hold as many, the first row.
            found, many = np.unique(labels, return_counts=True)
            often = [place.get(other, NOWHERE) for other in found[many == many.max()].tolist()]
            if min(often) != NOWHERE:
                result[label] = min(often)
    return _without_circles(result, place)


def _without_circles(result: dict[int, int], place: dict[int, int]) -> dict[int, int]:
    """Cut what stands within itself over others: two labels that hold each other as often."""
    at = {number: label for label, number in place.items()}
    for label in list(result):
        seen, above = {label}, label
        while above in result:
            above = at[result[above]]
            if above in seen:
                del result[label]
                break
            seen.add(above)
    return result


def _held_by(ranges: Ranges) -> Ints:
    """Return for each range the innermost one that was open when it began; NOWHERE for none."""
    held = ranges.holder.copy()
    for thread in np.unique(ranges.thread):
        mine = ranges.of(int(thread))
        stack: list[int] = []
        starts, ends = ranges.start[mine].tolist(), ranges.end[mine].tolist()
        until: list[int] = []
        for number, start, end in zip(mine.tolist(), starts, ends, strict=True):
            while until and until[-1] <= start:
                stack.pop()
                until.pop()
            if stack:
                held[number] = stack[-1]
            stack.append(number)
            until.append(end)
    return held


def _host_self(ranges: Ranges) -> Ints:
    """Return for each label the time, over all threads, in which a range of that label was the innermost."""
    spent = np.zeros(len(ranges.labels), np.int64)
    for thread in np.unique(ranges.thread[ranges.is_real]):
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


class _Inner:
    """What was launched inside ranges, at any depth; in those that never were on a thread, what belongs there."""

    def __init__(self, ranges: Ranges, work: Pieces) -> None:
        self._ranges = ranges
        self._real = ranges.is_real
        placed, graph = work.place >= NOWHERE, work.place == PLACE_OF_BUCKET[GRAPH]
        self._normal = _Slices(work, placed, work.thread, work.moment)
        self._graphs = _Slices(work, graph, work.thread, work.moment)
        self._unreal = _Slices(work, work.unreal_thread != NOWHERE, work.unreal_thread, work.unreal_moment)

    @property
    def used(self) -> NDArray[np.bool_]:
        """Which ranges make rows: the real ones, and those others that have work inside."""
        ranges, result = self._ranges, self._real.copy()
        for thread in np.unique(ranges.thread[~self._real]).tolist():
            here = np.flatnonzero(ranges.thread == thread)
            result[here] = self._unreal.many(thread, ranges.start[here], ranges.end[here]) > 0
        return result

    def of(self, mine: Ints) -> tuple[_Inside, int]:
        """Return what ranges of one label held, and how much work of graphs that nothing else names."""
        if self._real[mine[0]]:
            return self._normal.inside(self._ranges, mine), self._graphs.inside(self._ranges, mine).total
        inside = self._unreal.inside(self._ranges, mine)
        inside.host = 0
        return inside, 0


class _Slices:
    """Pieces of work in the order of their launches, thread by thread, so that a range's work is a slice."""

    def __init__(self, work: Pieces, which: NDArray[np.bool_], thread: Ints, moment: Ints) -> None:
        self._threads: dict[int, tuple[Ints, Ints, Ints, Ints]] = {}
        chosen = np.flatnonzero(which)
        if not len(chosen):
            return
        chosen = chosen[np.lexsort((moment[chosen], thread[chosen]))]
        threads, firsts = np.unique(thread[chosen], return_index=True)
        for number, here in zip(threads, np.split(chosen, firsts[1:]), strict=True):
            length = np.r_[0, np.cumsum(work.end[here] - work.start[here])]
            self._threads[int(number)] = moment[here], work.start[here], work.end[here], length

    def many(self, thread: int, start: Ints, end: Ints) -> Ints:
        """Return how many pieces belong into each of some ranges of a thread."""
        moments = self._threads[thread][0] if thread in self._threads else np.zeros(0, np.int64)
        many: Ints = np.searchsorted(moments, end) - np.searchsorted(moments, start)
        return many

    def inside(self, ranges: Ranges, mine: Ints) -> _Inside:
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


def _tops(work: Pieces, own: NDArray[np.bool_], label_of: Ints) -> dict[int, tuple[tuple[str, int], ...]]:
    """Return the heaviest own kernels of each label."""
    codes, where = np.unique(label_of * len(work.names) + work.name[own], return_inverse=True)
    totals = np.zeros(len(codes), np.int64)
    np.add.at(totals, where, (work.end - work.start)[own])
    found: dict[int, list[tuple[str, int]]] = {}
    for code, spent in zip(codes.tolist(), totals.tolist(), strict=True):
        label, name = divmod(code, len(work.names))
        found.setdefault(label, []).append((work.names[name], spent))
    return {label: heaviest(items) for label, items in found.items()}


def top(work: Pieces, which: NDArray[np.bool_]) -> tuple[tuple[str, int], ...]:
    """Return the heaviest of some pieces of work, by name."""
    return _tops(work, which, np.zeros(int(which.sum()), np.int64)).get(0, ())
