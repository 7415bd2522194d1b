"""Layers that nobody recorded: a sequence of kernels that repeats N times is N layers (`repetition`).

Sequences are cut so that each is of one step of a model: a replay that repeats in itself; else all that graphs and
eager kernels between them ran from one of the server's steps to the next, or from one replay of the first graph to its
next; in a trace without any range and any graph, all that ran. Pure numpy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from layerprof.trace import repetition
from layerprof.trace.attribution import GRAPH, Key, Naming, RowPhase, Stack
from layerprof.trace.graphs import Graph, Replay
from layerprof.trace.intervals import NOWHERE, Ints
from layerprof.trace.launches import Mask
from layerprof.trace.repetition import Layers, Template
from layerprof.trace.steps import ServerSteps
from layerprof.trace.unreal import Unreal
from layerprof.trace.work import PLACE_OF_BUCKET, Pieces, Ranges

HEAD, BETWEEN, TAIL = "head", "between the layers", "tail"
"""Rows of what ran before, between and after stacks of layers in a sequence."""
TELLS = 0.5
"""A capture tells layers apart when this share of neighbours differs in the ranges of its kernels."""


@dataclass(frozen=True, slots=True)
class Run:
    """Pieces of one step in the order in which they ran, the stacks in it, and where and when it was launched."""

    pieces: Ints
    stacks: tuple[Layers, ...]
    moment: int
    thread: int
    around: int


@dataclass(frozen=True, slots=True)
class Model:
    """What is known of eager layers elsewhere: their kernels, and how their rows are called."""

    template: Template
    rows: tuple[str, ...]


class Inference:
    """Finds layers in what a trace ran, and gives their pieces to rows of their own.

    `containers` are the labels of ranges that hold launches of graphs: what they hold outside any other range may be
    part of a layer; what lies in any other range is that range's.
    """

    def __init__(self, work: Pieces, ranges: Ranges, steps: ServerSteps, models: Sequence[Model]) -> None:
        self._work = work
        self._ranges = ranges
        self._steps = steps
        self._models = models
        self._known: dict[bytes, tuple[Layers, ...]] = {}

    def of_graphs(self, graphs: Sequence[Graph], inside: Ints, containers: Mask) -> list[Run]:
        """Return the sequences with layers among the replays; `inside` is the range around each launch."""
        whole: list[Run] = []
        parts: list[Replay] = []
        for graph in graphs:
            length = np.mean([self._work.length[replay.pieces] for replay in graph.replays], 0)
            stacks = self._find(graph.names, length.astype(np.int64))
            for replay in graph.replays:
                if stacks:
                    around = int(inside[replay.launch])
                    whole.append(Run(replay.pieces, stacks, replay.moment, replay.thread, around))
                else:
                    parts.append(replay)
        parts.sort(key=lambda replay: replay.moment)
        loose = self._loose(containers)
        for together in self._steps_of(parts, graphs):
            pieces = self._between(together, loose)
            if stacks := self._find(self._work.name[pieces], self._work.length[pieces]):
                first = together[0]
                whole.append(Run(pieces, stacks, first.moment, first.thread, int(inside[first.launch])))
        return sorted(whole, key=lambda sequence: sequence.moment)

    def of_eager(self) -> list[Run]:
        """Return the sequences with layers in a trace of which no range tells anything: one for each of its steps."""
        work = self._work
        open_ = np.flatnonzero((work.thread >= 0) & (work.place >= NOWHERE))
        open_ = open_[np.lexsort((work.start[open_], self._steps.at(work.moment[open_], work.thread[open_])))]
        step = self._steps.at(work.moment[open_], work.thread[open_])
        found = []
        for pieces in np.split(open_, np.flatnonzero(np.diff(step)) + 1):
            stacks = self._find(work.name[pieces], work.length[pieces]) if len(pieces) else ()
            if stacks:
                first = pieces[0]
                place = int(work.place[first])
                found.append(Run(pieces, stacks, int(work.moment[first]), int(work.thread[first]), place))
        return found

    def _find(self, names: Ints, length: Ints) -> tuple[Layers, ...]:
        key = names.tobytes()
        if key not in self._known:
            called = [self._work.names[name] for name in names.tolist()]
            templates = [model.template for model in self._models]
            self._known[key] = repetition.find(called, length.tolist(), templates)
        return self._known[key]

    def _loose(self, containers: Mask) -> Ints:
        """Return the eager pieces that no range but a container holds, in the order in which they ran."""
        work = self._work
        eager = (work.place >= 0) & (work.unreal_thread == NOWHERE)
        held = np.flatnonzero(eager)
        held = held[containers[self._ranges.label[work.place[held]]]]
        loose = np.r_[np.flatnonzero(work.place == NOWHERE), held]
        in_order: Ints = loose[np.argsort(work.start[loose], kind="stable")]
        return in_order

    def _between(self, together: Sequence[Replay], loose: Ints) -> Ints:
        """Return the pieces of some replays, and the eager ones that ran between them."""
        work = self._work
        pieces = np.concatenate([replay.pieces for replay in together])
        first, last = work.start[pieces].min(), work.start[pieces].max()
        low, high = np.searchsorted(work.start[loose], [first, last])
        pieces = np.concatenate([pieces, loose[low:high]])
        return pieces[np.argsort(work.start[pieces], kind="stable")]

    def _steps_of(self, parts: Sequence[Replay], graphs: Sequence[Graph]) -> Iterator[list[Replay]]:
        """Yield the replays of each step: of the server's, else from one of a graph that is rarest to its next."""
        if not parts:
            return
        where = np.array([(replay.moment, replay.thread) for replay in parts], np.int64)
        step = self._steps.at(where[:, 0], where[:, 1])
        many = Counter(replay.graph for replay in parts)
        rarest = min(many.values())
        begins = next(replay.graph for replay in parts if many[replay.graph] == rarest)
        together: list[Replay] = []
        for place, replay in enumerate(parts):
            fresh = step[place] != step[place - 1] or (step[place] == NOWHERE and replay.graph == begins)
            if together and fresh:
                yield together
                together = []
            together.append(replay)
        yield together


