"""Which capture each replay of a CUDA graph was made from, and whose work its pieces therefore are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from layerprof.trace.attribution import Key, Naming
from layerprof.trace.graphs import replays
from layerprof.trace.graphs.capture_names import shown
from layerprof.trace.graphs.captures import Capture
from layerprof.trace.graphs.matching import NOTHING
from layerprof.trace.graphs.plausible import misfit
from layerprof.trace.graphs.replays import Graph, Match, Replay
from layerprof.trace.intervals import NOWHERE, Ints
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


class Chooser:
    """Chooses for each replay, in the order of their launches, the capture that it is most like.

    Of captures that are as much like it, the one for the number of rows that the server's step says; then, where their
    ranges differ, the next one in the order of capture: piecewise graphs are replayed in the order of their capture.
    """

    def __init__(self, captures: Sequence[Capture], found: Sequence[Graph], names: Sequence[str]) -> None:
        self._captures = captures
        self._graphs = found
        self._names = names
        self._matches: dict[int, list[Match]] = {}
        self._labels = [capture.labels for capture in captures]
        self._last: dict[tuple[str, str], int] = {}
        self._fixed: dict[int, int] = {}

    def choose(self, replay: Replay, rows: int | None) -> Chosen:
        """Return the capture of a replay; `rows` is how many its step says that it has."""
        matches = self._matches.setdefault(replay.graph, self._matched(replay.graph))
        able = [place for place, capture in enumerate(self._captures) if _before(capture, replay)]
        most = max((matches[place].count for place in able), default=0)
        if not most:
            why = next((matches[place].why for place in able if matches[place].why), NO_CAPTURE)
            return Chosen(replay, None, Match(np.full(len(replay.pieces), NOTHING), None, why))
        tied = [place for place in able if matches[place].count == most]
        place = self._fixed.get(replay.graph, NOWHERE)
        if place not in tied:
            place = min(tied, key=lambda place: (self._far(place, rows), self._turn(place, tied), place))
        if self._graphs[replay.graph].known is not None:
            self._fixed[replay.graph] = place
        capture = self._captures[place]
        self._last[capture.source, capture.title] = place
        match = matches[place]
        if not capture.scene.labels:
            match = Match(np.full(len(replay.pieces), NOTHING), None, NO_RANGES)
        return Chosen(replay, capture, match)

    def _matched(self, number: int) -> list[Match]:
        return [self._match(self._graphs[number], capture) for capture in self._captures]

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

    def _far(self, place: int, rows: int | None) -> tuple[bool, int]:
        """Return how far a capture's size is from the rows: a graph is padded up to the next size that there is."""
        size = self._captures[place].size
        if rows is None or size is None:
            return False, 0
        return size < rows, abs(size - rows)

    def _turn(self, place: int, tied: Sequence[int]) -> int:
        """Return how many captures of its family come before it after the last one that was chosen."""
        if all(self._labels[other] == self._labels[place] for other in tied):
            return 0
        capture = self._captures[place]
        last = self._last.get((capture.source, capture.title), NOWHERE)
        return (place - last - 1) % len(self._captures)


def _before(capture: Capture, replay: Replay) -> bool:
    return not capture.own or capture.ended <= replay.moment


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
