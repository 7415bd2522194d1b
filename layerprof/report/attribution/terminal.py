"""An attributed trace in a terminal: the tree of its rows, the books, and what is known of steps, graphs and layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import IO

from rich.console import Console, RenderableType
from rich.text import Text

from layerprof.report import units
from layerprof.report.attribution import names, sections, words
from layerprof.report.attribution.tree import Node
from layerprof.report.attribution.view import Line, Shown, View, shown
from layerprof.report.look import PHASE_STYLE, Column, Look, console_on
from layerprof.trace.attribution import Attribution, Naming

BAR = 8
WIDE_BAR = 16
WIDE = 110
"""From this width on, words in full."""
WIDEST = 140
"""From this width on, longer bars."""
NAMES = 0.38
"""Share of a wide screen for names, at most."""
COMFORT = 34
"""Cells that names should have on another, even if columns go for it."""
LEAST = 24
"""Cells that names have in any case."""
STAYS = 3
"""What gives way no sooner than this stays where names of that length have room."""
KERNEL = 20
"""Cells below which a kernel's name says nothing."""
SHORT = {Naming.RECORDED: "rec", Naming.CAPTURED: "cap", Naming.INFERRED: "inf"}


def render(result: Attribution, out: Console | IO[str], view: View | None = None) -> None:
    """Print the attribution on a Rich console, or write it to a text stream; `view` says what of it."""
    console = console_on(out, 120)
    look = Look.of(console)
    view = view or View()
    for piece in _pieces(result, look, view, shown(result, view)):
        console.print(piece, highlight=False)


def _pieces(result: Attribution, look: Look, view: View, tree: Shown) -> Iterator[RenderableType]:
    phase = words.only_phase(result)
    notes = [units.many(result.events, "event"), *([f"all rows in {phase}"] if phase else [])]
    yield look.heading(words.heading(result), ", ".join(notes))
    if tree.lines:
        yield look.table(_columns(tree, result, look))
    elif not result.rows:
        yield look.text(words.NO_RANGES, "yellow")
    for line in words.left_out(tree, result, view):
        yield look.text(line, "dim")
    yield Text()
    yield look.heading("Books", "rows + buckets = total, exactly")
    yield look.table(_books(result, look))
    below = list(sections.of(result))
    for section in below:
        yield Text()
        yield look.heading(section.title, section.note)
        if section.rows:
            yield look.table(_cells(section, look))
        yield from (look.text(remark) for remark in section.remarks)
    remarks = [look.text(remark, "yellow") for remark in words.remarks(result)]
    yield from ([Text()] if below and remarks else [])
    yield from remarks


def _columns(tree: Shown, result: Attribution, look: Look) -> list[Column]:
    wide = look.width >= WIDE
    nodes = [line.node for line in tree.lines]
    total = result.total_ns or 1
    shown_ns = max((node.sum("inclusive_ns") for node in nodes), default=0) or result.total_ns
    time = units.scale([shown_ns / 1e9], "s")
    whole = [node.sum("inclusive_ns") / total for node in nodes]

    def seconds(name: str) -> list[Text]:
        return [look.text(time.show(node.sum(name) / 1e9)) for node in nodes]

    phases = [] if words.only_phase(result) else nodes
    columns = [
        Column("phase", [look.text(node.phase or "", PHASE_STYLE[node.phase]) for node in phases], 0, "left"),
        Column("", [look.text(f"x{len(node.rows)}" if len(node.rows) > 1 else "", "dim") for node in nodes], 0),
        Column(f"time {time.unit}", seconds("inclusive_ns"), 0),
        Column("%", [look.text(units.bare_percent(share)) for share in whole], 0),
        Column("", [_bar(node, total, look, WIDE_BAR if look.width >= WIDEST else BAR) for node in nodes], 5, "left"),
        Column(f"own {time.unit}", seconds("self_ns"), 1),
        Column(f"each {time.unit}", [look.text(_each(node, time)) for node in nodes], 3),
        Column("calls", _calls(nodes, look), 7),
        Column("busy/span %", [look.text(words.busy_percent(node, result)) for node in nodes], 8),
    ]
    if any(node.sum("graph_ns") for node in nodes):
        columns.append(Column(f"in graphs {time.unit}", seconds("graph_ns"), 2))
    if any(row.naming is not Naming.RECORDED for row in result.rows):
        told = [look.text(node.naming.value if wide else SHORT[node.naming], "dim") for node in nodes]
        columns.insert(1, Column("naming" if wide else "by", told, 0, "left"))
    labels = Column("layer", _labels(tree.lines, look, _room(tree.lines, columns, look)), 0, "left")
    return _with_kernels([labels, *columns], nodes, result, look)


