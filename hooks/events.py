"""Two clocks for layer boundaries: the host's, and CUDA events from a pool. A mark costs next to nothing on both."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from layerprof.hooks.event_pool import NO_SLOT, EventPool, TorchCuda

from layerprof.books.spans import NOT_RECORDED, BatchLog, Log
from layerprof.readings import Layer
from layerprof.records import BLOCK_KINDS

if TYPE_CHECKING:
    import torch

Mark = Callable[[], int]
"""Marks a boundary now; returns what stands in the log for its time."""

FIRST_STEPS = 160
"""Forward passes that the pool holds events for before it has seen how many a batch takes."""

CHAIN_NS = 50_000
"""Longest host time between the end of a layer and the start of the next for them to share one event.

Python alone takes 15 to 45 us from one block to the next (two cores of a server; the slower of the two speeds of an
H200's virtual host, where recording an event takes 10 us more): a bound inside that range shares some of them at
random. An operator between blocks takes as long; where it is shared away, at most this much of the host's time is in
the next block's span.
"""

CAPTURED = -2
"""Stands in the log for the first event of a captured step; the n-th after it is n less."""


class Timeline(Protocol):
    """A clock for boundaries: `starts[slot]` and `ends[slot]` are called in hooks, the rest between batches."""

    name: str

    def attach(self, layers: Sequence[Layer], devices: Sequence[Any]) -> tuple[list[Mark], list[Mark]]:
        """Return what to call at the start and at the end of each layer; `devices[slot]` is where it lies."""

    def open(self) -> None:
        """Begin a window."""

    def close(self, log: Log) -> BatchLog:
        """End the window; `log` holds its marks."""

    def cancel(self) -> None:
        """Give the window up."""

    def capturing(self) -> AbstractContextManager[list[Any]]:
        """Return a context around the capture of work; it gives the events that its boundaries become, in order."""

    def replaying(self, events: list[Any]) -> AbstractContextManager[int]:
        """Return a context around a replay of captured work; it gives how many events were before those of this one."""


class HostTimeline:
    """Boundaries by the host's clock, which gives nanoseconds; right where a layer's work is done when it returns."""

    def __init__(self, clock: Callable[[], int] | None = None) -> None:
        self._clock = clock or time.perf_counter_ns
        self.name = "perf_counter_ns" if clock is None else getattr(clock, "name", "given clock")
        self._origin = 0

    def attach(self, layers: Sequence[Layer], devices: Sequence[Any]) -> tuple[list[Mark], list[Mark]]:
        """Return the clock itself for every boundary."""
        return [self._clock] * len(layers), [self._clock] * len(layers)

    def open(self) -> None:
        """Begin a window."""
        self._origin = self._clock()

    def close(self, log: Log) -> BatchLog:
        """End the window; both of its lengths are the host's."""
        length = self._clock() - self._origin
        moved = list(log)
        moved[3::4] = [at - self._origin for at in log[3::4]]
        return BatchLog(length, length, moved)

    def cancel(self) -> None:
        """Nothing to give back."""

    @contextmanager
    def capturing(self) -> Iterator[list[Any]]:
        """Give no events: the host's clock tells nothing of work that is captured."""
        yield []

    @contextmanager
    def replaying(self, events: list[Any]) -> Iterator[int]:
        """Note nothing."""
        yield 0


class EventTimeline:
    """Boundaries by CUDA events on the current stream of each layer's device; one synchronise, at the end of a batch.

    Neighbours share an event: the end of a block is the start of the next one when the host goes straight from one to
    the other on the same stream. A model spread over several GPUs has one pool for each; their origins are recorded
    with all of them idle.
    """

    name = "CUDA events"

    def __init__(self, device: int, cuda: Any = None) -> None:
        self.cuda = cuda or TorchCuda()
        self._main = device
        self.pools = {device: EventPool(self.cuda, device)}
        self._places: list[int] = []
        self._per_step = 0
        self._opened_ns = 0
        self._capture: list[Any] | None = None
        self._replay: tuple[int, int, list[Any]] | None = None
        self._replayed: list[tuple[int, int]] = []

    def attach(self, layers: Sequence[Layer], devices: Sequence[torch.device | None]) -> tuple[list[Mark], list[Mark]]:
        """Make the pools and return each layer's marks."""
        self._places = [
            d.index if d is not None and d.type == "cuda" and d.index is not None else self._main for d in devices
        ]
        for index in sorted(set(self._places)):
            self.pools.setdefault(index, EventPool(self.cuda, index))
        self._per_step = 2 * len(layers) + 2
        self.grow()
        before = _predecessors(layers)
        refill: dict[tuple[int, bool], int] = {}
        for slot, layer in enumerate(layers):
            refill.setdefault((self._places[slot], layer.kind == "decoder_layer"), slot)
        pools = [self.pools[index] for index in self._places]
        refilling = set(refill.values())  # the first layer, and the first block, on each device
        starts = [self._start(pool, before[slot], slot in refilling) for slot, pool in enumerate(pools)]
        return starts, [self._end(pool, slot) for slot, pool in enumerate(pools)]

    def grow(self) -> None:
        """Between batches: make room for twice what the largest batch took."""
        for pool in self.pools.values():
            pool.grow(max(self._per_step * FIRST_STEPS, 2 * pool.used))

    def _start(self, pool: EventPool, before: int, refill: bool) -> Mark:
        cuda, capturing, record = self.cuda, self.cuda.capturing, pool.record
        reserve = 2 * self._per_step

        def mark() -> int:
            ended, pool.ended = pool.ended, NO_SLOT
            if capturing():
                near = ended == before and cuda.now() - pool.ended_ns < CHAIN_NS
                return self._of_graph(pool, new=not near)
            if ended == before and cuda.stream_id(pool.device) == pool.stream and cuda.now() - pool.ended_ns < CHAIN_NS:
                return pool.used - 1
            return record()

        def refilling_mark() -> int:
            # A batch longer than any before: more events, made between two steps, never inside a layer.
            if pool.used + reserve > len(pool.events) and not capturing():
                pool.grow(len(pool.events) + 4 * reserve)
            return mark()

        return refilling_mark if refill else mark

    def _end(self, pool: EventPool, slot: int) -> Mark:
        cuda, capturing, record = self.cuda, self.cuda.capturing, pool.record

        def mark() -> int:
            position = self._of_graph(pool) if capturing() else record()
            if position != NOT_RECORDED:
                pool.ended, pool.ended_ns = slot, cuda.now()
            return position

        return mark

    def _of_graph(self, pool: EventPool, *, new: bool = True) -> int:
        """Record a boundary in the graph that is captured; return its mark, NOT_RECORDED where the graph is another's.

        Without `new` it is the boundary that was recorded last.
        """
        if self._capture is None:
            return NOT_RECORDED
        if new:
            event = self.cuda.event_of_graph()
            event.record(self.cuda.stream(pool.device))
            self._capture.append(event)
        return CAPTURED - (len(self._capture) - 1)

    @contextmanager
    def capturing(self) -> Iterator[list[Any]]:
        """Make the boundaries of what is captured inside the block events of its graph."""
        events: list[Any] = []
        self._capture = events
        for pool in self.pools.values():
            pool.ended = NO_SLOT
        try:
            yield events
        finally:
            self._capture = None
            for pool in self.pools.values():
                pool.ended = NO_SLOT

    @contextmanager
    def replaying(self, events: list[Any]) -> Iterator[int]:
        """Read the replay before, whose events this one records anew; mark where this one begins and ends."""
        pool = self.pools[self._main]
        self._read_replay()
        if pool.used + 2 * self._per_step > len(pool.events):
            pool.grow(len(pool.events) + 8 * self._per_step)
        pool.ended = NO_SLOT
        begun = pool.record()
        yield len(self._replayed)
        self._replay = begun, pool.record(), events

    def _read_replay(self) -> None:
        """Take the times of the replay that was made last: nanoseconds since the mark before it."""
        if self._replay is None:
            return
        begun, ended, events = self._replay
        self._replay = None
        marks = self.pools[self._main].events
        # An event of a graph is recorded when the device gets to it: until then it looks as its last replay left it.
        self.cuda.wait(marks[ended])
        self._replayed += [(begun, round(marks[begun].elapsed_time(event) * 1e6)) for event in events]

    def open(self) -> None:
        """Begin a window: every device idle, then its origin event, then the host's clock."""
        self.grow()
        self.cancel()
        for pool in self.pools.values():
            self.cuda.synchronize(pool.device)
        for pool in self.pools.values():
            pool.record()
        self._opened_ns = self.cuda.now()

    def close(self, log: Log) -> BatchLog:
        """End the window: a last event, one synchronise, the host's clock; then read the events."""
        self._read_replay()
        last = self.pools[self._main].record()
        for pool in self.pools.values():
            self.cuda.synchronize(pool.device)
        wall = self.cuda.now() - self._opened_ns
        times = {index: pool.times_ns() for index, pool in self.pools.items()}
        at = [times[index] for index in self._places]
        moved = list(log)
        moved[3::4] = [
            at[slot if slot >= 0 else ~slot][mark] if mark >= 0 else self._time_in_replay(mark, times[self._main])
            for slot, mark in zip(log[0::4], log[3::4], strict=True)
        ]
        return BatchLog(wall, times[self._main][last], moved)

    def _time_in_replay(self, mark: int, times: Sequence[int]) -> int:
        """Return the time of a boundary inside a replay; NOT_RECORDED for one that is in none."""
        if mark > CAPTURED:
            return NOT_RECORDED
        begun, after = self._replayed[CAPTURED - mark]
        return times[begun] + after

    def cancel(self) -> None:
        """All events go back to the pools."""
        self._replay, self._replayed = None, []
        for pool in self.pools.values():
            pool.used, pool.ended = 0, NO_SLOT


def _predecessors(layers: Sequence[Layer]) -> list[int]:
    """For each block, the slot of the block before it in its tower; for all others a number that is no slot."""
    places = {(x.tower, x.kind, x.index): slot for slot, x in enumerate(layers) if x.kind in BLOCK_KINDS}
    return [places.get((x.tower, x.kind, x.index - 1), NO_SLOT - 1) for x in layers]
