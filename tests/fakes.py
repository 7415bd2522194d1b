"""Fakes whose truth is known: a clock that only moves when told, and a GPU with streams, events and capture."""

from __future__ import annotations

from dataclasses import dataclass, field


class FakeClock:
    """Host nanoseconds; `advance` lets time pass."""

    name = "fake clock"

    def __init__(self, start_ns: int = 1_000_000) -> None:
        self.now_ns = start_ns

    def __call__(self) -> int:
        """Return the time."""
        return self.now_ns

    def advance(self, nanoseconds: int) -> None:
        """Let time pass on the host."""
        self.now_ns += nanoseconds


@dataclass
class FakeStream:
    """A queue of work: `busy_until_ns` is when all that was put there is done."""

    number: int
    busy_until_ns: int = 0


@dataclass
class FakeEvent:
    """A timing event: recorded, it has the moment at which its stream got there."""

    cuda: FakeCuda
    at_ns: int | None = None
    recorded: int = 0
    of_graph: bool = False

    def record(self, stream: FakeStream) -> None:
        """Put the event into the stream; of a graph, into the graph that is captured."""
        if self.cuda.is_capturing:
            assert self.of_graph, "an event of another kind would be lost in a graph"
            self.cuda.program.append(self)
            return
        self.cuda.host.advance(self.cuda.record_ns)
        self.at_ns = max(stream.busy_until_ns, self.cuda.host.now_ns)
        self.recorded += 1

    def elapsed_time(self, end: FakeEvent) -> float:
        """Milliseconds up to the other event; as in CUDA, only once both have happened."""
        assert self.at_ns is not None
        assert end.at_ns is not None
        assert max(self.at_ns, end.at_ns) <= self.cuda.synchronized_ns, "read before it was waited for"
        return (end.at_ns - self.at_ns) / 1e6


@dataclass
class FakeCuda:
    """The part of torch.cuda that timing needs. `work` launches: the host pays the launch, the stream runs later."""

    host: FakeClock = field(default_factory=FakeClock)
    record_ns: int = 0
    streams: dict[int, list[FakeStream]] = field(default_factory=lambda: {0: [FakeStream(0)]})
    current: int = 0
    is_capturing: bool = False
    synchronized_ns: int = 0
    synchronizations: int = 0
    made: list[FakeEvent] = field(default_factory=list)
    program: list[FakeEvent | int] = field(default_factory=list)

    def event(self) -> FakeEvent:
        """Make an event."""
        self.made.append(FakeEvent(self))
        return self.made[-1]

    def event_of_graph(self) -> FakeEvent:
        """Make an event that can be a part of a graph."""
        return FakeEvent(self, of_graph=True)

    def wait(self, event: FakeEvent) -> None:
        """Wait until the device has come to the event."""
        assert event.at_ns is not None, "it was never recorded"
        self.host.now_ns = max(self.host.now_ns, event.at_ns)
        self.synchronized_ns = max(self.synchronized_ns, event.at_ns)

    def replay(self, launch_ns: int = 0) -> None:
        """Launch what was captured: events are recorded as the stream comes to them, and kernels run."""
        self.host.advance(launch_ns)
        stream = self.stream(0)
        stream.busy_until_ns = max(stream.busy_until_ns, self.host.now_ns)
        for event in self.program:
            if isinstance(event, FakeEvent) and event.at_ns is not None:
                assert event.at_ns <= self.synchronized_ns, "a replay's event is overwritten before it was read"
        for part in self.program:
            if isinstance(part, FakeEvent):
                part.at_ns = stream.busy_until_ns
            else:
                stream.busy_until_ns += part

    def stream(self, device: int) -> FakeStream:
        """Return the device's current stream."""
        return self.streams.setdefault(device, [FakeStream(0)])[self.current if device == 0 else 0]

    def stream_id(self, device: int) -> int:
        """Return the current stream's handle."""
        return 1000 * device + self.stream(device).number

    def capturing(self) -> bool:
        """Tell whether a graph is being captured."""
        return self.is_capturing

    def synchronize(self, device: int) -> None:
        """Wait for all streams of the device."""
        ends = [stream.busy_until_ns for stream in self.streams.get(device, [])]
        self.host.now_ns = max([self.host.now_ns, *ends])
        self.synchronized_ns = self.host.now_ns
        self.synchronizations += 1

    def now(self) -> int:
        """Host nanoseconds."""
        return self.host.now_ns

    def work(self, launch_ns: int, run_ns: int, device: int = 0) -> None:
        """Launch a kernel that takes `run_ns` on the current stream."""
        self.host.advance(launch_ns)
        if self.is_capturing:
            self.program.append(run_ns)
            return
        stream = self.stream(device)
        stream.busy_until_ns = max(stream.busy_until_ns, self.host.now_ns) + run_ns
