"""Ranges that never were on a thread: parts of a CUDA graph's replay, in times of their own. Pure numpy.

A replay is one launch, so none of its parts has a time on a thread. Each gets ranges as its capture had them, or as the
repetition in it says, on a clock that runs on from replay to replay; what belongs to them is placed on the same clock.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from layerprof.trace.attribution import Key
from layerprof.trace.intervals import Ints
from layerprof.trace.work import Ranges


class Unreal:
    """Collects such ranges beside the real ones; `ranges` is all of them."""

    def __init__(self, ranges: Ranges) -> None:
        self._real = ranges
        self._count = len(ranges.start)
        self._numbers: dict[Key, int] = {key: number for number, key in enumerate(ranges.labels)}
        self._parts: list[tuple[Ints, Ints, Ints, Ints, Ints, Ints]] = []
        self._now = 0

    def labels(self, keys: Sequence[Key]) -> Ints:
        """Return the numbers of labels, new ones where they are new."""
        return np.array([self._numbers.setdefault(key, len(self._numbers)) for key in keys], np.int64)

    def add(
        self, start: Ints, end: Ints, thread: Ints | int, label: Ints, *, length: int, seen: int, holder: int
    ) -> tuple[int, int]:
        """Add the ranges of one replay, outer ones first; return the position of the first, and when their times begin.

        Times are from 0 to `length`. `seen` is the moment at which it was launched, and `holder` the range that the
        launch lay in.
        """
        first, now, many = self._count, self._now, len(start)
        threads = np.broadcast_to(np.asarray(thread, np.int64), many) + self._real.unreal
        self._parts.append(
            (start + now, end + now, threads, label, np.full(many, seen, np.int64), np.full(many, holder, np.int64))
        )
        self._count += many
        self._now += length + 1
        return first, now

    def thread(self, number: Ints | int) -> Ints:
        """Return how a thread of these ranges is called among all threads."""
        return np.asarray(number, np.int64) + self._real.unreal

    @property
    def ranges(self) -> Ranges:
        """All ranges, the real ones first."""
        real = self._real
        if not self._parts:
            return real
        start, end, thread, label, seen, holder = (
            np.concatenate([before, *parts])
            for before, parts in zip(
                (real.start, real.end, real.thread, real.label, real.seen, real.holder),
                zip(*self._parts, strict=True),
                strict=True,
            )
        )
        labels = list(self._numbers)
        # Each replay's are added outer ones first, which is all that tells where two have the same times.
        added = np.arange(len(real.start), len(start))
        order = np.r_[real.order, added[np.lexsort((added, -end[added], start[added]))]]
        return Ranges(start, end, thread, label, labels, order, seen, holder, real.unreal)
