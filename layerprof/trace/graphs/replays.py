"""Replays of CUDA graphs: which pieces of work one launch ran, and which launch of which capture each of them was.

A replay's pieces are laid beside the launches of each capture: by the kernels' names where launches tell them, else by
the order of capture, which the graph node ids give, or on one stream the order in which they ran. Pure numpy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from layerprof.trace.attribution import GRAPH
from layerprof.trace.events import KERNEL, NO_CORRELATION
from layerprof.trace.graphs import matching
from layerprof.trace.graphs.captures import Capture
from layerprof.trace.graphs.matching import NOTHING
from layerprof.trace.intervals import Ints
from layerprof.trace.work import PLACE_OF_BUCKET, Pieces

LEAST_ALIKE = 0.5
"""Share of a replay's pieces that must have a partner by name: with less, it is another graph's capture."""

NODE_IDS, NAMES, ORDER = "graph node ids", "kernel names", "order"
"""What a replay can be matched by."""


@dataclass(frozen=True, slots=True)
class Replay:
    """One launch of a graph: the pieces of work that it ran, in the order of capture as far as that is known.

    `launch` is the position of the launch, `moment` and `thread` when and where it was made.
    """

    launch: int
    moment: int
    thread: int
    pieces: Ints
    graph: int


@dataclass(slots=True)
class Graph:
    """A graph by what its replays ran: names and kinds of the pieces in their order.

    `ordered` says by what that order is known, None where it is not: several streams and no node ids. `known` is its
    own number where node ids tell it, else two graphs that run the same are one.
    """

    names: Ints
    kinds: Ints
    ordered: str | None
    known: int | None = None
    replays: list[Replay] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Match:
    """A graph beside a capture: for each piece the position of its launch, NOTHING for none; by what; why not all."""

    partner: Ints
    by: str | None
    why: str | None = None

    @property
    def count(self) -> int:
        """How many pieces have one."""
        return int((self.partner != NOTHING).sum())


def replays(work: Pieces) -> list[Graph]:
    """Return the graphs that a trace replays, each with its replays, in the order of their first launches."""
    mine = np.flatnonzero(work.place == PLACE_OF_BUCKET[GRAPH])
    mine = mine[np.lexsort((work.start[mine], work.launch[mine]))]
    launches, firsts = np.unique(work.launch[mine], return_index=True)
    found: dict[tuple[bytes, bytes, str | None, int | None], Graph] = {}
    order: list[tuple[int, Graph, Ints, int]] = []
    bounds = [*firsts.tolist(), len(mine)]
    for place, launch in enumerate(launches.tolist()):
        pieces, ordered = _in_order(work, mine[bounds[place] : bounds[place + 1]])
        names, kinds = work.name[pieces], work.kind[pieces]
        # CUPTI's node id has the graph's number in its upper half.
        known = int(work.node[pieces[0]]) >> 32 or None if ordered == NODE_IDS else None
        graph = found.setdefault(
            (names.tobytes(), kinds.tobytes(), ordered, known), Graph(names, kinds, ordered, known)
        )
        order.append((int(work.moment[pieces[0]]), graph, pieces, launch))
    # Launches stand in a file in any order.
    order.sort(key=lambda item: item[0])
    numbers: dict[int, int] = {}
    for moment, graph, pieces, launch in order:
        number = numbers.setdefault(id(graph), len(numbers))
        graph.replays.append(Replay(launch, moment, int(work.thread[pieces[0]]), pieces, number))
    return sorted(found.values(), key=lambda graph: graph.replays[0].graph)


def _in_order(work: Pieces, pieces: Ints) -> tuple[Ints, str | None]:
    nodes = work.node[pieces]
    if (nodes != NO_CORRELATION).all() and len(np.unique(nodes)) == len(nodes):
        return pieces[np.argsort(nodes, kind="stable")], NODE_IDS
    return pieces, (ORDER if len(np.unique(work.stream[pieces])) == 1 else None)


def match(graph: Graph, capture: Capture, names: Sequence[str]) -> Match:
    """Lay a graph beside a capture. `names` are the trace's, by number."""
    if capture.names is not None:
        return _by_names(graph, capture, capture.names, names)
    return _by_order(graph, capture)


