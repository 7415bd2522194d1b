"""Shows any result in the format that was asked for: on the console, or in a file that is written whole or not at all.

What can be shown, and what renders it in which format, is listed in `kinds`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from layerprof.errors import RequestError, did_you_mean

if TYPE_CHECKING:
    from rich.console import Console

SUFFIXES = {".txt": "terminal", ".md": "markdown", ".csv": "csv", ".json": "json", ".html": "html", ".htm": "html"}
BUILT_IN = tuple(dict.fromkeys(SUFFIXES.values()))
"""The formats that come with layerprof, in the order in which they are listed."""

T = TypeVar("T")
Renderer: TypeAlias = Callable[[T, Any], None]


@dataclass(frozen=True, slots=True)
class Formats(Generic[T]):
    """The formats of one kind of result: what renders it in each.

    A renderer takes the result and a text stream; that of `terminal` takes a Rich console, too. `unknown` is said of a
    format that is not there, `page` stands for a file of the user's. `own` returns what renders a user's own format,
    `package.module:Class`; None where there can be none.
    """

    renderers: Mapping[str, Renderer[T]]
    unknown: str = "Unknown report format '{}'."
    page: str = "report.html"
    own: Callable[[str], Renderer[T]] | None = None

    def renderer(self, name: str) -> Renderer[T]:
        """Return what renders a format. Raises RequestError naming the formats and the nearest one."""
        if name in self.renderers:
            return self.renderers[name]
        if self.own is not None and ":" in name:
            return self.own(name)
        known = ", ".join(self.renderers) or "none is installed; reinstall layerprof"
        known += "; or your own, as package.module:Class" if self.own else ""
        raise RequestError(self.unknown.format(name), f"{did_you_mean(name, self.renderers)}Choose one of: {known}.")


def chosen(name: str, output: str | PurePath | None) -> str:
    """Return the format: what the file's suffix asks for, unless one was named that is not the terminal's.

    Raises RequestError for a suffix that no format has.
    """
    if output is None or name != "terminal":
        return name
    suffix = PurePath(output).suffix.lower()
    if suffix not in SUFFIXES:
        raise RequestError(
            f"The file name '{output}' does not say which format it should have.",
            f"Use one of the endings {', '.join(SUFFIXES)}, or name a --format: {', '.join(BUILT_IN)}.",
        )
    return SUFFIXES[suffix]


def write(result: T, formats: Formats[T], name: str, output: str | PurePath | None, console: Console) -> Path | None:
    """Show a result on the console, or in a file when `output` is given; return the file.

    Raises RequestError for an unknown format, a file that cannot be written, and HTML without a file on a terminal.
    """
    name = chosen(name, output)
    render = formats.renderer(name)
    if output is None and name == "terminal":
        render(result, console)
        return None
    if output is None and name == "html" and console.is_terminal:
        raise RequestError("An HTML page is of no use on a terminal.", f"Name a file: -o {formats.page}.")
    text = _Kept()
    render(result, text)
    if output is not None:
        return to_file(text.getvalue(), Path(output).expanduser())
    console.file.write(text.getvalue())
    return None


class _Kept(io.StringIO):
    """Text that is there after its writer has closed it, as `with out:` does."""

    def close(self) -> None:
        """Keep the text."""


def to_file(text: str, path: Path) -> Path:
    """Write a report whole or not at all and return the file.

    Raises RequestError where it cannot be written, and for a file that belongs to a run or a sweep.
    """
    from layerprof.runs.store import holds, write_atomic

    if holds(path):
        raise RequestError(
            f"{path} belongs to a run or a sweep, and a report over it would lose what was measured.",
            "Give -o another name or another folder.",
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text.encode())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RequestError(
            f"The report cannot be written to {path}: {reason}.",
            "Name a file in a folder that you may write to.",
        ) from error
    return path
