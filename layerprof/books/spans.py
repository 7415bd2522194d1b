"""A log of layer starts and ends to spans and named gaps, so that self times + gaps = the window. Pure, no torch.

Submodules that a selector asked for are timed beside the books: whatever ran in one is the self time of the found layer
around it, or a gap where there is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import fsum
from typing import Any

from layerprof.readings import Layer, Span, SpanReading
from layerprof.records import BLOCK_KINDS, Phase

NOT_RECORDED = -1
"""Time of a boundary that could not be recorded (a CUDA graph was being captured)."""

BEFORE_FIRST = "before the first layer"
AFTER_LAST = "after the last layer"
BETWEEN_STEPS = "between decode steps"
BETWEEN_MIXED = "between mixed steps"
NO_LAYER = "no layer ran"

ANSWERING = (Phase.DECODE, Phase.MIXED)
"""Phases whose steps are counted."""

Log = list[Any]
"""Flat, since appending to it is all that a hook does: `slot, phase, step, time` for a start, `~slot, phase, step,
time` for an end. Times in nanoseconds since the start of the window.
"""


@dataclass(frozen=True, slots=True)
class BatchLog:
    """One batch as it was logged.

    `wall_ns` is the host's wall time; `length_ns` is the same stretch on the clock of the log (equal on a CPU; on CUDA
    from the first to the last event of the batch). Both in nanoseconds. `mixed` are the positions of prompts and of
    answers that entered in each mixed step.
    """

    wall_ns: int
    length_ns: int
    log: Log
    mixed: Mapping[int, tuple[int, int]] = field(default_factory=dict)


@dataclass(slots=True)
class _Call:
    """A call being put together.

    `order` is its place in the log, `inner_ns` what found layers inside it took, `depth` how many of them are around
    it, `owns` whether it is one, `told` whether a block inside it has given it its phase.
    """

    order: int
    slot: int
    phase: Phase
    step: int
    start_ns: int
    end_ns: int = NOT_RECORDED
    inner_ns: int = 0
    depth: int = 0
    owns: bool = True
    told: bool = False
    around: tuple[str, ...] = ()

    @property
    def taken_ns(self) -> int:
        """What found layers took of it: all, where it is one."""
        return self.end_ns - self.start_ns if self.owns else self.inner_ns


def read(windows: Sequence[BatchLog], layers: Sequence[Layer], clock: str) -> SpanReading:
    """Return what the windows hold. `Span.batch` is the position of its window.

    Per window, on the clock of the log: sum of `self_s` + gaps = `length_ns`, unless layers ran at the same time on
    several streams. What `wall_ns` has beyond that is for the ledger's residual.
    """
    spans: list[Span] = []
    gaps: dict[str, list[int]] = {}
    dropped = 0
    for number, window in enumerate(windows):
        calls, lost = _calls(window.log, layers)
        dropped += lost
        spans += (_span(call, layers, number) for call in calls)
        for name, length in _gaps([call for call in calls if call.owns and call.depth == 0], window.length_ns):
            gaps.setdefault(name, []).append(length)
    return SpanReading(
        spans=tuple(spans),
        windows_s=tuple(window.wall_ns / 1e9 for window in windows),
        gaps_s={name: fsum(lengths) / 1e9 for name, lengths in gaps.items()},
        clock=clock,
        dropped=dropped,
        mixed={(number, step): both for number, window in enumerate(windows) for step, both in window.mixed.items()},
    )


def _span(call: _Call, layers: Sequence[Layer], batch: int) -> Span:
    own_ns = call.end_ns - call.start_ns - call.inner_ns if call.owns else 0
    return Span(
        layer=layers[call.slot].name,
        phase=call.phase,
        batch=batch,
        step=call.step,
        start_s=call.start_ns / 1e9,
        end_s=call.end_ns / 1e9,
        self_s=own_ns / 1e9,
        around=call.around,
    )


def _calls(log: Log, layers: Sequence[Layer]) -> tuple[list[_Call], int]:
    """Pair starts with ends; return the closed calls by start, and how many were dropped.

    Dropped are calls whose start or end is missing: a layer left without its end, or not recorded in a graph capture.
    """
    closed: list[_Call] = []
    stack: list[_Call] = []
    dropped = 0
    chains = _Chains(layers)
    owners = [layer.found for layer in layers]
    for order, (slot, phase, step, time) in enumerate(_entries(log)):
        if slot >= 0:
            call = _Call(order, slot, phase, step, time, owns=owners[slot])
            chains.place(call, stack)
            if layers[slot].kind in BLOCK_KINDS and layers[slot].tower == "language":
                _tell(stack, call)
            stack.append(call)
            continue
        depth = next((i for i in range(len(stack) - 1, -1, -1) if stack[i].slot == ~slot), None)
        if depth is None:
            dropped += 1
            continue
        dropped += len(stack) - depth - 1
        del stack[depth + 1 :]
        call = stack.pop()
        if call.start_ns < 0 or time < 0:
            dropped += 1
            continue
        call.end_ns = time
        if stack:
            stack[-1].inner_ns += call.taken_ns
        closed.append(call)
    # A call that never closed encloses what follows it, which looked nested: only closed calls may count for depth.
    dropped += len(stack)
    closed.sort(key=lambda c: (c.start_ns, c.order))
    return _steps(_nested(closed, chains) if dropped else closed, layers), dropped


def _tell(stack: Iterable[_Call], block: _Call) -> None:
    """Give the calls around a block its phase and step, if it is the first inside them: theirs was not known yet."""
    for holder in stack:
        if not holder.told and holder.phase is not Phase.VISION:
            holder.phase, holder.step, holder.told = block.phase, block.step, True


def _entries(log: Log) -> Iterator[tuple[int, Phase, int, int]]:
    return zip(log[0::4], log[1::4], log[2::4], log[3::4], strict=True)


class _Chains:
    """Tells calls what is around them; equal chains are one tuple, since there are as many calls as there are."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._names = [layer.name for layer in layers]
        self._known: dict[tuple[tuple[str, ...], int], tuple[str, ...]] = {}

    def place(self, call: _Call, stack: Sequence[_Call]) -> None:
        """Set the call's depth, and the names of the layers around it."""
        if not stack:
            call.depth, call.around = 0, ()
            return
        holder = stack[-1]
        call.depth = holder.depth + holder.owns
        key = (holder.around, holder.slot)
        if key not in self._known:
            self._known[key] = tuple(dict.fromkeys((*holder.around, self._names[holder.slot])))
        call.around = self._known[key]


