"""Stacks of layers that were inferred: what their layers are called, and what is said of them. Pure numpy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from layerprof.trace.attribution import Stack
from layerprof.trace.inference.repetition import BACKWARD, Layers
from layerprof.trace.intervals import Ints

HEAD, BETWEEN, TAIL = "head", "between the layers", "tail"
"""Rows of what ran before, between and after stacks of layers in a sequence."""
BESIDE = frozenset({HEAD, BETWEEN, TAIL})
SAME_SIZE = 1.25
"""Layers of two stacks are of one size when the kernels in them are as many, but for this factor."""
OTHERS = 0.2
"""Share of its kernels in which a part of a pass may differ from a whole one: kinds of layers that it does not have."""


@dataclass(frozen=True, slots=True)
class Family:
    """Stacks that share rows: as many layers, which of those with as many they are, and whether they go backward."""

    layers: int
    turn: int = 0
    backward: bool = False


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass through a family's layers, the first of which is number `offset`: a recording may begin in the midst."""

    family: Family
    layers: Layers
    offset: int = 0


class Families:
    """What the layers of stacks are called.

    `given` are the stacks of each sequence in the order of their launches, and its kernels by number; `models` the
    rows of each template. The first stack of all with only a part of a layer before it, or the last with a part after
    it, of fewer layers than another of the same kernels, is a pass that the recording cut off: its layers are the last,
    or the first, of the other's.
    """

    def __init__(self, given: Sequence[tuple[Sequence[Layers], Ints]], models: Sequence[Sequence[str]]) -> None:
        self._models = models
        self._given = given
        self._passes = [[Pass(family, layers) for family, layers in _families(stacks)] for stacks, _ in given]
        self._cut_off()
        every = {one.family for passes in self._passes for one in passes}
        self._alone = len({(family.layers, family.turn) for family in every}) == 1

    def of(self, sequence: int) -> list[Pass]:
        """Return the passes in a sequence, by its place among those given."""
        return self._passes[sequence]

    def names(self, one: Pass) -> Sequence[str]:
        """Return what a stack's layers are called: as the eager layers that they are like, else by their numbers.

        A backward pass begins with the last layer.
        """
        family, layers = one.family, one.layers
        numbers = range(one.offset, one.offset + len(layers.starts))
        if layers.template is not None and len(self._models[layers.template]) == family.layers:
            return [self._models[layers.template][number] for number in numbers]
        tail = "" if self._alone else f" of {family.layers}" + (f", stack {family.turn + 1}" if family.turn else "")
        if family.backward:
            return [f"layer {number}{tail}, backward" for number in reversed(numbers)]
        return [f"layer {number}{tail}" for number in numbers]

    def parts(self, sequence: int) -> tuple[Ints, Ints, list[str]]:
        """Cut a sequence into head, layers, what is between stacks, and tail: start, end, name."""
        cuts: list[tuple[int, int, str]] = []
        done, length = 0, len(self._given[sequence][1])
        for one in self._passes[sequence]:
            layers = one.layers
            if layers.starts[0] > done:
                cuts.append((done, layers.starts[0], BETWEEN if cuts else HEAD))
            cuts += zip(layers.starts, [*layers.starts[1:], layers.end], self.names(one), strict=True)
            done = layers.end
        if done < length:
            cuts.append((done, length, TAIL))
        starts, ends, names = zip(*cuts, strict=True)
        return np.array(starts, np.int64), np.array(ends, np.int64), list(names)

    def _cut_off(self) -> None:
        """Let a pass that the recording began or ended in the midst of have the numbers of its layers."""
        if not self._given:
            return
        for place in (0, -1):
            at = place % len(self._given)
            passes = self._passes[at]
            one = passes[place]
            found = self._whole(one, at)
            rest = self._beside(at, place % len(passes), place)
            usual = self._beside(*found, place) if found else rest
            if found and rest != usual and rest < _size(one.layers):
                family = self._passes[found[0]][found[1]].family
                passes[place] = Pass(family, one.layers, family.layers - one.family.layers if place == 0 else 0)

    def _whole(self, one: Pass, at: int) -> tuple[int, int] | None:
        """Return where the pass of most layers is that run the same kernels, if it has more; None where none has.

        `at` is the sequence that the given one is in; returned are a sequence and the place in it.
        """
        runs = self._kernels(one, at)
        able = [
            (-other.family.layers, sequence, place)
            for sequence, passes in enumerate(self._passes)
            for place, other in enumerate(passes)
            if other.family.layers > one.family.layers
            and other.family.backward == one.family.backward
            and len(runs ^ self._kernels(other, sequence)) <= OTHERS * len(runs)
        ]
        return min(able)[1:] if able else None

    def _kernels(self, one: Pass, at: int) -> set[int]:
        """Return the kernels of all layers of a pass in a sequence but the outermost, which may differ."""
        bounds = [*one.layers.starts, one.layers.end]
        return set(self._given[at][1][bounds[1] : bounds[-2]].tolist())

    def _beside(self, at: int, number: int, place: int) -> int:
        """Return how many pieces are before a pass (`place` 0) or after it (-1), up to its neighbour there."""
        passes = self._passes[at]
        layers = passes[number].layers
        if place == 0:
            return layers.starts[0] - (passes[number - 1].layers.end if number else 0)
        after = passes[number + 1].layers.starts[0] if number + 1 < len(passes) else len(self._given[at][1])
        return after - layers.end