def _room(lines: Sequence[Line], columns: Sequence[Column], look: Look) -> int:
    """Return the cells for names: a share of a wide screen, of another what the columns leave that tell most."""
    if look.width >= WIDE:
        return int(look.width * NAMES)
    wanted = min(COMFORT, max(2 * line.depth + look.text(line.node.label).cell_len for line in lines))
    room = LEAST
    for stays in range(STAYS, -1, -1):
        kept = [column for column in look.fitting(columns) if column.gives_way <= stays]
        room = look.width - look.needed(kept) - 2
        if room >= wanted:
            break
    return max(room, LEAST)


def _with_kernels(columns: list[Column], nodes: Sequence[Node], result: Attribution, look: Look) -> list[Column]:
    """Add the heaviest kernels where they fit, cut to what room there is."""
    title = f"heaviest {words.piece(result)}"
    names_of = [look.text(words.heaviest(node)).plain for node in nodes]
    kernels = Column(title, [look.text(names.begin(name, KERNEL)) for name in names_of], 6, "left")
    kept = look.fitting([*columns, kernels])
    if kernels not in kept:
        return columns
    kept.remove(kernels)
    room = look.width - look.needed(kept) - 2
    return [*kept, Column(title, [look.text(names.begin(name, room), "dim") for name in names_of], 6, "left")]


def _labels(lines: Sequence[Line], look: Look, room: int) -> list[Text]:
    """Return names below the names around them, each in one line."""
    return [
        look.text(
            "  " * line.depth + names.fitting(look.text(line.node.label).plain, max(room - 2 * line.depth, LEAST // 2)),
            "dim" if line.around else "",
        )
        for line in lines
    ]


def _bar(node: Node, total: int, look: Look, width: int) -> Text:
    """Return a bar of the total: what is its own, and what is inside it."""
    own, whole = node.sum("self_ns") / total, node.sum("inclusive_ns") / total
    return look.stacked([(own, "cyan", "#"), (max(whole - own, 0), "bright_black", "-")], width)


def _calls(nodes: Sequence[Node], look: Look) -> list[Text]:
    """Return how often the rows were called, all together; nothing where that is once each throughout."""
    calls = [node.sum("calls") for node in nodes]
    once = all(many == len(node.rows) for many, node in zip(calls, nodes, strict=True))
    return [look.text("" if once else units.count(many)) for many in calls]


def _each(node: Node, scale: units.Scale) -> str:
    return scale.show(node.each_ns / 1e9) if len(node.rows) > 1 else ""


def _books(result: Attribution, look: Look) -> list[Column]:
    scale = units.scale([result.total_ns / 1e9], "s")
    books = list(words.book_lines(result))
    columns = [
        Column("", [look.text(label, "bold" if label == "total" else "") for label, *_ in books], 0, "left"),
        Column(scale.unit, [look.text(words.book_time(label, ns, scale.show)) for label, ns, *_ in books], 0),
        Column("%", [look.text(words.book_share(label, ns, result)) for label, ns, *_ in books], 0),
        Column("", [look.text(note, "dim") for *_, note, _ in books], 2, "left", wraps=True),
    ]
    if look.width >= WIDE:
        tops = [look.text(names.begin(top, look.width // 3), "dim") for *_, top in books]
        columns.append(Column("heaviest", tops, 3, "left"))
    return columns


def _cells(section: sections.Section, look: Look) -> list[Column]:
    return [
        Column(
            title,
            [look.text(row[place]) for row in section.rows],
            section.gives_way[place],
            "right" if place else "left",
        )
        for place, title in enumerate(section.titles)
    ]
