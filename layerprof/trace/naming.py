"""What has no range of its own in a trace gets one: from the capture of its CUDA graph, or from its own repetition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from layerprof.trace.attribution import GRAPH, GraphUse, Stack
from layerprof.trace.events import Columns
from layerprof.trace.graphs import captures as capturing
from layerprof.trace.graphs.captured import place_replays
from layerprof.trace.graphs.captures import Capture
from layerprof.trace.graphs.choosing import Chooser, Chosen
from layerprof.trace.graphs.replays import Graph, replays
from layerprof.trace.inference.inferred import Inference, place_layers
from layerprof.trace.inference.untold import containers, models_in, tell_nothing, untold
from layerprof.trace.intervals import Ints
from layerprof.trace.launches import processes
from layerprof.trace.steps import ServerSteps
from layerprof.trace.unreal import Unreal
from layerprof.trace.work import PLACE_OF_BUCKET, LaunchesSeen, Pieces, Ranges

INFERRED_INSTEAD = "its ranges do not tell layers apart, as those of compiled code do not"
THIS = "this trace"


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
    chosen = _chosen(found, Chooser(known, own, found, work.names), steps)
    place_replays(work, seen.inside, unreal, chosen, steps)
    stacks: tuple[Stack, ...] = ()
    after_capture = work.place.copy()
    if infer:
        stacks = _infer(columns, work, ranges, seen, steps, unreal, found)
    uses = _uses(work, chosen, after_capture)
    unused = known and not found
    remarks = ("The trace replays no CUDA graph, so the captures tell nothing about it.",) if unused else ()
    return Named(unreal.ranges, uses, stacks, remarks)


def _chosen(found: Sequence[Graph], chooser: Chooser, steps: ServerSteps) -> list[Chosen]:
    every = sorted((each for graph in found for each in graph.replays), key=lambda replay: replay.moment)
    said = steps.said_at([replay.moment for replay in every], [replay.thread for replay in every])
    return [chooser.choose(replay, step.rows if step else None) for replay, step in zip(every, said, strict=True)]


def _infer(
    columns: Columns,
    work: Pieces,
    ranges: Ranges,
    seen: LaunchesSeen,
    steps: ServerSteps,
    unreal: Unreal,
    found: Sequence[Graph],
) -> tuple[Stack, ...]:
    nothing = tell_nothing(ranges)
    models = [] if nothing.all() else models_in(work, ranges)
    inference = Inference(work, unreal.ranges, steps, models)
    runs = inference.of_graphs(found, seen.inside, containers(ranges, found)) if found else []
    eager = untold(work, ranges, nothing)
    for run in runs:
        eager[run.pieces] = False
    runs = sorted([*runs, *inference.of_eager(eager, processes(columns))], key=lambda run: run.moment)
    return place_layers(work, unreal.ranges, unreal, runs, steps, models)


def _uses(work: Pieces, chosen: Sequence[Chosen], after_capture: Ints) -> tuple[GraphUse, ...]:
    """Return for each graph and capture what became of the replays."""
    alike: dict[tuple[int, str | None], list[Chosen]] = {}
    for each in chosen:
        alike.setdefault((each.replay.graph, each.capture.told if each.capture else None), []).append(each)
    return tuple(_use(work, told, group, after_capture) for (_, told), group in alike.items())


def _use(work: Pieces, told: str | None, group: Sequence[Chosen], after_capture: Ints) -> GraphUse:
    pieces = np.concatenate([each.replay.pieces for each in group])
    length = work.length_of(pieces)
    captured = after_capture[pieces] != PLACE_OF_BUCKET[GRAPH]
    inferred = work.place[pieces] != after_capture[pieces]
    match = group[0].match
    instead = match.by is not None and (captured & inferred).any()
    return GraphUse(
        replays=len(group),
        pieces=max(len(each.replay.pieces) for each in group),
        ns=int(length.sum()),
        matched_ns=int(length[captured & ~inferred].sum()),
        inferred_ns=int(length[inferred].sum()),
        capture=told,
        by=match.by,
        why=INFERRED_INSTEAD if instead else match.why,
    )