def _families(stacks: Sequence[Layers]) -> list[tuple[Family, Layers]]:
    """Return the family of each stack of a sequence.

    Stacks of as many layers are one stack passed again, unless their layers are of another size: an encoder and a
    decoder may have as many, and differ in what each runs.
    """
    sizes: dict[tuple[int, bool], list[float]] = {}
    result = []
    for layers in stacks:
        many, backward = len(layers.starts), BACKWARD in layers.evidence
        known = sizes.setdefault((many, backward), [])
        alike = [turn for turn, other in enumerate(known) if _same_size(_size(layers), other)]
        if not alike:
            known.append(_size(layers))
        result.append((Family(many, alike[0] if alike else len(known) - 1, backward), layers))
    return result


def _size(layers: Layers) -> float:
    """Return how many kernels a layer has."""
    return (layers.end - layers.starts[0]) / len(layers.starts)


def _same_size(one: float, other: float) -> bool:
    return max(one, other) <= SAME_SIZE * min(one, other)


@dataclass(slots=True)
class _Account:
    """What all passes of a family's stacks took, in nanoseconds, and how far its layers were from one another."""

    first: Pass
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

    def add(self, sequence: int, length: Ints) -> None:
        """Add the stacks of a sequence whose pieces took so long."""
        spent = np.r_[0, np.cumsum(length)]
        before = 0
        passes = self._families.of(sequence)
        for one in passes:
            known = self._all.setdefault(one.family, _Account(one))
            if len(one.layers.starts) > len(known.first.layers.starts):
                known.first = one
        for family in {one.family for one in passes}:
            self._all[family].of += int(spent[-1])
        for one in passes:
            account, layers = self._all[one.family], one.layers
            account.calls += 1
            account.ns += int(spent[layers.end] - spent[layers.starts[0]])
            account.head += int(spent[layers.starts[0]] - spent[before])
            account.tail += int(spent[-1] - spent[layers.end]) if one is passes[-1] else 0
            account.off += _off(np.diff(spent[[*layers.starts, layers.end]]), np.array(layers.kinds))
            account.evidence |= dict.fromkeys(layers.evidence)
            before = layers.end

    def stacks(self) -> tuple[Stack, ...]:
        """Return what is said of each family."""
        return tuple(self._stack(family, account) for family, account in self._all.items())

    def _stack(self, family: Family, account: _Account) -> Stack:
        names = self._families.names(account.first)
        return Stack(
            name=f"{names[0]} .. {names[-1]}",
            layers=family.layers,
            calls=account.calls,
            ns=account.ns,
            head_ns=account.head,
            tail_ns=account.tail,
            of_ns=account.of,
            kinds=tuple(many for _, many in sorted(Counter(account.first.layers.kinds).items())),
            spread=float(np.median(account.off)) if account.off else None,
            evidence=tuple(account.evidence),
        )


def _off(took: Ints, kinds: Ints) -> list[float]:
    """Return how far each layer is from the median of its kind in that pass, as a share of it."""
    result: list[float] = []
    for kind in np.unique(kinds):
        times = took[(kinds == kind) & (took > 0)]
        usual = float(np.median(times))
        result += [abs(time - usual) / usual for time in times.tolist()] if usual and len(times) > 1 else []
    return result