def place_layers(
    work: Pieces,
    ranges: Ranges,
    unreal: Unreal,
    found: Sequence[Run],
    steps: ServerSteps,
    models: Sequence[Model],
) -> tuple[Stack, ...]:
    """Give the pieces in each stack's layers, and before, between and after stacks, rows of their own, in place.

    A stack whose layers the captured ranges tell apart stays theirs. Returns what was inferred.
    """
    kept = [sequence for sequence in found if not _told_apart(sequence, work, ranges)]
    families = _families(kept)
    taken: dict[tuple[int, int], list[tuple[int, int, int, int]]] = {}
    said: dict[tuple[int, int], list[Layers]] = {}
    for sequence in kept:
        at = int(steps.at(np.array([sequence.moment]), np.array([sequence.thread]))[0])
        phase = steps.said[at].phase if at != NOWHERE else None
        starts, ends, keys = _parts(sequence, families, models, phase)
        label = unreal.labels(keys)
        first, now = unreal.add(
            starts, ends, 0, label, length=len(sequence.pieces), seen=sequence.moment, holder=sequence.around
        )
        _take(work, sequence, ends, first, now, unreal, keys)
        for family, layers, numbers in _accounts(sequence, work, families):
            taken.setdefault(family, []).append(numbers)
            said.setdefault(family, []).append(layers)
    return tuple(_stack(family, families, said[family], numbers, models) for family, numbers in taken.items())


def _take(work: Pieces, sequence: Run, ends: Ints, first: int, now: int, unreal: Unreal, keys: Sequence[Key]) -> None:
    """Place a sequence's pieces; eager ones that lie in no layer stay where they are, unless nothing else is there."""
    position = np.arange(len(sequence.pieces))
    part = np.searchsorted(ends, position, "right")
    layer = np.array([key[0] not in (HEAD, BETWEEN, TAIL) for key in keys])
    pieces = sequence.pieces
    graph = (work.place[pieces] == PLACE_OF_BUCKET[GRAPH]) | (work.unreal_thread[pieces] != NOWHERE)
    mine = layer[part] | graph | ~graph.any()
    work.place[pieces[mine]] = first + part[mine]
    work.unreal_thread[pieces[mine]] = unreal.thread(0)
    work.unreal_moment[pieces[mine]] = now + position[mine]


