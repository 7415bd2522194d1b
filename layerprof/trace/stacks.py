"""Stacks of layers that were inferred: what their layers are called, and what is said of them. Pure numpy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from layerprof.trace.attribution import Stack
from layerprof.trace.intervals import Ints
from layerprof.trace.repetition import BACKWARD, Layers

HEAD, BETWEEN, TAIL = "head", "between the layers", "tail"
"""Rows of what ran before, between and after stacks of layers in a sequence."""
BESIDE = frozenset({HEAD, BETWEEN, TAIL})
SAME_SIZE = 1.25
"""Layers of two stacks are of one size when the kernels in them are as many, but for this factor."""


@dataclass(frozen=True, slots=True)
class Family:
    """Stacks that share rows: as many layers, which of those with as many they are, and whether they go backward."""

    layers: int
    turn: int = 0
    backward: bool = False


class Families:
    """What the layers of stacks are called. `given` are the stacks of each sequence, `models` rows by template."""

    def __init__(self, given: Sequence[Sequence[Layers]], models: Sequence[Sequence[str]]) -> None:
        self._models = models
        every = dict.fromkeys(family for stacks in given for family in self.of(stacks))
        self._alone = len({(family.layers, family.turn) for family in every}) == 1

    def of(self, stacks: Sequence[Layers]) -> list[Family]:
        """Return the family of each stack of a sequence.

        Stacks of as many layers are one stack passed again, unless their layers are of another size: an encoder and a
        decoder may have as many, and differ in what each runs.
        """
        sizes: dict[tuple[int, bool], list[float]] = {}
        result = []
        for layers in stacks:
            many, backward = len(layers.starts), BACKWARD in layers.evidence
            size = (layers.end - layers.starts[0]) / many
            known = sizes.setdefault((many, backward), [])
            alike = [turn for turn, other in enumerate(known) if max(size, other) <= SAME_SIZE * min(size, other)]
            if not alike:
                known.append(size)
            result.append(Family(many, alike[0] if alike else len(known) - 1, backward))
        return result

    def names(self, family: Family, layers: Layers) -> Sequence[str]:
        """Return what a stack's layers are called: as the eager layers that they are like, else by their numbers.

        A backward pass begins with the last layer.
        """
        if layers.template is not None and len(self._models[layers.template]) == family.layers:
            return self._models[layers.template]
        tail = "" if self._alone else f" of {family.layers}" + (f", stack {family.turn + 1}" if family.turn else "")
        numbers = range(family.layers)
        if family.backward:
            return [f"layer {number}{tail}, backward" for number in reversed(numbers)]
        return [f"layer {number}{tail}" for number in numbers]

    def parts(self, stacks: Sequence[Layers], length: int) -> tuple[Ints, Ints, list[str]]:
        """Cut a sequence of so many pieces into head, layers, what is between stacks, and tail: start, end, name."""
        cuts: list[tuple[int, int, str]] = []
        done = 0
        for family, layers in zip(self.of(stacks), stacks, strict=True):
            if layers.starts[0] > done:
                cuts.append((done, layers.starts[0], BETWEEN if cuts else HEAD))
            cuts += zip(layers.starts, [*layers.starts[1:], layers.end], self.names(family, layers), strict=True)
            done = layers.end
        if done < length:
            cuts.append((done, length, TAIL))
        starts, ends, names = zip(*cuts, strict=True)
        return np.array(starts, np.int64), np.array(ends, np.int64), list(names)


@dataclass(slots=True)
class _Account:
    """What all passes of a family's stacks took, in nanoseconds, and how far its layers were from one another."""

    first: Layers
    calls: int = 0
    ns: int = 0
    head: int = 0
    tail: int = 0
    of: int = 0
    off: list[float] = field(default_factory=list)
    evidence: dict[str, None] = field(default_factory=dict)


class Accounts:
    """Adds up what each family's stacks took."""

    def __init__(self, families: Families) -> None:
        self._families = families
        self._all: dict[Family, _Account] = {}

    def add(self, stacks: Sequence[Layers], length: Ints) -> None:
        """Add the stacks of a sequence whose pieces took so long."""
        spent = np.r_[0, np.cumsum(length)]
        before = 0
        families = self._families.of(stacks)
        for family, layers in zip(families, stacks, strict=True):
            self._all.setdefault(family, _Account(layers))
        for family in set(families):
            self._all[family].of += int(spent[-1])
        for family, layers in zip(families, stacks, strict=True):
            account = self._all[family]
            account.calls += 1
            account.ns += int(spent[layers.end] - spent[layers.starts[0]])
            account.head += int(spent[layers.starts[0]] - spent[before])
            account.tail += int(spent[-1] - spent[layers.end]) if layers is stacks[-1] else 0
            account.off += _off(np.diff(spent[[*layers.starts, layers.end]]), np.array(layers.kinds))
            account.evidence |= dict.fromkeys(layers.evidence)
            before = layers.end

    def stacks(self) -> tuple[Stack, ...]:
        """Return what is said of each family."""
        return tuple(self._stack(family, account) for family, account in self._all.items())

    def _stack(self, family: Family, account: _Account) -> Stack:
        names = self._families.names(family, account.first)
        return Stack(
            name=f"{names[0]} .. {names[-1]}",
            layers=family.layers,
            calls=account.calls,
            ns=account.ns,
            head_ns=account.head,
            tail_ns=account.tail,
            of_ns=account.of,
            kinds=tuple(many for _, many in sorted(Counter(account.first.kinds).items())),
            spread=float(np.median(account.off)) if account.off else None,
            evidence=tuple(account.evidence),
        )


def _off(took: Ints, kinds: Ints) -> list[float]:
    """Return how far each layer is from the median of its kind in that pass, as a share of it."""
    result: list[float] = []
    for kind in np.unique(kinds):
        times = took[kinds == kind]
        usual = float(np.median(times))
        result += [abs(time - usual) / usual for time in times.tolist()] if usual and len(times) > 1 else []
    return result
