"""Which capture each replay of a CUDA graph was made from: the one that it is most like, and why no other."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from layerprof.trace.events import KERNEL
from layerprof.trace.graphs import replays
from layerprof.trace.graphs.captures import Capture
from layerprof.trace.graphs.matching import NOTHING
from layerprof.trace.graphs.plausible import misfit
from layerprof.trace.graphs.replays import Graph, Match, Replay
from layerprof.trace.intervals import NOWHERE

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
    `own` are those of the replays' trace, in the order in which they ended: a graph is captured before it runs.
    """

    def __init__(
        self, given: Sequence[Capture], own: Sequence[Capture], found: Sequence[Graph], names: Sequence[str]
    ) -> None:
        self._captures = [*given, *own]
        self._given = len(given)
        self._ended = [capture.ended for capture in own]
        self._graphs = found
        self._names = names
        self._labels = [capture.labels for capture in self._captures]
        self._known: dict[tuple[int, bytes, tuple[str, ...] | None], Match] = {}
        self._matches: dict[int, list[Match]] = {}
        self._nearest: dict[tuple[int, int, int | None], tuple[list[int], bool]] = {}
        self._checked: set[tuple[int, int]] = set()
        self._whys: dict[tuple[int, int], str] = {}
        self._last: dict[tuple[str, str], int] = {}
        self._fixed: dict[int, int] = {}

    def choose(self, replay: Replay, rows: int | None) -> Chosen:
        """Return the capture of a replay; `rows` is how many its step says that it has."""
        able = self._given + bisect_right(self._ended, replay.moment)
        while True:
            nearest, alike = self._nearest_of(replay.graph, able, rows)
            if not nearest:
                return self._none(replay, able)
            place = self._fixed.get(replay.graph, NOWHERE)
            if place not in nearest:
                place = nearest[0] if alike else min(nearest, key=self._turn)
            if self._fits(replay.graph, place):
                break
        if self._graphs[replay.graph].known is not None:
            self._fixed[replay.graph] = place
        capture = self._captures[place]
        self._last[capture.source, capture.title] = place
        match = self._of(replay.graph)[place]
        if not capture.scene.labels:
            match = Match(np.full(len(replay.pieces), NOTHING), None, NO_RANGES)
        return Chosen(replay, capture, match)

    def _none(self, replay: Replay, able: int) -> Chosen:
        key = (replay.graph, able)
        if key not in self._whys:
            self._whys[key] = self._why(*key)
        return Chosen(replay, None, Match(np.full(len(replay.pieces), NOTHING), None, self._whys[key]))

    def _why(self, number: int, able: int) -> str:
        """Return what keeps the first captures from being a graph's; of one with as many kernels it says most."""
        kernels = int((self._graphs[number].kinds == KERNEL).sum())
        whys = [
            (int((capture.kinds == KERNEL).sum()) != kernels, place, match.why)
            for place, (capture, match) in enumerate(zip(self._captures, self._of(number), strict=True))
            if match.why and place < able
        ]
        return min(whys)[2] if whys else NO_CAPTURE

    def _of(self, number: int) -> list[Match]:
        """Return how a graph matches each capture; those of the same launches are laid beside it once."""
        if number not in self._matches:
            self._matches[number] = [self._match(number, capture) for capture in self._captures]
        return self._matches[number]

    def _match(self, number: int, capture: Capture) -> Match:
        key = (number, capture.kinds.tobytes(), capture.names)
        if key not in self._known:
            self._known[key] = replays.match(self._graphs[number], capture, self._names)
        return self._known[key]

    def _nearest_of(self, number: int, able: int, rows: int | None) -> tuple[list[int], bool]:
        """Return the captures among the first so many that fit best, and whether their ranges are the same."""
        key = (number, able, rows)
        if key not in self._nearest:
            counts = [match.count for match in self._of(number)[:able]]
            most = max(counts, default=0)
            tied = [place for place, count in enumerate(counts) if count == most and most]
            least = min((self._far(place, rows) for place in tied), default=None)
            tied = [place for place in tied if self._far(place, rows) == least]
            self._nearest[key] = tied, len({self._labels[place] for place in tied}) == 1
        return self._nearest[key]

    def _fits(self, number: int, place: int) -> bool:
        """Whether nothing speaks against a capture that the count alone speaks for; it is left out from then on."""
        match, capture = self._of(number)[place], self._captures[place]
        if match.by in (None, replays.NAMES) or (number, place) in self._checked:
            return True
        kind = misfit(self._graphs[number], capture.scene, match.partner, self._names)
        self._checked.add((number, place))
        if kind is None:
            return True
        begins = f"each {kind} in it would begin with another"
        why = f"{capture.told} has as many kernels, but {begins}: it is not its capture"
        self._of(number)[place] = Match(np.full(len(match.partner), NOTHING), None, why)
        self._nearest = {key: value for key, value in self._nearest.items() if key[0] != number}
        return False

    def _far(self, place: int, rows: int | None) -> tuple[bool, int]:
        """Return how far a capture's size is from the rows: a graph is padded up to the next size that there is."""
        size = self._captures[place].size
        if rows is None or size is None:
            return False, 0
        return size < rows, abs(size - rows)

    def _turn(self, place: int) -> int:
        """Return how many captures come before it after the last one of its family that was chosen."""
        capture = self._captures[place]
        last = self._last.get((capture.source, capture.title), NOWHERE)
        return (place - last - 1) % len(self._captures)
