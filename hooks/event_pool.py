"""CUDA events: what is asked of torch.cuda for them, and a pool of them for one device."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from layerprof.books.spans import NOT_RECORDED
from layerprof.machine.internals import stream_number

NO_SLOT = -1

ANCHOR_EVERY = 16
"""`elapsed_time` is a 32-bit float of milliseconds: counted from an event nearby it keeps its nanoseconds."""


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

    def event_of_graph(self) -> Any:
        """Return a new timing event that becomes part of a graph, where it is recorded in its capture.

        Each replay records it anew. (Other events are, in a capture, no more than an order of streams.)
        """
        return self._torch.cuda.Event(enable_timing=True, external=True)  # type: ignore[no-untyped-call]  # as above

    def stream(self, device: int) -> Any:
        """Return the current stream of the device."""
        return self._torch.cuda.current_stream(device)

    def _number_of_stream(self, device: int) -> int:
        return int(self.stream(device).cuda_stream)

    def synchronize(self, device: int) -> None:
        """Wait until the device has done all work."""
        self._torch.cuda.synchronize(device)

    def wait(self, event: Any) -> None:
        """Wait until the device has come to the event."""
        event.synchronize()

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