def _nested(calls: list[_Call], chains: _Chains) -> list[_Call]:
    """Find depth and inner time again from the times alone."""
    stack: list[_Call] = []

    def leave() -> None:
        ended = stack.pop()
        if stack:
            stack[-1].inner_ns += ended.taken_ns

    for call in calls:
        while stack and stack[-1].end_ns <= call.start_ns:
            leave()
        chains.place(call, stack)
        call.inner_ns = 0
        stack.append(call)
    while stack:
        leave()
    return calls


def _steps(calls: list[_Call], layers: Sequence[Layer]) -> list[_Call]:
    """Give all from the token embedding to the first block that block's step: a step begins with its embedding."""
    early: list[_Call] = []
    for call in calls:
        layer = layers[call.slot]
        if call.phase not in ANSWERING:
            early = []
        elif layer.kind in BLOCK_KINDS:
            for before in early:
                before.step = call.step
            early = []
        elif early or layer.kind == "embed_tokens":
            early.append(call)
    return calls


def _gaps(calls: Iterable[_Call], length_ns: int) -> Iterator[tuple[str, int]]:
    """Yield the stretches of the window that no call covers, named by what lies on both sides."""
    last: _Call | None = None
    covered = 0
    for call in calls:
        if call.start_ns > covered:
            yield _gap_name(last, call), call.start_ns - covered
        if last is None or call.end_ns > covered:
            last, covered = call, max(covered, call.end_ns)
    if length_ns > covered:
        yield (AFTER_LAST if last else NO_LAYER), length_ns - covered


def _gap_name(last: _Call | None, following: _Call) -> str:
    if last is None:
        return BEFORE_FIRST
    if last.phase is not following.phase:
        return f"{last.phase} to {following.phase}"
    if last.phase in ANSWERING and last.step != following.step:
        return BETWEEN_STEPS if last.phase is Phase.DECODE else BETWEEN_MIXED
    return f"within {last.phase}"
