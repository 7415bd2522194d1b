"""What has no range of its own in a trace gets one: from the capture of its CUDA graph, or from its own repetition."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from layerprof.trace import captures as capturing
from layerprof.trace.attribution import GraphUse, Stack
from layerprof.trace.captured import Chooser, Chosen, place_replays
from layerprof.trace.captures import Capture
from layerprof.trace.events import Columns
from layerprof.trace.graphs import Graph, replays
from layerprof.trace.inferred import Inference, Model, place_layers
from layerprof.trace.intervals import NOWHERE, Ints
from layerprof.trace.launches import Mask
from layerprof.trace.repetition import Template
from layerprof.trace.steps import ServerSteps
from layerprof.trace.unreal import Unreal
from layerprof.trace.work import PLACE_OF_BUCKET, LaunchesSeen, Pieces, Ranges

INFERRED_INSTEAD = "its capture does not tell layers apart (compiled code), so they were inferred"
THIS = "this trace"
LEAST_INSTANCES, LEAST_KERNELS, MOST_MODELS = 3, 3, 8
"""A class of modules can tell what a layer is from so many instances on, of so many kernels each."""


@dataclass(frozen=True, slots=True)
class Named:
    """All ranges, and what was found out of graphs and stacks."""

    ranges: Ranges
    graphs: tuple[GraphUse, ...] = ()
    stacks: tuple[Stack, ...] = ()
    remarks: tuple[str, ...] = ()


def name_graphs(
    columns: Columns,
    work: Pieces,
    ranges: Ranges,
    seen: LaunchesSeen,
    steps: ServerSteps,
    known: Sequence[Capture],
    infer: bool,
) -> Named:
    """Place the work of replayed graphs, and in a trace without ranges all work, in ranges of its own, in place."""
    found = replays(work)
    own = capturing.find(columns, ranges, seen, work.launch, THIS) if found else []
    unreal = Unreal(ranges)
    chosen = _chosen(found, [*known, *(replace(capture, own=True) for capture in own)], work, steps)
    place_replays(work, seen.inside, unreal, chosen, steps)
    stacks: tuple[Stack, ...] = ()
    after_capture = work.place.copy()
    if infer:
        stacks = _infer(work, ranges, seen, steps, unreal, found)
    uses = _uses(work, chosen, after_capture)
    unused = known and not found
    remarks = ("The trace replays no CUDA graph, so the captures tell nothing about it.",) if unused else ()
    return Named(unreal.ranges, uses, stacks, remarks)


def _chosen(found: Sequence[Graph], known: Sequence[Capture], work: Pieces, steps: ServerSteps) -> list[Chosen]:
    chooser = Chooser(known, found, work.names)
    every = sorted((each for graph in found for each in graph.replays), key=lambda replay: replay.moment)
    moments = np.array([replay.moment for replay in every], np.int64)
    step = steps.at(moments, np.array([replay.thread for replay in every], np.int64))
    rows = [None if at == NOWHERE else steps.said[at].rows for at in step.tolist()]
    return [chooser.choose(replay, many) for replay, many in zip(every, rows, strict=True)]


def _infer(
    work: Pieces, ranges: Ranges, seen: LaunchesSeen, steps: ServerSteps, unreal: Unreal, found: Sequence[Graph]
) -> tuple[Stack, ...]:
    tells = _labels_that_tell(ranges)
    if not found and tells.any():
        return ()
    models = _models(work, ranges) if tells.any() else []
    inference = Inference(work, unreal.ranges, steps, models)
    sequences = inference.of_eager()
    if found:
        sequences = inference.of_graphs(found, seen.inside, _containers(ranges, found))
    return place_layers(work, unreal.ranges, unreal, sequences, steps, models)


def _labels_that_tell(ranges: Ranges) -> Mask:
    """Tell which labels are more than a server's steps: they say what a kernel belongs to."""
    return np.array([name not in STEP_LABELS for name, *_ in ranges.labels], bool)


STEP_LABELS = frozenset({"execute", "step", "prefill", "decode"})


def _containers(ranges: Ranges, found: Sequence[Graph]) -> Mask:
    """Tell which labels have a range that holds a launch of a graph: what they hold themselves may be a layer's."""
    result = np.zeros(len(ranges.labels), bool)
    where = np.array([(replay.moment, replay.thread) for graph in found for replay in graph.replays], np.int64)
    for thread in np.unique(where[:, 1]).tolist():
        moments = np.sort(where[where[:, 1] == thread, 0])
        mine = ranges.of(thread)
        holds = np.searchsorted(moments, ranges.end[mine]) > np.searchsorted(moments, ranges.start[mine])
        result[ranges.label[mine[holds]]] = True
    return result


def _models(work: Pieces, ranges: Ranges) -> list[Model]:
    """Return the classes of modules of which several ran eagerly, each with the kernels of one in the midst."""
    classes: dict[str, dict[int, int]] = {}
    for place, (name, *_) in enumerate(ranges.labels):
        if found := re.fullmatch(r"(.+?)[_.](\d+)", name):
            classes.setdefault(found[1], {}).setdefault(int(found[2]), place)
    result = []
    for name, labels in classes.items():
        if len(labels) < LEAST_INSTANCES:
            continue
        numbers = sorted(labels)
        kernels = _kernels_in(work, ranges, labels[numbers[len(numbers) // 2]])
        if len(kernels) >= LEAST_KERNELS:
            rows = tuple(ranges.labels[labels[number]][0] for number in numbers)
            result.append(Model(Template(name, kernels, len(numbers)), rows))
    return sorted(result, key=lambda model: -len(model.template.kernels))[:MOST_MODELS]


def _kernels_in(work: Pieces, ranges: Ranges, label: int) -> tuple[str, ...]:
    """Return the kernels that the first call of a label launched itself, no graph's."""
    first = int(np.flatnonzero(ranges.label == label)[0])
    inside = (work.thread == ranges.thread[first]) & (work.place >= NOWHERE)
    inside &= (work.moment >= ranges.start[first]) & (work.moment < ranges.end[first])
    inside &= work.unreal_thread == NOWHERE
    pieces = np.flatnonzero(inside)
    return tuple(work.names[name] for name in work.name[pieces[np.argsort(work.start[pieces])]].tolist())


def _uses(work: Pieces, chosen: Sequence[Chosen], after_capture: Ints) -> tuple[GraphUse, ...]:
    """Return for each graph and capture what became of the replays."""
    alike: dict[tuple[int, str | None], list[Chosen]] = {}
    for each in chosen:
        alike.setdefault((each.replay.graph, each.capture.told if each.capture else None), []).append(each)
    return tuple(_use(work, told, group, after_capture) for (_, told), group in alike.items())


def _use(work: Pieces, told: str | None, group: Sequence[Chosen], after_capture: Ints) -> GraphUse:
    pieces = np.concatenate([each.replay.pieces for each in group])
    length = work.length[pieces]
    named = work.place[pieces] != PLACE_OF_BUCKET["graph launch"]
    match = group[0].match
    captured = after_capture[pieces] != PLACE_OF_BUCKET["graph launch"]
    inferred = work.place[pieces] != after_capture[pieces]
    instead = match.by is not None and (captured & inferred).any()
    return GraphUse(
        replays=len(group),
        pieces=len(group[0].replay.pieces),
        ns=int(length.sum()),
        matched_ns=int(length[named].sum()),
        capture=told,
        by=match.by,
        why=INFERRED_INSTEAD if instead else match.why,
    )
