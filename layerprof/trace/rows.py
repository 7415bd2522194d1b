"""Ranges and pieces of work -> rows: for each layer (or other range) and phase, what was launched inside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from layerprof.trace import intervals
from layerprof.trace.attribution import GRAPH, Row, heaviest
from layerprof.trace.intervals import NOWHERE, Ints
from layerprof.trace.work import PLACE_OF_BUCKET, LaunchesSeen, Pieces, Ranges


def rows_of(ranges: Ranges, work: Pieces, seen: LaunchesSeen) -> Iterator[Row]:
    """Yield a row for each label, in the order of their first calls."""
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
    graphs = _Slices(work, work.place == PLACE_OF_BUCKET[GRAPH])
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


def _host_self(ranges: Ranges) -> Ints:
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

    def __init__(self, work: Pieces, which: NDArray[np.bool_]) -> None:
        self._threads: dict[int, tuple[Ints, Ints, Ints, Ints]] = {}
        chosen = np.flatnonzero(which)
        if not len(chosen):
            return
        chosen = chosen[np.lexsort((work.moment[chosen], work.thread[chosen]))]
        threads, firsts = np.unique(work.thread[chosen], return_index=True)
        for thread, here in zip(threads, np.split(chosen, firsts[1:]), strict=True):
            length = np.r_[0, np.cumsum(work.end[here] - work.start[here])]
            self._threads[int(thread)] = work.moment[here], work.start[here], work.end[here], length

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
