"""Rows of an attributed trace as a tree, in which neighbours that are alike share a line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median

from layerprof.report.attribution import names
from layerprof.trace.attribution import Attribution, Naming, Row, RowPhase, Top, heaviest

ALIKE = 0.15
"""Rows are alike whose times are this close to that of the first that they share a line with."""
TOO_LITTLE = 0.0005
"""Or whose times differ by less than this share of the total, which nobody would look at."""
HEAVY = 0.1
"""A row inside another tells its kind from this share of the other's time on."""
LATEST = 8
"""Groups of one shape that a row is compared with, the latest ones: the tree of any trace takes linear time."""
INTERLEAVED = 3
"""So many that are alike share a line, too, where other rows lie between them."""


@dataclass(slots=True)
class Node:
    """A line of the tree: one row, or several that are alike; `inside` are those below it.

    Sums are exact. `each_ns` is the median of what one of them took in all its calls.
    """

    rows: tuple[Row, ...]
    places: tuple[int, ...]
    label: str
    inside: list[Node] = field(default_factory=list)

    @property
    def phase(self) -> RowPhase:
        """Phase of all of them."""
        return self.rows[0].phase

    @property
    def naming(self) -> Naming:
        """Naming of all of them."""
        return self.rows[0].naming

    @property
    def each_ns(self) -> float:
        """Median inclusive time of one."""
        return median(row.inclusive_ns for row in self.rows)

    @property
    def top(self) -> Top:
        """Heaviest of their own kernels, as far as each kept them by name."""
        spent: dict[str, int] = {}
        for name, ns in (kernel for row in self.rows for kernel in row.top):
            spent[name] = spent.get(name, 0) + ns
        return heaviest(spent.items())

    def sum(self, name: str) -> int:
        """Return a figure of the rows added up."""
        return sum(getattr(row, name) for row in self.rows)


def of(result: Attribution, kept: Sequence[bool] | None = None) -> list[Node]:
    """Return the roots of the tree, in the order of their first calls.

    `kept` says which rows are in it (None: all); with a row, those around it must be.
    """
    rows = result.rows
    holders = _holders(rows)
    inside: dict[int | None, list[int]] = {}
    for place in range(len(rows)):
        if kept is None or kept[place]:
            inside.setdefault(holders[place], []).append(place)
    folding = _Folding(rows, inside, result.total_ns)
    roots = folding.lines([None])
    pending = list(roots)
    while pending:
        node = pending.pop()
        node.inside = folding.lines(node.places)
        pending += node.inside
    return roots


def walk(roots: Sequence[Node]) -> Iterator[tuple[int, Node]]:
    """Yield depth and node, each before what is inside it."""
    pending = [(0, node) for node in reversed(roots)]
    while pending:
        depth, node = pending.pop()
        yield depth, node
        pending += [(depth + 1, inner) for inner in reversed(node.inside)]


def _holders(rows: Sequence[Row]) -> list[int | None]:
    """Return for each row the one around it; of rows that hold each other in a ring one has none."""
    holders = [row.parent for row in rows]
    reached = [False] * len(rows)
    for place in range(len(rows)):
        path: dict[int, None] = {}
        at: int | None = place
        while at is not None and not reached[at]:
            if at in path:
                holders[at] = None
                break
            path[at] = None
            at = holders[at]
        for one in path:
            reached[one] = True
    return holders


@dataclass(slots=True)
class _Group:
    """Places of rows that are to share a line, by the slots that they came in."""

    slots: list[int]
    places: list[int]
    usual: float


class _Folding:
    """Bundles what is alike, in one parent or across parents that already share a line."""

    def __init__(self, rows: Sequence[Row], inside: dict[int | None, list[int]], total_ns: int) -> None:
        self._rows = rows
        self._inside = inside
        self._little = TOO_LITTLE * total_ns
        self._kinds: dict[int, frozenset[str]] = {}

    def lines(self, parents: Sequence[int | None]) -> list[Node]:
        """Return the nodes below parents that share a line, in the order of the first one."""
        slots = self._slots(parents)
        groups: dict[tuple[str, RowPhase, Naming], list[_Group]] = {}
        for number, slot in enumerate(slots):
            first = self._rows[slot[0]]
            alike = groups.setdefault((names.shape(first.name), first.phase, first.naming), [])
            usual = median(self._rows[place].inclusive_ns for place in slot)
            group = next((one for one in reversed(alike[-LATEST:]) if self._alike(one, slot, usual)), None)
            if group is None:
                alike.append(_Group([number], list(slot), usual))
            else:
                group.slots.append(number)
                group.places += slot
        found = [part for alike in groups.values() for group in alike for part in self._parted(group, slots)]
        runs = names.MOST_RUNS if len(parents) == 1 else 1
        return [self._node(places, runs) for _, places in sorted(found)]

    def _slots(self, parents: Sequence[int | None]) -> list[list[int]]:
        """Return rows by the place that they have in their parents: the n-th of its shape, phase and naming."""
        slots: dict[tuple[str, RowPhase, Naming, int], list[int]] = {}
        for parent in parents:
            counts: dict[tuple[str, RowPhase, Naming], int] = {}
            for place in self._inside.get(parent, ()):
                row = self._rows[place]
                kind = names.shape(row.name), row.phase, row.naming
                counts[kind] = counts.get(kind, 0) + 1
                slots.setdefault((*kind, counts[kind]), []).append(place)
        return list(slots.values())

    def _alike(self, group: _Group, slot: Sequence[int], usual: float) -> bool:
        close = abs(usual - group.usual) <= max(ALIKE * group.usual, self._little)
        mine, theirs = self._kind(slot[0]), self._kind(group.places[0])
        return close and (mine <= theirs or theirs <= mine)

    def _kind(self, place: int) -> frozenset[str]:
        """Return the shapes of what is heavy in a row: a layer of experts is none with a dense MLP that takes as long.

        What takes longer than the row is also called elsewhere, and tells nothing of it.
        """
        if place not in self._kinds:
            whole = self._rows[place].inclusive_ns
            inner = [self._rows[one] for one in self._inside.get(place, ())]
            heavy = (row.name for row in inner if HEAVY * whole <= row.inclusive_ns <= whole)
            self._kinds[place] = frozenset(map(names.shape, heavy))
        return self._kinds[place]

    def _parted(self, group: _Group, slots: Sequence[Sequence[int]]) -> Iterator[tuple[int, Sequence[int]]]:
        """Yield the first slot and the rows of each line: neighbours, or all of a group where they are many."""
        first, last = group.slots[0], group.slots[-1]
        if len(group.slots) >= INTERLEAVED or last - first < len(group.slots):
            yield first, group.places
        else:
            yield from ((slot, slots[slot]) for slot in group.slots)

    def _node(self, places: Sequence[int], runs: int) -> Node:
        places = sorted(places)
        rows = tuple(self._rows[place] for place in places)
        around = [self._rows[row.parent].name if row.parent is not None else "" for row in rows]
        inner = [names.within(row.name, holder) or names.name_of(row) for row, holder in zip(rows, around, strict=True)]
        told = inner if len({names.shape(name) for name in inner}) == 1 else [row.name for row in rows]
        return Node(rows, tuple(places), names.marked(names.shared(told, runs), rows[0].naming))
