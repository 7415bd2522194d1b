"""Layers that nobody recorded: a sequence of kernels that repeats N times is N layers (`repetition`).

Sequences are cut so that each is of one step of a model: a replay that repeats in itself; else all that graphs and
eager kernels between them ran from one of the server's steps to the next, or from one replay of the first graph to its
next; in a trace without any range and any graph, all that ran. Pure numpy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from layerprof.trace.attribution import GRAPH, Naming, Stack
from layerprof.trace.graphs.replays import Graph, Replay
from layerprof.trace.inference import repetition
from layerprof.trace.inference.repetition import Layers, Template
from layerprof.trace.inference.stacks import BESIDE, Accounts, Families
from layerprof.trace.intervals import NOWHERE, Ints
from layerprof.trace.kernel_names import Does, does
from layerprof.trace.launches import Mask
from layerprof.trace.steps import ServerSteps
from layerprof.trace.unreal import Unreal
from layerprof.trace.work import PLACE_OF_BUCKET, Pieces, Ranges

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
        self._known: dict[tuple[bytes, bool], tuple[Layers, ...]] = {}
        self._inside: Ints = np.zeros(0, np.int64)
        self._loose: dict[int, Ints] = {}
        self._whole: dict[int, bool] = {}

    def of_graphs(self, graphs: Sequence[Graph], inside: Ints, containers: Mask) -> list[Run]:
        """Return the runs with layers among the replays; `inside` is the range around each launch.

        What a server's step replays is one run, but for a whole model that it replays several times, as a draft or a
        vision tower: each replay is one. Without steps a graph that repeats in itself is a run, and of the others what
        they ran, with the eager work between them, from one replay of the rarest to its next.
        """
        self._inside, self._loose = inside, self._held_by_containers(containers)
        found: list[Run] = []
        parts: list[Replay] = []
        every = sorted((each for graph in graphs for each in graph.replays), key=lambda replay: replay.moment)
        for step, together in self._by_step(every):
            many = Counter(replay.graph for replay in together)
            pieces = [each for each in together if many[each.graph] == 1 or not self._is_whole(graphs[each.graph])]
            joint = self._joint(pieces) if step != NOWHERE and len(pieces) > 1 else None
            found += [joint] if joint else []
            joined = {each.launch for each in pieces} if joint else set()
            for replay in (each for each in together if each.launch not in joined):
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
            stacks = self._find(work.name[pieces], work.length_of(pieces), False) if len(pieces) else ()
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
        part = replay.part
        length = self._work.length_of(replay.pieces) if part is None else np.ones(len(graph.names), np.int64)
        stacks = self._find(graph.names, length, True)
        if part is not None:
            stacks = tuple(_part_of(layers, part) for layers in stacks)
        around = int(self._inside[replay.launch])
        return Run(replay.pieces, stacks, replay.moment, replay.thread, around) if stacks else None

    def _is_whole(self, graph: Graph) -> bool:
        """Whether a graph is of a whole model, however few layers it has: with what comes before or after them."""
        done = self._whole.get(id(graph))
        if done is None:
            kinds = {does(self._work.names[name]) for name in np.unique(graph.names).tolist()}
            stacks = self._find(graph.names, np.ones(len(graph.names), np.int64), True)
            alone = bool(stacks) and (stacks[0].starts[0] > 0 or stacks[-1].end < len(graph.names))
            around = not kinds.isdisjoint({Does.EMBEDDING, Does.SAMPLE})
            done = self._whole[id(graph)] = Does.ATTENTION in kinds and (alone or around)
        return done

    def _joint(self, together: Sequence[Replay]) -> Run | None:
        """Return what some replays and the eager work between them ran, where it has layers."""
        work, first = self._work, together[0]
        pieces = np.concatenate([replay.pieces for replay in together])
        loose = self._loose.get(first.thread, np.zeros(0, np.int64))
        low, high = np.searchsorted(work.start[loose], [work.start[pieces].min(), work.start[pieces].max()])
        if len(together) == 1 and low == high:
            return None  # it was looked at by itself
        pieces = np.concatenate([pieces, loose[low:high]])
        pieces = pieces[np.argsort(work.start[pieces], kind="stable")]
        stacks = self._find(work.name[pieces], work.length_of(pieces), True)
        around = int(self._inside[first.launch])
        return Run(pieces, stacks, first.moment, first.thread, around) if stacks else None

    def _find(self, names: Ints, length: Ints, in_graph: bool) -> tuple[Layers, ...]:
        key = (names.tobytes(), in_graph)
        if key not in self._known:
            called = [self._work.names[name] for name in names.tolist()]
            templates = [model.template for model in self._models]
            self._known[key] = repetition.find(called, length.tolist(), templates, in_graph=in_graph)
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


def _part_of(layers: Layers, part: Ints) -> Layers:
    """Return a stack's layers in a part of its sequence; those that are not in it are empty."""
    starts, end = np.searchsorted(part, layers.starts).tolist(), int(np.searchsorted(part, layers.end))
    return replace(layers, starts=tuple(starts), end=end)


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
    kept = [run for run in found if not _told_apart(run, work, ranges)]
    families = Families([(run.stacks, work.name[run.pieces]) for run in kept], [model.rows for model in models])
    accounts = Accounts(families)
    said = steps.said_at([run.moment for run in kept], [run.thread for run in kept])
    for number, (run, step) in enumerate(zip(kept, said, strict=True)):
        phase = step.phase if step else None
        starts, ends, names = families.parts(number)
        label = unreal.labels([(name, phase, Naming.INFERRED) for name in names])
        length = work.length_of(run.pieces)
        first, now = unreal.add(starts, ends, 0, label, length=len(run.pieces), seen=run.moment, holder=run.around)
        _take(work, run, ends, first, now, unreal, names)
        accounts.add(number, length)
    return accounts.stacks()


def _take(work: Pieces, run: Run, ends: Ints, first: int, now: int, unreal: Unreal, names: Sequence[str]) -> None:
    """Place a run's pieces; eager ones that lie in no layer stay where they are, unless nothing else is there."""
    position = np.arange(len(run.pieces))
    part = np.searchsorted(ends, position, "right")
    layer = np.array([name not in BESIDE for name in names])
    pieces = run.pieces
    graph = (work.place[pieces] == PLACE_OF_BUCKET[GRAPH]) | (work.unreal_thread[pieces] != NOWHERE)
    mine = layer[part] | graph | ~graph.any()
    work.place[pieces[mine]] = first + part[mine]
    work.unreal_thread[pieces[mine]] = unreal.thread(0)
    work.unreal_moment[pieces[mine]] = now + position[mine]


def _told_apart(run: Run, work: Pieces, ranges: Ranges) -> bool:
    """Whether captured ranges tell the layers of a sequence apart: most neighbours lie in different ones."""
    place = work.place[run.pieces]
    captured = (place >= 0) & (work.unreal_thread[run.pieces] != NOWHERE)
    if not captured.any():
        return False
    label = np.where(captured, ranges.label[np.maximum(place, 0)], NOWHERE)
    differ = total = 0
    for layers in run.stacks:
        bounds = [*layers.starts, layers.end]
        sets = [frozenset(label[a:b].tolist()) - {NOWHERE} for a, b in pairwise(bounds)]
        differ += sum(before != after for before, after in pairwise(sets))
        total += len(sets) - 1
    return differ > TELLS * total
