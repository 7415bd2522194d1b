"""Where work goes: the calls that run, innermost last, and what each layer has done so far in each phase."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from layerprof.hooks import kv
from layerprof.hooks.phases import PhaseTracker
from layerprof.hooks.tokens import ALL, Share
from layerprof.hooks.weights import Read

from layerprof.readings import Work
from layerprof.records import Phase

OUTSIDE = "outside the model"


@dataclass(slots=True)
class Tally:
    """A `Work` that grows. `attention` is the part of its FLOPs that is attention: scores and weighted values."""

    calls: int = 0
    flops: int = 0
    flops_useful: int = 0
    flops_causal: int = 0
    bytes_weights: int = 0
    bytes_activations: int = 0
    bytes_kv: int = 0
    attention: int = 0

    def add(self, executed: int, useful: Share = ALL, causal: Share = ALL) -> None:
        """Add the FLOPs of one operator."""
        self.flops += executed
        self.flops_useful += executed * useful[0] // useful[1]
        self.flops_causal += executed * causal[0] // causal[1]

    def add_attention(self, executed: int, useful: Share = ALL, causal: Share = ALL) -> None:
        """Add the FLOPs of one operator of attention."""
        self.add(executed, useful, causal)
        self.attention += executed

    def frozen(self) -> Work:
        """Return the sums so far."""
        return Work(*(getattr(self, f.name) for f in fields(Work)))


@dataclass(slots=True)
class Frame:
    """One running call: of a located layer (`slot`), or of a module outside them (`path`)."""

    path: str
    slot: int | None
    phase: Phase | None
    read: Read = field(default_factory=dict)
    cached: tuple[kv.Before, ...] = ()


class Frames:
    """The running calls, and the tallies that they fill: `inside` located layers and `outside` them.

    A frame without a phase of its own is in the one that `tracker` is in.
    """

    def __init__(self, tracker: PhaseTracker) -> None:
        self.inside: dict[tuple[str, Phase], Tally] = {}
        self.outside: dict[tuple[str, Phase], Tally] = {}
        self._tracker = tracker
        self._running: list[Frame] = []

    def begin(self) -> None:
        """Begin a batch: what runs under no module at all is outside the model."""
        self._running = [Frame(OUTSIDE, None, None)]

    def clear(self) -> None:
        """Forget what was tallied; the running calls go on."""
        self.inside, self.outside = {}, {}

    def end(self) -> None:
        """End the batch, and what an exception left open in it."""
        self._running = []

    @property
    def innermost(self) -> Frame:
        """The call that runs now."""
        return self._running[-1] if self._running else Frame(OUTSIDE, None, None)

    def open(self, frame: Frame) -> None:
        """Begin a call."""
        self._running.append(frame)

    def close(self, slot: int | None, path: str) -> None:
        """End a call, of a layer or of a module outside them, and those that an exception left open inside it."""
        if not any(frame.slot == slot and frame.path == path for frame in self._running):
            return
        while (frame := self._running.pop()).slot != slot or frame.path != path:
            pass
        self.tally(frame).bytes_weights += sum(frame.read.values())

    def of_layer(self, slot: int) -> Frame | None:
        """Return the innermost running call of a layer."""
        return next((frame for frame in reversed(self._running) if frame.slot == slot), None)

    def cache(self) -> tuple[kv.Before, ...]:
        """Return what the innermost call that reads a KV cache found there."""
        return next((frame.cached for frame in reversed(self._running) if frame.cached), ())

    def phase(self, frame: Frame) -> Phase:
        """Return the phase of a call."""
        return frame.phase or self._tracker.phase

    def tally(self, frame: Frame) -> Tally:
        """Return what a call's work is added to."""
        books = self.outside if frame.slot is None else self.inside
        return books.setdefault((frame.path, self.phase(frame)), Tally())
