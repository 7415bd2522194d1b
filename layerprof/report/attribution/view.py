"""What of an attributed trace is shown: which rows, how deep, how many lines, in which order; and what is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import count

from layerprof.errors import RequestError, did_you_mean, nearest, suggestion
from layerprof.records import Phase
from layerprof.report.attribution import tree
from layerprof.report.attribution.tree import Node
from layerprof.trace.attribution import Attribution, Row

LINES = 20
"""Lines of the tree where nobody says how many: with its books, a tree then fits a screen."""
SORTS: Mapping[str, Callable[[Node], float | str]] = {
    "order": lambda _: 0,
    "time": lambda node: -node.sum("inclusive_ns"),
    "own": lambda node: -node.sum("self_ns"),
    "each": lambda node: -node.each_ns,
    "calls": lambda node: -node.sum("calls"),
    "name": lambda node: node.label,
}
"""Orders of the rows in one holder. `order` is that of their first calls."""
PHASES = tuple(phase.value for phase in Phase)


@dataclass(frozen=True, slots=True)
class View:
    """What to show: levels of the tree (None: all), lines (0: all), an order, and of which rows.

    `only` is a pattern or part of the names: what matches, what is inside it, and what is around it. Raises
    RequestError for values that there are not.
    """

    depth: int | None = None
    top: int = LINES
    sort: str = "order"
    only: str | None = None
    phase: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be shown."""
        if self.sort not in SORTS:
            known = ", ".join(SORTS)
            raise RequestError(f"There is no column '{self.sort}' to sort by.", _choose(self.sort, SORTS, known))
        if self.phase is not None and self.phase not in PHASES:
            known = ", ".join(PHASES)
            raise RequestError(f"There is no phase '{self.phase}'.", _choose(self.phase, PHASES, known))
        if self.depth is not None and self.depth < 1:
            raise RequestError(f"A tree of depth {self.depth} shows nothing.", "Give --depth 1 or more.")
        if self.top < 0:
            raise RequestError(f"{self.top} lines cannot be shown.", "Give --top a number; 0 shows all.")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the tree; `around` says that it is there only for what is inside it."""

    node: Node
    depth: int
    around: bool = False


@dataclass(frozen=True, slots=True)
class Shown:
    """The lines to show, and what of the trace's rows is in none of them.

    `lighter` and `lighter_ns` are of rows left out by depth or number of lines, `others` and `others_ns` of those that
    were not asked for; `idle` counts the rest, which launched nothing. Times are the rows' own, so that lines, lighter
    and others are all of the rows' time.
    """

    lines: tuple[Line, ...]
    lighter: int
    lighter_ns: int
    others: int
    others_ns: int
    idle: int


def shown(result: Attribution, view: View) -> Shown:
    """Return what a view shows of an attribution. Raises RequestError where it asks for rows that there are not."""
    asked = _asked(result, view)
    works = [bool(row.inclusive_ns or row.self_ns or row.graph_ns or row.not_recorded) for row in result.rows]
    wanted = [one and other for one, other in zip(asked, works, strict=True)]
    kept = _with_holders(result.rows, wanted)
    roots = tree.of(result, kept)
    _sort(roots, SORTS[view.sort])
    every = [(depth, node) for depth, node in tree.walk(roots) if view.depth is None or depth < view.depth]
    chosen = _heaviest(roots, every, view)
    lines = tuple(
        Line(node, depth, not any(wanted[place] for place in node.places))
        for depth, node in every
        if id(node) in chosen
    )
    in_lines = {place for line in lines for place in line.node.places}
    left = [row for place, row in enumerate(result.rows) if kept[place] and place not in in_lines]
    others = [row for row, keep, work in zip(result.rows, kept, works, strict=True) if work and not keep]
    return Shown(
        lines,
        lighter=len(left),
        lighter_ns=sum(row.self_ns for row in left),
        others=len(others),
        others_ns=sum(row.self_ns for row in others),
        idle=sum(not (work or keep) for work, keep in zip(works, kept, strict=True)),
    )


def _asked(result: Attribution, view: View) -> list[bool]:
    """Return for each row whether the view asks for it."""
    rows = result.rows
    asked = [view.phase is None or row.phase == view.phase for row in rows]
    if view.phase is not None and rows and not any(asked):
        known = sorted({str(row.phase) for row in rows if row.phase is not None})
        has = f"It has {', '.join(known)}." if known else "It tells no phases at all; leave --phase out."
        raise RequestError(f"No row of the trace is of the phase '{view.phase}'.", has)
    if view.only is None or not rows:
        return asked
    matching = [view.only in row.name or fnmatchcase(row.name, view.only) for row in rows]
    if not any(matching):
        parts = {part for row in rows for part in (row.name, *row.name.split("."))}
        near = nearest(view.only, parts, most=3)
        raise RequestError(
            f"No row of the trace is called '{view.only}'.",
            f"{suggestion(near)}Give a part of the names, or a pattern with *.",
        )
    inside: dict[int, bool] = {}
    for place in range(len(rows)):
        _settle(rows, matching, inside, place)
    return [one and inside[place] for place, one in enumerate(asked)]


def _settle(rows: Sequence[Row], matching: Sequence[bool], inside: dict[int, bool], place: int) -> None:
    """Note of a row, and of those around it on the way, whether it or one around it matches."""
    path: dict[int, None] = {}
    at: int | None = place
    while at is not None and at not in inside and at not in path and not matching[at]:
        path[at] = None
        at = rows[at].parent
    found = at is not None and (matching[at] or inside.get(at, False))
    if at is not None and matching[at]:
        inside[at] = True
    for one in path:
        inside[one] = found


def _with_holders(rows: Sequence[Row], wanted: Sequence[bool]) -> list[bool]:
    """Return which rows are wanted or around one that is."""
    kept = [False] * len(rows)
    for place, want in enumerate(wanted):
        at: int | None = place if want else None
        while at is not None and not kept[at]:
            kept[at] = True
            at = rows[at].parent
    return kept


def _sort(roots: list[Node], key: Callable[[Node], float | str]) -> None:
    roots.sort(key=key)
    for _, node in tree.walk(roots):
        node.inside.sort(key=key)


def _heaviest(roots: Sequence[Node], every: Iterable[tuple[int, Node]], view: View) -> set[int]:
    """Return which nodes have a line: the heaviest, each with those around it, as many as are asked for."""
    nodes = [node for _, node in every]
    if not view.top or len(nodes) <= view.top:
        return {id(node) for node in nodes}
    around: dict[int, Node] = {id(inner): node for _, node in tree.walk(roots) for inner in node.inside}
    weight = SORTS[view.sort if view.sort in ("own", "each", "calls") else "time"]
    turn = count()
    chosen: set[int] = set()
    for _, _, node in sorted((weight(node), next(turn), node) for node in nodes):
        path: list[Node] = []
        at: Node | None = node
        while at is not None and id(at) not in chosen:
            path.append(at)
            at = around.get(id(at))
        room = view.top - len(chosen)
        if len(path) > room and chosen:
            break
        chosen |= {id(one) for one in path[::-1][:room]}
    return chosen


def _choose(given: str, known: Iterable[str], listed: str) -> str:
    return f"{did_you_mean(given, known)}Choose one of: {listed}."
