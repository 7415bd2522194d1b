"""What Markdown reports are made of: text that shows as it stands, and tables."""

from __future__ import annotations

import html
import re
from collections.abc import Container, Iterable, Iterator, Sequence

from layerprof.report import units

_SPECIAL = re.compile(r"([\\`*_{}\[\]|~])")


def escape(text: object) -> str:
    """Return text that Markdown shows as it stands, on one line, in a table cell too."""
    return _SPECIAL.sub(r"\\\1", html.escape(units.printable(" ".join(str(text).split())), quote=False))


def table(titles: Sequence[str], rows: Iterable[Sequence[object]], left: Container[int] = (0,)) -> Iterator[str]:
    """Yield the lines of a table whose `left` columns are set left and the others right; cells are escaped."""
    yield "| " + " | ".join(escape(title) for title in titles) + " |"
    yield "|" + "|".join(" --- " if index in left else " ---: " for index in range(len(titles))) + "|"
    for row in rows:
        yield "| " + " | ".join(escape(cell) for cell in row) + " |"