def _parts(
    sequence: Run, families: dict[tuple[int, int], str], models: Sequence[Model], phase: RowPhase
) -> tuple[Ints, Ints, list[Key]]:
    """Return a sequence cut into head, layers, what is between stacks, and tail, with the label of each."""
    cuts: list[tuple[int, int, str]] = []
    done = 0
    for (family, layers), last in zip(_named(sequence), [*[False] * (len(sequence.stacks) - 1), True], strict=True):
        if layers.starts[0] > done:
            cuts.append((done, layers.starts[0], BETWEEN if cuts else HEAD))
        names = _names(families[family], layers, models)
        cuts += zip(layers.starts, [*layers.starts[1:], layers.end], names, strict=True)
        done = layers.end
        if last and done < len(sequence.pieces):
            cuts.append((done, len(sequence.pieces), TAIL))
    return (
        np.array([start for start, *_ in cuts], np.int64),
        np.array([end for _, end, _ in cuts], np.int64),
        [(name, phase, Naming.INFERRED) for *_, name in cuts],
    )


def _names(pattern: str, layers: Layers, models: Sequence[Model]) -> Sequence[str]:
    if layers.template is not None and len(models[layers.template].rows) == len(layers.starts):
        return models[layers.template].rows
    return [pattern.format(number) for number in range(len(layers.starts))]


def _named(sequence: Run) -> list[tuple[tuple[int, int], Layers]]:
    """Return the stacks with what names them: how many layers they have, and which of those with as many they are."""
    seen: Counter[int] = Counter()
    result = []
    for layers in sequence.stacks:
        many = len(layers.starts)
        result.append(((many, seen[many]), layers))
        seen[many] += 1
    return result


def _families(found: Sequence[Run]) -> dict[tuple[int, int], str]:
    """Return for each stack what its layers are called, with a place for their numbers."""
    every = dict.fromkeys(family for sequence in found for family, _ in _named(sequence))
    if len(every) == 1:
        return dict.fromkeys(every, "layer {}")
    return {(many, turn): f"layer {{}} of {many}" + (f", stack {turn + 1}" if turn else "") for many, turn in every}


def _told_apart(sequence: Run, work: Pieces, ranges: Ranges) -> bool:
    """Whether captured ranges tell the layers of a sequence apart: most neighbours lie in different ones."""
    place = work.place[sequence.pieces]
    captured = (place >= 0) & (work.unreal_thread[sequence.pieces] != NOWHERE)
    if not captured.any():
        return False
    label = np.where(captured, ranges.label[np.maximum(place, 0)], NOWHERE)
    differ = total = 0
    for layers in sequence.stacks:
        bounds = [*layers.starts, layers.end]
        sets = [frozenset(label[a:b].tolist()) - {NOWHERE} for a, b in pairwise(bounds)]
        differ += sum(before != after for before, after in pairwise(sets))
        total += len(sets) - 1
    return differ > TELLS * total


def _accounts(
    sequence: Run, work: Pieces, families: dict[tuple[int, int], str]
) -> Iterator[tuple[tuple[int, int], Layers, tuple[int, int, int, int]]]:
    """Yield for each stack how many nanoseconds its layers, what is before and after them, and all took."""
    spent = np.r_[0, np.cumsum(work.length[sequence.pieces])]
    stacks = _named(sequence)
    total = int(spent[-1])
    for place, (family, layers) in enumerate(stacks):
        before = stacks[place - 1][1].end if place else 0
        head = int(spent[layers.starts[0]] - spent[before])
        tail = total - int(spent[layers.end]) if place == len(stacks) - 1 else 0
        yield family, layers, (int(spent[layers.end] - spent[layers.starts[0]]), head, tail, total)


def _stack(
    family: tuple[int, int],
    families: dict[tuple[int, int], str],
    layers: Sequence[Layers],
    numbers: Sequence[tuple[int, int, int, int]],
    models: Sequence[Model],
) -> Stack:
    spreads = [each.spread for each in layers if each.spread is not None]
    name = families[family].format("0..{}").format(family[0] - 1)
    first = layers[0]
    names = _names(families[family], first, models)
    return Stack(
        name=f"{names[0]} .. {names[-1]}" if first.template is not None else name,
        layers=family[0],
        calls=len(layers),
        ns=sum(number[0] for number in numbers),
        head_ns=sum(number[1] for number in numbers),
        tail_ns=sum(number[2] for number in numbers),
        of_ns=sum(number[3] for number in numbers),
        kinds=tuple(many for _, many in sorted(Counter(first.kinds).items())),
        spread=float(np.median(spreads)) if spreads else None,
        evidence=tuple(dict.fromkeys(why for each in layers for why in each.evidence)),
    )