def _by_names(graph: Graph, capture: Capture, called: tuple[str, ...], names: Sequence[str]) -> Match:
    """Match by names of kernels; copies and fills have others at their launch, and are matched by being such."""
    numbers: dict[str, int] = {}
    there = _symbols([called[i] for i in range(len(called))], capture.kinds, numbers)
    here = _symbols([names[name] for name in graph.names.tolist()], graph.kinds, numbers)
    nothing = np.full(len(here), NOTHING, np.int64)
    most = sum((Counter(here.tolist()) & Counter(there.tolist())).values())
    if most < LEAST_ALIKE * len(here):
        return Match(nothing, None, "its kernels are others than those of any capture")
    partner = _by_occurrence(here, there) if graph.ordered is None else matching.partners(here, there)
    if (partner != NOTHING).sum() < LEAST_ALIKE * len(here):
        return Match(nothing, None, "its kernels come in another order than in any capture")
    partner = matching.exchanged(
        partner, len(there), lambda mine, theirs: _can_be(graph.kinds[mine], capture.kinds[theirs])
    )
    left = int((partner == NOTHING).sum())
    return Match(partner, NAMES, _left(left, f"of {len(here)} kernels"))


def _can_be(ran: Ints, launched: Ints) -> bool:
    """Whether pieces can be what was launched: a kernel stays one, and a copy or fill may run as one."""
    return bool(((ran == launched) | ((ran == KERNEL) & (launched != KERNEL))).all())


def _symbols(called: Sequence[str], kinds: Ints, numbers: dict[str, int]) -> Ints:
    """Return numbers of names; copies and fills have one each."""
    return np.array(
        [
            numbers.setdefault(name, len(numbers)) if kind == KERNEL else -int(kind)
            for name, kind in zip(called, kinds.tolist(), strict=True)
        ],
        np.int64,
    )


def _by_occurrence(here: Ints, there: Ints) -> Ints:
    """Match name by name, the first with the first: streams run beside each other, each in its order.

    A name that one of the two has more often has no partners.
    """
    result = np.full(len(here), NOTHING, np.int64)
    for symbol in np.unique(here).tolist():
        mine, theirs = np.flatnonzero(here == symbol), np.flatnonzero(there == symbol)
        if len(mine) == len(theirs):
            result[mine] = theirs
    return result


def _by_order(graph: Graph, capture: Capture) -> Match:
    """Match by order alone: exactly as many kernels, and copies and fills where they stand.

    A copy or fill of nothing is called in the capture and is no node of the graph.
    """
    nothing = np.full(len(graph.kinds), NOTHING, np.int64)
    ran, launched = int((graph.kinds == KERNEL).sum()), int((capture.kinds == KERNEL).sum())
    if graph.ordered is None:
        return Match(
            nothing,
            None,
            "its kernels ran on several streams, and neither graph node ids nor names at launches tell their order",
        )
    if len(graph.kinds) == len(capture.kinds) and _can_be(graph.kinds, capture.kinds):
        return Match(np.arange(len(graph.kinds)), graph.ordered)
    if ran != launched:
        kernels_ran = f"{ran} kernel{'' if ran == 1 else 's'}"
        return Match(nothing, None, f"a replay ran {kernels_ran}, and no capture launched as many")
    partner = matching.partners(graph.kinds, capture.kinds)
    kernels = np.flatnonzero(graph.kinds == KERNEL)
    if (partner[kernels] == NOTHING).any():
        partner = nothing.copy()
        partner[kernels] = np.flatnonzero(capture.kinds == KERNEL)
    left = int((partner == NOTHING).sum())
    return Match(partner, graph.ordered, _left(left, "copy or fill" if left == 1 else "copies or fills"))


def _left(many: int, what: str) -> str | None:
    """Say how many of a replay's pieces are in no capture; None where there is nothing to say."""
    return f"{many} {what} {'is' if many == 1 else 'are'} not in the capture" if many else None
