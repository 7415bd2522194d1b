"""Where work goes: the calls that run, innermost last, and what each layer has done so far in each phase.

The books give each operator to the innermost *owner*: a found layer, or a module outside them. A submodule that a
selector asked for owns nothing; like every located layer it is told what ran inside its calls, whoever owns that.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, fields
from typing import Any

from layerprof.hooks import kv
from layerprof.hooks.phases import PhaseTracker
from layerprof.hooks.tokens import ALL, Share
from layerprof.hooks.weights import Read, merge

from layerprof.readings import Chain, Uncounted, Work
from layerprof.records import Phase

OUTSIDE = "outside the model"


@dataclass(slots=True)
class Tally:
    """A `Work` that grows, and with it the one that it is `part_of`.

    `attention` is the part of its FLOPs that is attention: scores and weighted values.
    """

    calls: int = 0
    flops: int = 0
    flops_useful: int = 0
    flops_causal: int = 0
    bytes_weights: int = 0
    bytes_activations: int = 0
    bytes_kv: int = 0
    tokens: int = 0
    kv: int = 0
    attention: int = 0
    part_of: Tally | None = None

    def add(self, executed: int, useful: Share = ALL, causal: Share = ALL) -> None:
        """Add the FLOPs of one operator."""
        self.flops += executed
        self.flops_useful += executed * useful[0] // useful[1]
        self.flops_causal += executed * causal[0] // causal[1]
        if self.part_of is not None:
            self.part_of.add(executed, useful, causal)

    def add_attention(self, executed: int, useful: Share = ALL, causal: Share = ALL) -> None:
        """Add the FLOPs of one operator of attention."""
        self.add(executed, useful, causal)
        self.attention += executed

    def frozen(self) -> Work:
        """Return the sums so far."""
        return Work(*(getattr(self, f.name) for f in fields(Work)))


@dataclass(slots=True)
class Frame:
    """One running call: of a located layer (`slot`), or of a module outside them (`path`).

    `queries` is how many positions a language layer was given, 0 where it did not tell.
    `told` says that a block inside it has given it its phase. `read` are the weights that it reads for its owner,
    `read_inside` those of owners inside it. `boundary` are bytes of what crosses its own boundary, `kv` of the cache
    that it was `cached`, `kv_inside` of the caches of calls inside it.

    `tokens` are the positions that it was given, in all rows, of so many `features`. `attended` are those whose keys
    attention in it read, by where the keys lie in memory (beside the keys, which stay there until it ends);
    `attended_inside` those of calls inside it. `seen` is what attention had done before a call that may hide its own.
    """

    path: str
    slot: int | None
    phase: Phase | None
    read: Read = field(default_factory=dict)
    cached: tuple[kv.Before, ...] = ()
    queries: int = 0
    owns: bool = True
    chain: tuple[str, ...] = ()
    before: Work = field(default_factory=Work)
    told: bool = False
    read_inside: Read = field(default_factory=dict)
    boundary: int = 0
    kv: int = 0
    kv_inside: int = 0
    tokens: int = 0
    features: int = 0
    attended: dict[Hashable, tuple[int, Any]] = field(default_factory=dict)
    attended_inside: int = 0
    seen: tuple[int, int] | None = None

    @property
    def kv_of_call(self) -> int:
        """Bytes of KV cache that the whole call moved."""
        return self.kv if self.cached or self.kv else self.kv_inside


class Frames:
    """The running calls, and the tallies that they fill: `inside` located layers and `outside` them.

    A frame without a phase of its own is in the one that `tracker` is in. `nested` has the work of whole calls, and
    `uncounted_inside` what has no formula in them, as in `WorkReading`.
    """

    def __init__(self, tracker: PhaseTracker) -> None:
        self.inside: dict[tuple[str, Phase], Tally] = {}
        self.outside: dict[tuple[str, Phase], Tally] = {}
        self.nested: dict[Chain, Work] = {}
        self.uncounted_inside: dict[tuple[str, Phase, str], Uncounted] = {}
        self._all = Tally()
        self._tracker = tracker
        self._running: list[Frame] = []

    def begin(self) -> None:
        """Begin a batch: what runs under no module at all is outside the model."""
        self._running = [Frame(OUTSIDE, None, None)]

    def clear(self) -> None:
        """Forget what was tallied; the running calls go on."""
        self.inside, self.outside = {}, {}
        self.nested, self.uncounted_inside = {}, {}

    def end(self) -> None:
        """End the batch, and what an exception left open in it."""
        while self._running:
            self._finish(self._running.pop())

    @property
    def innermost(self) -> Frame:
        """The call that owns what runs now: the innermost found layer's, else that of the innermost module."""
        outside = None
        for frame in reversed(self._running):
            if frame.owns and frame.slot is not None:
                return frame
            if frame.owns and outside is None:
                outside = frame
        return outside or Frame(OUTSIDE, None, None)

    @property
    def running(self) -> Frame:
        """The innermost call, whoever owns what runs in it."""
        return self._running[-1] if self._running else Frame(OUTSIDE, None, None)

    def open(self, frame: Frame) -> None:
        """Begin a call."""
        if frame.slot is not None:
            around = next((f.chain for f in reversed(self._running) if f.slot is not None), ())
            frame.chain = (*dict.fromkeys(around), frame.path)
            frame.before = self._all.frozen()
        self._running.append(frame)

    def tell(self, phase: Phase) -> None:
        """Give the calls around a block its phase, if it is the first inside them: they began before it was known."""
        for frame in self._running:
            if frame.slot is not None and not frame.told and frame.phase is not Phase.VISION:
                frame.phase, frame.told = phase, True

    def close(self, slot: int | None, path: str) -> None:
        """End a call, of a layer or of a module outside them, and those that an exception left open inside it."""
        if not any(frame.slot == slot and frame.path == path for frame in self._running):
            return
        while (frame := self._running.pop()).slot != slot or frame.path != path:
            self._finish(frame)
        self._finish(frame)

    def _finish(self, frame: Frame) -> None:
        """Hand on what a call read: to the books where it is its own, to the calls around it in any case."""
        outer = self._running[-1] if self._running else None
        owner = self.innermost
        mine = frame.owns and (frame.slot is not None or owner.slot is None)
        if mine:
            self.tally(frame).bytes_weights += sum(frame.read.values())
        else:
            merge(owner.read, frame.read)
        everything = dict(frame.read_inside)
        merge(everything, frame.read)
        attended = sum(positions for positions, _ in frame.attended.values())
        if attended:
            self.tally(frame if mine else owner).kv += attended
        frame.attended.clear()
        attended += frame.attended_inside
        if outer is not None:
            merge(outer.read_inside, everything)
            outer.kv_inside += frame.kv_of_call
            outer.attended_inside += attended
        if frame.slot is not None:
            self._note(frame, sum(everything.values()), attended)

    def _note(self, frame: Frame, weights: int, attended: int) -> None:
        """Add a whole call of a located layer."""
        now, before = self._all, frame.before
        work = Work(
            calls=1,
            flops=now.flops - before.flops,
            flops_useful=now.flops_useful - before.flops_useful,
            flops_causal=now.flops_causal - before.flops_causal,
            bytes_weights=weights,
            bytes_activations=frame.boundary,
            bytes_kv=frame.kv_of_call,
            tokens=frame.tokens,
            kv=attended,
        )
        key = (frame.chain, self.phase(frame))
        self.nested[key] = self.nested.get(key, Work()) + work

    def cross(self, frame: Frame, boundary: int, cache: int = 0) -> None:
        """Add bytes that crossed a call's boundary, and those of its KV cache."""
        frame.boundary += boundary
        frame.kv += cache
        if frame.owns:
            tally = self.tally(frame)
            tally.bytes_activations += boundary
            tally.bytes_kv += cache

    def given(self, frame: Frame, tokens: int, features: int) -> None:
        """Note how many positions a call is given, in all rows, and of how many features."""
        frame.tokens, frame.features = tokens, features
        if frame.owns:
            self.tally(frame).tokens += tokens

    def attend(self, keys: Any, place: Hashable, positions: int) -> None:
        """Note that attention in the innermost call reads keys of so many positions, which lie in a `place`.

        The same keys are read by several operators where queries come in parts. They are kept until the call ends,
        so that no others can lie there.
        """
        self.running.attended[place] = positions, keys

    def missed(self, operator: str, call: Uncounted, frame: Frame) -> None:
        """Note a call of an operator without a formula in the frame's layer, and in every one whose call is running."""
        for name, phase in {(f.path, self.phase(f)) for f in (*self._running, frame) if f.slot is not None}:
            key = (name, phase, operator)
            self.uncounted_inside[key] = self.uncounted_inside.get(key, Uncounted()) + call

    def of_layer(self, slot: int) -> Frame | None:
        """Return the innermost running call of a layer."""
        return next((frame for frame in reversed(self._running) if frame.slot == slot), None)

    def cache(self) -> tuple[kv.Before, ...]:
        """Return what the innermost call that reads a KV cache found there."""
        return next((frame.cached for frame in reversed(self._running) if frame.cached), ())

    def queries(self) -> int:
        """Return the length of the innermost call's input that has one."""
        return next((frame.queries for frame in reversed(self._running) if frame.queries), 0)

    def given_around(self) -> tuple[int, int]:
        """Return the positions, in all rows, and the features of what the innermost call that tells was given."""
        return next(((f.tokens, f.features) for f in reversed(self._running) if f.tokens), (0, 0))

    def phase(self, frame: Frame) -> Phase:
        """Return the phase of a call."""
        return frame.phase or self._tracker.phase

    def tally(self, frame: Frame) -> Tally:
        """Return what a call's work is added to."""
        books = self.outside if frame.slot is None else self.inside
        key = (frame.path, self.phase(frame))
        if key not in books:
            books[key] = Tally(part_of=self._all)
        return books[key]
