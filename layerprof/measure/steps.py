"""What is kept of the steps of a user's calls: passes through the model, watched or taken for known."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from math import inf

from layerprof.measure.signature import Shapes
from layerprof.readings import WorkReading
from layerprof.records import Phase

Trail = tuple[tuple[int, Phase, Shapes], ...]
"""The layers that a step called: slot, phase and the shapes that they were given."""


@dataclass(slots=True)
class Known:
    """What a step of one signature did when it was watched last, and how many have been taken to do the same since.

    `step` is False for what a call does beside its steps.
    """

    reading: WorkReading
    trail: Trail
    step: bool
    taken: int = 0


@dataclass(slots=True)
class Facts:
    """Steps of answered calls: how many were watched, taken for known, and of how many nothing is known."""

    watched: int = 0
    known: int = 0
    missed: int = 0

    @property
    def steps(self) -> int:
        """All of them."""
        return self.watched + self.known + self.missed


@dataclass(frozen=True, slots=True)
class Part:
    """A step of the running call (or what it does beside them): a reading of its own, or the one of its `key`."""

    step: bool
    trail: Trail
    reading: WorkReading | None = None
    key: Hashable = None


@dataclass(slots=True)
class Lengths:
    """The shortest of the steps of one signature, in seconds on the host: of those watched, and of the others."""

    watched_s: float = inf
    alone_s: float = inf


@dataclass(slots=True)
class Call:
    """The outermost call that runs; its parts are added once it is answered."""

    number: int
    state: Hashable = 0
    parts: list[Part] = field(default_factory=list)
    disturbed: set[tuple[int, int]] = field(default_factory=set)
    watched: bool = False
    inside: bool = False
    around: WorkReading = field(default_factory=WorkReading)


def same(one: WorkReading, other: WorkReading) -> bool:
    """Tell whether two readings are of the same work; times differ."""
    counted = one.layers == other.layers and one.outside == other.outside and one.nested == other.nested
    return counted and one.total_flops == other.total_flops and one.uncounted_calls() == other.uncounted_calls()


def times(reading: WorkReading, count: int) -> WorkReading:
    """Return the reading of so many equal ones, by doubling."""
    total, power = WorkReading(), reading
    while count:
        if count & 1:
            total += power
        count >>= 1
        if count:
            power += power
    return total
