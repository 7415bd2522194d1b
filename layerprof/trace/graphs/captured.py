"""Which capture each replay of a CUDA graph was made from, and whose work its pieces therefore are."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from layerprof.trace.attribution import Key, Naming
from layerprof.trace.events import KERNEL
from layerprof.trace.graphs import replays
from layerprof.trace.graphs.capture_names import shown
from layerprof.trace.graphs.captures import Capture
from layerprof.trace.graphs.matching import NOTHING
from layerprof.trace.graphs.plausible import misfit
from layerprof.trace.graphs.replays import Graph, Match, Replay
from layerprof.trace.intervals import NOWHERE, Ints
from layerprof.trace.launches import FIRST
from layerprof.trace.steps import ServerSteps
from layerprof.trace.unreal import Unreal
from layerprof.trace.work import Pieces

NO_RANGES = "the capture has no ranges: record it under the layers' ranges, or with with_stack=True"
NO_CAPTURE = "no capture of it is known"


@dataclass(frozen=True, slots=True)
class Chosen:
    """A replay and the capture that it is told by; `match.by` is None where it is told by none, and `match.why` why."""

    replay: Replay
    capture: Capture | None
    match: Match


@dataclass(frozen=True, slots=True)
class _Fits:
    """Captures that a graph was laid beside: those with partners for `counts` of its pieces, and why others have none.

    By place among all captures. Of the reasons, those of captures with as many kernels stand first.
    """

    matches: dict[int, Match]
    counts: dict[int, int]
    whys: dict[int, str]


@dataclass(frozen=True, slots=True)
class _Tied:
    """Captures that have most partners, and as many; `alike` where their ranges are the same."""

    places: dict[int, None]
    alike: bool


class Chooser:
    """Chooses for each replay, in the order of their launches, the capture that it is most like.

    Of captures that are as much like it, the one for the number of rows that the server's step says; then, where their
    ranges differ, the next one in the order of capture: piecewise graphs are replayed in the order of their capture.
    `captures` of the trace itself stand behind all others, in the order in which they ended.
    """

    def __init__(self, captures: Sequence[Capture], found: Sequence[Graph], names: Sequence[str]) -> None:
        self._captures = captures
        self._graphs = found
        self._names = names
        self._ended = [capture.ended if capture.own else FIRST for capture in captures]
        self._named = np.array([capture.names is not None for capture in captures], bool)
        self._kernels = np.array([(capture.kinds == KERNEL).sum() for capture in captures], np.int64)
        self._sizes = np.array([len(capture.kinds) for capture in captures], np.int64)
        self._labels = [capture.labels for capture in captures]
        self._fitting: dict[int, _Fits] = {}
        self._tying: dict[tuple[int, int], _Tied] = {}
        self._nearest: dict[tuple[int, int, int | None], list[list[int]]] = {}
        self._last: dict[tuple[str, str], int] = {}
        self._fixed: dict[int, int] = {}

    def choose(self, replay: Replay, rows: int | None) -> Chosen:
        """Return the capture of a replay; `rows` is how many its step says that it has."""
        able = bisect_right(self._ended, replay.moment)
        fits, tied = self._fits(replay.graph), self._tied(replay.graph, able)
        if not tied.places:
            why = next((why for place, why in fits.whys.items() if place < able), NO_CAPTURE)
            return Chosen(replay, None, Match(np.full(len(replay.pieces), NOTHING), None, why))
        place = self._fixed.get(replay.graph, NOWHERE)
        if place not in tied.places:
            place = self._next(self._near(replay.graph, able, rows), tied.alike)
        if self._graphs[replay.graph].known is not None:
            self._fixed[replay.graph] = place
        capture = self._captures[place]
        self._last[capture.source, capture.title] = place
        match = fits.matches[place]
        if not capture.scene.labels:
            match = Match(np.full(len(replay.pieces), NOTHING), None, NO_RANGES)
        return Chosen(replay, capture, match)

    def _fits(self, number: int) -> _Fits:
        """Lay a graph beside all captures; of those that can be no match since they launched others, beside one."""
        if number not in self._fitting:
            graph = self._graphs[number]
            as_many = self._kernels == (graph.kinds == KERNEL).sum()
            may_be = self._named | (self._sizes == len(graph.kinds))
            orders = as_many, may_be & ~as_many, ~may_be & ~as_many
            likely, able, odd = (np.flatnonzero(which).tolist() for which in orders)
            matches = {place: self._match(graph, self._captures[place]) for place in (*likely, *able, *odd[:1])}
            counts = {place: many for place in sorted(matches) if (many := matches[place].count)}
            whys = {place: match.why for place, match in matches.items() if match.why}
            self._fitting[number] = _Fits(matches, counts, whys)
        return self._fitting[number]

    def _match(self, graph: Graph, capture: Capture) -> Match:
        found = replays.match(graph, capture, self._names)
        if found.by in (None, replays.NAMES):
            return found
        kind = misfit(graph, capture.scene, found.partner, self._names)
        if kind is None:
            return found
        why = (
            f"{capture.told} has as many kernels, but each {kind} in it would begin with another: it is not its capture"
        )
        return Match(np.full(len(found.partner), NOTHING), None, why)

    def _tied(self, number: int, able: int) -> _Tied:
        """Return the best captures of a graph among the first so many."""
        if (number, able) not in self._tying:
            counts = {place: count for place, count in self._fits(number).counts.items() if place < able}
            most = max(counts.values(), default=0)
            places = dict.fromkeys(place for place, count in counts.items() if count == most)
            self._tying[number, able] = _Tied(places, len({self._labels[place] for place in places}) <= 1)
        return self._tying[number, able]

    def _near(self, number: int, able: int, rows: int | None) -> list[list[int]]:
        """Return the best captures of a graph whose size is nearest to the rows, by family, in order."""
        key = number, able, rows
        if key not in self._nearest:
            far = {place: self._far(place, rows) for place in self._tied(number, able).places}
            least = min(far.values())
            families: dict[tuple[str, str], list[int]] = {}
            for place in (place for place, this in far.items() if this == least):
                families.setdefault((self._captures[place].source, self._captures[place].title), []).append(place)
            self._nearest[key] = list(families.values())
        return self._nearest[key]

    def _far(self, place: int, rows: int | None) -> tuple[bool, int]:
        """Return how far a capture's size is from the rows: a graph is padded up to the next size that there is."""
        size = self._captures[place].size
        if rows is None or size is None:
            return False, 0
        return size < rows, abs(size - rows)

    def _next(self, families: Sequence[Sequence[int]], alike: bool) -> int:
        """Return the capture that comes soonest after the last one that was chosen of its family."""
        if alike:
            return min(places[0] for places in families)
        turns = []
        for places in families:
            capture = self._captures[places[0]]
            last = self._last.get((capture.source, capture.title), NOWHERE)
            place = places[bisect_right(places, last) % len(places)]
            turns.append(((place - last - 1) % len(self._captures), place))
        return min(turns)[1]


