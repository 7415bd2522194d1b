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
SAME_SIZE = 1.25
"""Layers of two stacks are of one size when the kernels in them are as many, but for this factor."""
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
        self._inside: Ints = np.zeros(0, np.int64)
        self._loose: dict[int, Ints] = {}

    def of_graphs(self, graphs: Sequence[Graph], inside: Ints, containers: Mask) -> list[Run]:
        """Return the runs with layers among the replays; `inside` is the range around each launch.

        What a server's step replays is one run. Without steps a graph that repeats in itself is one, and of the others
        what they ran, with the eager work between them, from one replay of the rarest to its next.
        """
        self._inside, self._loose = inside, self._held_by_containers(containers)
        found: list[Run] = []
        parts: list[Replay] = []
        every = sorted((each for graph in graphs for each in graph.replays), key=lambda replay: replay.moment)
        for step, together in self._by_step(every):
            joint = self._joint(together) if step != NOWHERE and len(together) > 1 else None
            if joint:
                found.append(joint)
                continue
            for replay in together:
                alone = self._alone(replay, graphs[replay.graph])
                found += [alone] if alone else []
                parts += [] if alone else [replay]
        for together in _turns(parts):
            joint = self._joint(together)
            found += [joint] if joint else []
        return sorted(found, key=lambda run: run.moment)

    def of_eager(self, told_nothing: Mask, devices: Ints) -> list[Run]:
        """Return the runs with layers among pieces that ran eagerly and of which ranges tell nothing.

        One for each device (by stream in `devices`) and each of a server's steps.
        """
        work = self._work
        which = np.flatnonzero(told_nothing & (work.thread >= 0))
        step = self._steps.at(work.moment[which], work.thread[which])
        order = np.lexsort((work.start[which], step, devices[work.stream[which]]))
        which, step = which[order], step[order]
        cuts = np.flatnonzero((np.diff(step) != 0) | (np.diff(devices[work.stream[which]]) != 0)) + 1
        found = []
        for pieces in np.split(which, cuts):
            stacks = self._find(work.name[pieces], work.length[pieces]) if len(pieces) else ()
            if stacks:
                first = pieces[0]
                around = int(work.place[first])
                found.append(Run(pieces, stacks, int(work.moment[first]), int(work.thread[first]), around))
        return found

    def _by_step(self, every: Sequence[Replay]) -> Iterator[tuple[int, list[Replay]]]:
        """Yield the replays of each of a server's steps, and those of none together."""
        where = np.array([(replay.moment, replay.thread) for replay in every], np.int64).reshape(-1, 2)
        together: dict[int, list[Replay]] = {}
        for step, replay in zip(self._steps.at(where[:, 0], where[:, 1]).tolist(), every, strict=True):
            together.setdefault(step, []).append(replay)
        yield from together.items()

    def _alone(self, replay: Replay, graph: Graph) -> Run | None:
        stacks = self._find(graph.names, self._work.length[replay.pieces])
        around = int(self._inside[replay.launch])
        return Run(replay.pieces, stacks, replay.moment, replay.thread, around) if stacks else None

    def _joint(self, together: Sequence[Replay]) -> Run | None:
        """Return what some replays and the eager work between them ran, where it has layers."""
        work, first = self._work, together[0]
        pieces = np.concatenate([replay.pieces for replay in together])
        loose = self._loose.get(first.thread, np.zeros(0, np.int64))
        low, high = np.searchsorted(work.start[loose], [work.start[pieces].min(), work.start[pieces].max()])
        pieces = np.concatenate([pieces, loose[low:high]])
        pieces = pieces[np.argsort(work.start[pieces], kind="stable")]
        stacks = self._find(work.name[pieces], work.length[pieces])
        around = int(self._inside[first.launch])
        return Run(pieces, stacks, first.moment, first.thread, around) if stacks else None

    def _find(self, names: Ints, length: Ints) -> tuple[Layers, ...]:
        key = names.tobytes()
        if key not in self._known:
            called = [self._work.names[name] for name in names.tolist()]
            templates = [model.template for model in self._models]
            self._known[key] = repetition.find(called, length.tolist(), templates)
        return self._known[key]

    def _held_by_containers(self, containers: Mask) -> dict[int, Ints]:
        """Return for each thread the eager pieces that no range but a container holds, in the order they ran in."""
        work = self._work
        held = np.flatnonzero((work.place >= 0) & (work.unreal_thread == NOWHERE))
        held = held[containers[self._ranges.label[work.place[held]]]]
        loose = np.r_[np.flatnonzero(work.place == NOWHERE), held]
        loose = loose[np.lexsort((work.start[loose], work.thread[loose]))]
        threads, firsts = np.unique(work.thread[loose], return_index=True)
        bounds = [*firsts.tolist(), len(loose)]
        return {thread: loose[bounds[n] : bounds[n + 1]] for n, thread in enumerate(threads.tolist())}


def _turns(parts: Sequence[Replay]) -> Iterator[list[Replay]]:
    """Yield, thread by thread, the replays from one of the thread's rarest graph to its next."""
    threads = dict.fromkeys(replay.thread for replay in parts)
    for thread in threads:
        mine = [replay for replay in parts if replay.thread == thread]
        many = Counter(replay.graph for replay in mine)
        rarest = min(many.values())
        begins = next(replay.graph for replay in mine if many[replay.graph] == rarest)
        together: list[Replay] = []
        for replay in mine:
            if together and replay.graph == begins:
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
    """Return the stacks with what names them: how many layers they have, and which of those with as many they are.

    Stacks of as many layers are one stack passed again, unless their layers are of another size: an encoder and a
    decoder may have as many, and differ in what each runs.
    """
    sizes: dict[int, list[float]] = {}
    result = []
    for layers in sequence.stacks:
        many = len(layers.starts)
        size = (layers.end - layers.starts[0]) / many
        known = sizes.setdefault(many, [])
        alike = [turn for turn, other in enumerate(known) if max(size, other) <= SAME_SIZE * min(size, other)]
        if not alike:
            known.append(size)
        result.append(((many, alike[0] if alike else len(known) - 1), layers))
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
