"""How the terminal report looks: one place for colours, ASCII where needed, and what a width has room for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from layerprof.records import Phase
from layerprof.report import units

PHASE_STYLE: Mapping[str | None, str] = {
    Phase.VISION: "magenta",
    Phase.PREFILL: "bright_blue",
    Phase.DECODE: "green",
    Phase.MIXED: "yellow",
    None: "bright_black",
}

PHASE_SIGN: Mapping[str | None, str] = {
    Phase.VISION: "v",
    Phase.PREFILL: "p",
    Phase.DECODE: "d",
    Phase.MIXED: "m",
    None: ".",
}
"""What stands for a phase in a bar where only ASCII shows."""
REQUEST_STYLE: Mapping[str, tuple[str, str]] = {
    "read": ("cyan", "r"),
    "process": ("yellow", "p"),
    "copy": ("red", "c"),
    "generate": ("blue", "g"),
    "residual": ("bright_black", "."),
}
"""Colour and ASCII sign of a part of the request."""

Justify = Literal["left", "right"]


def console_on(out: Console | IO[str], width: int) -> Console:
    """Return the console itself, or one of that width on a text stream."""
    return out if isinstance(out, Console) else Console(file=out, width=width, highlight=False)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its cells, how wide they are at most, and how soon it gives way (0 stays)."""

    title: str
    cells: Sequence[Text]
    gives_way: int = 0
    justify: Justify = "right"
    wraps: bool = False

    @property
    def width(self) -> int:
        """Cells that the widest entry takes."""
        return max((text.cell_len for text in self.cells), default=0)


@dataclass(frozen=True, slots=True)
class Look:
    """What this console can show."""

    width: int
    ascii_only: bool
    encoding: str = "ascii"

    @classmethod
    def of(cls, console: Console) -> Look:
        """Return the look for a console: our own signs in ASCII for files, pipes and old encodings."""
        shows = console.is_terminal or console.is_jupyter
        unicode = console.encoding.lower().startswith("utf")
        return cls(console.width, not (shows and unicode), console.encoding if unicode else "ascii")

    def text(self, content: object, style: str = "") -> Text:
        """Return content as it stands: never markup, never control characters that a terminal would obey."""
        clean = units.printable(str(content))
        return Text(units.ascii_text(clean, self.encoding) if self.ascii_only else clean, style)

    def bar(self, share: float | None, width: int, style: str) -> Text:
        """Return a bar for a share of one."""
        return Text(units.bar(share, width, self.ascii_only), style)

    def packed(self, parts: Sequence[str], style: str = "") -> Text:
        """Return short parts set apart by dots, in as few lines as hold them without breaking one."""
        lines: list[str] = []
        for part in parts:
            longer = f"{lines[-1]} · {part}" if lines else part
            if lines and len(longer) <= self.width:
                lines[-1] = longer
            else:
                lines.append(part)
        return Text("\n").join(self.text(line, style) for line in lines)

    def stacked(self, shares: Sequence[tuple[float, str, str]], width: int) -> Text:
        """Return one bar cut into (share, style, ASCII sign) pieces that fill the width."""
        bar, done, filled = Text(), 0.0, 0
        for share, style, sign in shares:
            done += share
            cells = max(0, round(done * width) - filled)
            filled += cells
            bar.append((sign if self.ascii_only else "█") * cells, style)
        return bar

    def cut(self, pieces: Sequence[tuple[str, float, str, str]]) -> list[Text]:
        """Return a bar cut into (words, share, style, ASCII sign) pieces, and below it which is which."""
        legend, used = Text(), 0
        for words, _, style, sign in pieces:
            if used and used + 2 + len(words) > self.width:
                legend, used = legend.append("\n"), 0
            legend.append(f"{sign} " if self.ascii_only else "■ ", style).append_text(self.text(f"{words}   "))
            used += 5 + len(words)
        return [self.stacked([piece[1:] for piece in pieces], min(self.width, 100) - 2), legend]

    def heading(self, title: str, note: str = "") -> Text:
        """Return the line above a section; a note that does not fit stands below it."""
        apart = "  " if len(title) + 2 + len(note) <= self.width else "\n"
        return Text(apart if note else "").join([self.text(title, "bold"), self.text(note, "dim")])

    def table(self, columns: Sequence[Column]) -> Table:
        """Return the table with as many columns as fit; the highest `gives_way` goes first, empty columns always."""
        kept = self.fitting(columns)
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", show_edge=False)
        for column in kept:
            table.add_column(
                self.text(column.title),
                justify=column.justify,
                no_wrap=not column.wraps,
                overflow="fold" if column.wraps else "ellipsis",
            )
        for cells in zip(*(column.cells for column in kept), strict=True):
            table.add_row(*cells)
        return table

    def fitting(self, columns: Sequence[Column]) -> list[Column]:
        """Return the columns that a table of them shows."""
        kept = [column for column in columns if any(text.plain.strip(" -–") for text in column.cells)]
        while len(kept) > 1 and self.needed(kept) > self.width:
            first_to_go = max(kept, key=lambda column: column.gives_way)
            if first_to_go.gives_way == 0:
                break
            kept.remove(first_to_go)
        return kept

    @staticmethod
    def needed(columns: Sequence[Column]) -> int:
        """Return the cells that columns take; one that wraps can do with 16."""
        widths = [max(len(c.title), min(c.width, 16) if c.wraps else c.width) for c in columns]
        return sum(widths) + 2 * (len(columns) - 1)
