"""Two clocks for layer boundaries: the host's, and CUDA events from a pool. A mark costs next to nothing on both."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from layerprof.books.spans import NOT_RECORDED, BatchLog, Log
from layerprof.machine.internals import stream_number
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

NO_SLOT = -1

ANCHOR_EVERY = 16
"""`elapsed_time` is a 32-bit float of milliseconds: counted from an event nearby it keeps its nanoseconds."""


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


class TorchCuda:
    """The few calls of torch.cuda that the event timeline needs; tests put a fake in its place."""

    def __init__(self) -> None:
        import torch

        self._torch = torch
        self.capturing: Callable[[], bool] = torch.cuda.is_current_stream_capturing
        self.stream_id: Callable[[int], int] = stream_number() or self._number_of_stream

    def event(self) -> Any:
        """Return a new timing event."""
        return self._torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch has no annotation here

    def stream(self, device: int) -> Any:
        """Return the current stream of the device."""
        return self._torch.cuda.current_stream(device)

    def _number_of_stream(self, device: int) -> int:
        return int(self.stream(device).cuda_stream)

    def synchronize(self, device: int) -> None:
        """Wait until the device has done all work."""
        self._torch.cuda.synchronize(device)

    def now(self) -> int:
        """Host nanoseconds."""
        return time.perf_counter_ns()


@dataclass(slots=True)
class EventPool:
    """Events of one device, each recorded once when made, since CUDA creates an event at its first record.

    `used` events of the open batch stand in the order of recording; all return to the pool when it is over. `ended` is
    the layer whose end was recorded last with nothing since, on `stream`, at host time `ended_ns`.
    """

    cuda: Any
    device: int
    events: list[Any] = field(default_factory=list)
    used: int = 0
    streams: dict[int, Any] = field(default_factory=dict)
    stream: int = 0
    ended: int = NO_SLOT
    ended_ns: int = 0

    def grow(self, size: int) -> None:
        """Make the pool hold at least `size` events."""
        stream = self.cuda.stream(self.device)
        while len(self.events) < size:
            event = self.cuda.event()
            event.record(stream)
            self.events.append(event)

    def record(self) -> int:
        """Record the next event on the device's current stream; return its position, NOT_RECORDED if none is left."""
        mark = self.used
        if mark == len(self.events):
            return NOT_RECORDED
        identity = self.cuda.stream_id(self.device)
        stream = self.streams.get(identity)
        if stream is None:
            stream = self.streams[identity] = self.cuda.stream(self.device)
        self.events[mark].record(stream)
        self.stream = identity
        self.used = mark + 1
        return mark

    def times_ns(self) -> list[int]:
        """Return the used events' times in nanoseconds since the first. Valid once the device is synchronised."""
        times, anchor, base = [0], self.events[0], 0.0
        for position in range(1, self.used):
            at = base + anchor.elapsed_time(self.events[position]) * 1e6
            times.append(round(at))
            if position % ANCHOR_EVERY == 0:
                anchor, base = self.events[position], at
        return times


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
                return NOT_RECORDED
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
            if capturing():
                return NOT_RECORDED
            position = record()
            if position != NOT_RECORDED:
                pool.ended, pool.ended_ns = slot, cuda.now()
            return position

        return mark

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
        last = self.pools[self._main].record()
        for pool in self.pools.values():
            self.cuda.synchronize(pool.device)
        wall = self.cuda.now() - self._opened_ns
        times = {index: pool.times_ns() for index, pool in self.pools.items()}
        at = [times[index] for index in self._places]
        moved = list(log)
        moved[3::4] = [
            NOT_RECORDED if mark < 0 else at[slot if slot >= 0 else ~slot][mark]
            for slot, mark in zip(log[0::4], log[3::4], strict=True)
        ]
        return BatchLog(wall, times[self._main][last], moved)

    def cancel(self) -> None:
        """All events go back to the pools."""
        for pool in self.pools.values():
            pool.used, pool.ended = 0, NO_SLOT


def _predecessors(layers: Sequence[Layer]) -> list[int]:
    """For each block, the slot of the block before it in its tower; for all others a number that is no slot."""
    places = {(x.tower, x.kind, x.index): slot for slot, x in enumerate(layers) if x.kind in BLOCK_KINDS}
    return [places.get((x.tower, x.kind, x.index - 1), NO_SLOT - 1) for x in layers]
