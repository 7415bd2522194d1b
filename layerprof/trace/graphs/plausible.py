"""Whether a capture can be a graph's where nothing but the number of kernels says so: its layers begin alike."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from layerprof.trace.graphs.captures import Scene
from layerprof.trace.graphs.matching import NOTHING
from layerprof.trace.graphs.replays import Graph
from layerprof.trace.intervals import Ints
from layerprof.trace.kernel_names import coarse

LEAST_INSTANCES, LEAST_LAUNCHES = 4, 3
"""A class of modules can tell from so many instances on, of so many launches each."""
ALIKE = 0.6
"""Share of a class's instances that must begin with the same kernel; the first and kinds that alternate may not."""

NUMBERED = re.compile(r"(.+?)[_.](\d+)")
"""Name of an instance: its class, or the list that holds it, and its number."""


def misfit(graph: Graph, scene: Scene, partner: Ints, names: Sequence[str]) -> str | None:
    """Return the class of modules whose instances would begin with different kernels; None where nothing is wrong.

    The class that holds most launches each is asked: a model's layers. Another model's capture with as many kernels
    cuts the sequence elsewhere, each time at another place of the layer.
    """
    firsts: dict[str, dict[str, int]] = {}
    sizes: Counter[str] = Counter()
    first, many = _inside(scene)
    piece = np.full(len(scene.moment) + 1, NOTHING, np.int64)
    has = np.flatnonzero(partner != NOTHING)
    piece[partner[has]] = has
    for (name, _), launch, size in zip(scene.labels, piece[first].tolist(), many.tolist(), strict=True):
        found = NUMBERED.fullmatch(name)
        if found and size and launch != NOTHING:
            firsts.setdefault(found[1], {}).setdefault(name, launch)
            sizes[found[1]] += size
    large = {
        kind: sizes[kind] / len(places)
        for kind, places in firsts.items()
        if len(places) >= LEAST_INSTANCES and sizes[kind] >= LEAST_LAUNCHES * len(places)
    }
    if not large:
        return None
    kind = max(large, key=large.__getitem__)
    begins = Counter(coarse(names[graph.names[place]]) for place in firsts[kind].values())
    return kind if begins.most_common(1)[0][1] < ALIKE * sum(begins.values()) else None


def _inside(scene: Scene) -> tuple[Ints, Ints]:
    """Return for each range the position of the first launch in it (past the end where there is none), and how many."""
    first, many = np.full(len(scene.start), len(scene.moment)), np.zeros(len(scene.start), np.int64)
    for thread in np.unique(scene.thread):
        mine, launched = np.flatnonzero(scene.thread == thread), np.flatnonzero(scene.where == thread)
        low, high = (np.searchsorted(scene.moment[launched], times[mine]) for times in (scene.start, scene.end))
        many[mine] = high - low
        first[mine] = np.r_[launched, len(scene.moment)][low]
    return first, many
