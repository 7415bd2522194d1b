"""What ranges tell of the work in them, and what they do not: where layers must be inferred. Pure numpy."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from layerprof.trace.graphs.plausible import NUMBERED
from layerprof.trace.graphs.replays import Graph
from layerprof.trace.inference.inferred import Model
from layerprof.trace.inference.repetition import Template
from layerprof.trace.intervals import NOWHERE
from layerprof.trace.launches import Mask
from layerprof.trace.work import Pieces, Ranges

LEAST_INSTANCES, LEAST_KERNELS, MOST_MODELS = 3, 3, 8
"""A class of modules can tell what a layer is from so many instances on, of so many kernels each."""

STEP_LABELS = frozenset({"execute", "step", "prefill", "decode"})
COMPILED = re.compile(r"## Call CompiledFxGraph|Torch-Compiled Region|CompiledFunction|GraphModule(_\d+)?$")
"""Names of the ranges that torch.compile makes around all that it compiled."""
MUCH = 0.1
"""Share of all work that must be in ranges that tell nothing for layers to be looked for there."""


def untold(work: Pieces, ranges: Ranges, nothing: Mask) -> Mask:
    """Tell which eager pieces no range tells anything of: all in a server's steps or compiled code, where that is much.

    What ran outside all ranges counts only where no range tells anything at all: who sets some leaves out the rest.
    """
    eager = (work.place >= 0) & (work.unreal_thread == NOWHERE)
    held: Mask = np.zeros(len(work.place), bool)
    held[eager] = nothing[ranges.label[work.place[eager]]]
    if nothing.all():
        held |= work.place == NOWHERE
    elif int(work.length[held].sum()) <= MUCH * int(work.length.sum()):
        held[:] = False
    return held


def tell_nothing(ranges: Ranges) -> Mask:
    """Tell which labels do not say what a kernel belongs to: a server's steps, and all that compiled code has."""
    return np.array([name in STEP_LABELS or bool(COMPILED.match(name)) for name, *_ in ranges.labels], bool)


def containers(ranges: Ranges, found: Sequence[Graph]) -> Mask:
    """Tell which labels have a range that holds a launch of a graph: what they hold themselves may be a layer's."""
    result = np.zeros(len(ranges.labels), bool)
    where = np.array([(replay.moment, replay.thread) for graph in found for replay in graph.replays], np.int64)
    for thread in np.unique(where[:, 1]).tolist():
        moments = np.sort(where[where[:, 1] == thread, 0])
        mine = ranges.of(thread)
        holds = np.searchsorted(moments, ranges.end[mine]) > np.searchsorted(moments, ranges.start[mine])
        result[ranges.label[mine[holds]]] = True
    return result


def models_in(work: Pieces, ranges: Ranges) -> list[Model]:
    """Return the classes of modules of which several ran eagerly, each with the kernels of one in the midst."""
    classes: dict[str, dict[int, int]] = {}
    for place, (name, *_) in enumerate(ranges.labels):
        if found := NUMBERED.fullmatch(name):
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