def place_replays(work: Pieces, inside: Ints, unreal: Unreal, chosen: Sequence[Chosen], steps: ServerSteps) -> None:
    """Give each piece of a replay the range that was open when its launch was captured, in place.

    `inside` is the range around each launch. What was captured with no range open belongs to the one around the
    replay's launch.
    """
    known: dict[tuple[int, object], Ints] = {}
    if not chosen:
        return
    names = shown(each.capture for each in chosen if each.capture and each.match.by)
    moments = np.array([each.replay.moment for each in chosen], np.int64)
    step = steps.at(moments, np.array([each.replay.thread for each in chosen], np.int64))
    for each, at in zip(chosen, step.tolist(), strict=True):
        if each.capture is None or each.match.by is None:
            continue
        scene = each.capture.scene
        phase = steps.said[at].phase if at != NOWHERE else None
        label = known.get((id(scene), phase))
        if label is None:
            called = names[each.capture.source]
            keys: list[Key] = [(called.get(name, name), own or phase, Naming.CAPTURED) for name, own in scene.labels]
            label = known[id(scene), phase] = unreal.labels(keys)
        around = int(inside[each.replay.launch])
        first, now = unreal.add(
            scene.start, scene.end, scene.thread, label, length=scene.length, seen=each.replay.moment, holder=around
        )
        partner = each.match.partner if each.replay.part is None else each.match.partner[each.replay.part]
        has = partner != NOTHING
        pieces, launch = each.replay.pieces[has], partner[has]
        inner = scene.inner[launch]
        work.place[pieces] = np.where(inner == NOWHERE, around, first + inner)
        named = pieces[inner != NOWHERE]
        work.unreal_thread[named] = unreal.thread(scene.where[launch[inner != NOWHERE]])
        work.unreal_moment[named] = now + scene.moment[launch[inner != NOWHERE]]
