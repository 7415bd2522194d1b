"""Replays of CUDA graphs: which pieces of work one launch ran, and which launch of which capture each of them was.

A replay's pieces are laid beside the launches of each capture: by the kernels' names where launches tell them, else by
the order of capture, which the graph node ids give, or on one stream the order in which they ran. Pure numpy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

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

    `launch` is the position of the launch, `moment` and `thread` when and where it was made, `graph` the number of its
    graph. `part` are the places of the pieces in the graph where it is a part of a replay.
    """

    launch: int
    moment: int
    thread: int
    pieces: Ints
    graph: int
    part: Ints | None = None


@dataclass(slots=True)
class Graph:
    """A graph by what its replays ran: names and kinds of the pieces in their order.

    `ordered` says by what that order is known, None where it is not: several streams and no node ids. `known` is its
    own number where node ids tell it, else two graphs that run the same are one. `number` is its place among those of
    the trace.
    """

    names: Ints
    kinds: Ints
    ordered: str | None
    known: int | None = None
    number: int = 0
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
    """Return the graphs that a trace replays, each with its replays, in the order of their first launches.

    A replay of which the recording has a part alone is one of the whole graph where node ids tell which part.
    """
    mine = np.flatnonzero(work.place == PLACE_OF_BUCKET[GRAPH])
    mine = mine[np.lexsort((work.start[mine], work.launch[mine]))]
    launches, firsts = np.unique(work.launch[mine], return_index=True)
    bounds = [*firsts.tolist(), len(mine)]
    ran = [_in_order(work, mine[a:b]) for a, b in pairwise(bounds)]
    # Launches stand in a file in any order.
    order = np.argsort(work.moment[mine[firsts]], kind="stable").tolist()
    whole: dict[int, Ints] = {}
    for pieces, known in (ran[place] for place in order):
        if known and len(pieces) > len(whole.get(known, pieces[:0])):
            whole[known] = pieces
    found: dict[tuple[bytes, bytes, str | None, int | None], Graph] = {}
    firsts_of: dict[bytes, Ints] = {}
    for place in order:
        pieces, known = ran[place]
        ordered = NODE_IDS if known is not None else _order(work, pieces)
        if ordered is None:
            pieces = _like_the_first(work, pieces, firsts_of)
        all_of_it, part = _part(work, pieces, whole.get(known) if known else None)
        names, kinds = work.name[all_of_it], work.kind[all_of_it]
        graph = found.setdefault(
            (names.tobytes(), kinds.tobytes(), ordered, known),
            Graph(names, kinds, ordered, known or None, number=len(found)),
        )
        first = pieces[0]
        graph.replays.append(
            Replay(int(launches[place]), int(work.moment[first]), int(work.thread[first]), pieces, graph.number, part)
        )
    return list(found.values())


def _in_order(work: Pieces, pieces: Ints) -> tuple[Ints, int | None]:
    """Return pieces in the order of capture where node ids tell it, with the number of their graph (0: not told).

    CUPTI's node id has the graph's number in its upper half.
    """
    nodes = work.node[pieces]
    if (nodes != NO_CORRELATION).all() and len(np.unique(nodes)) == len(nodes):
        return pieces[np.argsort(nodes, kind="stable")], int(nodes[0]) >> 32
    return pieces, None


def _order(work: Pieces, pieces: Ints) -> str | None:
    return ORDER if len(np.unique(work.stream[pieces])) == 1 else None


def _like_the_first(work: Pieces, pieces: Ints, firsts: dict[bytes, Ints]) -> Ints:
    """Return pieces in the order of the first replay that ran as many of each name, and note a first one.

    Streams run beside each other, and each in its own order: the n-th of a name is the n-th of every replay.
    """
    names = work.name[pieces]
    by_name = np.argsort(names, kind="stable")
    first = firsts.setdefault(names[by_name].tobytes(), names)
    result = np.empty_like(pieces)
    result[np.argsort(first, kind="stable")] = pieces[by_name]
    return result


def _part(work: Pieces, pieces: Ints, whole: Ints | None) -> tuple[Ints, Ints | None]:
    """Return the pieces of a whole replay of the graph, and which of them these are; themselves where they are all."""
    if whole is None or len(whole) == len(pieces):
        return pieces, None
    place = np.searchsorted(work.node[whole], work.node[pieces])
    there = whole[np.minimum(place, len(whole) - 1)]
    same = (work.node[there] == work.node[pieces]) & (work.name[there] == work.name[pieces])
    return (whole, place) if same.all() else (pieces, None)


def match(graph: Graph, capture: Capture, names: Sequence[str]) -> Match:
    """Lay a graph beside a capture. `names` are the trace's, by number."""
    if capture.names is not None:
        return _by_names(graph, capture, capture.names, names)
    return _by_order(graph, capture)


def _by_names(graph: Graph, capture: Capture, called: tuple[str, ...], names: Sequence[str]) -> Match:
    """Match by names of kernels; copies and fills have others at their launch, and are matched by being such."""
    numbers: dict[str, int] = {}
    there = _symbols(called, capture.kinds, numbers)
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
