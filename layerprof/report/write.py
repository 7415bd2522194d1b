"""Everything that shows a run; imports records only, never torch or hooks.

A reporter is a module with `render(run, out)`; it is loaded when its format is asked for.
"""

from __future__ import annotations

import io
from importlib import import_module
from pathlib import Path, PurePath
from typing import IO, TYPE_CHECKING, Protocol, cast

from layerprof.errors import RequestError, did_you_mean
from layerprof.records import Run

if TYPE_CHECKING:
    from rich.console import Console

FORMATS = {
    "terminal": "layerprof.report.formats.terminal",
    "markdown": "layerprof.report.formats.markdown",
    "csv": "layerprof.report.formats.table",
    "json": "layerprof.report.formats.jsonfile",
    "html": "layerprof.report.formats.html",
}
SUFFIXES = {".txt": "terminal", ".md": "markdown", ".csv": "csv", ".json": "json", ".html": "html", ".htm": "html"}


class Reporter(Protocol):
    """Shows a run in one format."""

    def render(self, run: Run, out: IO[str]) -> None:
        """Write the run to a text stream."""


def reporter(name: str) -> Reporter:
    """Return the reporter of a format. Raises RequestError naming the formats and the nearest one."""
    if name not in FORMATS:
        guess = did_you_mean(name, FORMATS)
        raise RequestError(f"Unknown report format '{name}'.", f"{guess}Choose one of: {', '.join(FORMATS)}.")
    return cast(Reporter, import_module(FORMATS[name]))


def format_for(path: str | PurePath | None) -> str:
    """Return the format that a file name asks for by its suffix; `terminal` without a file.

    Raises RequestError for a suffix that no format has.
    """
    if path is None:
        return "terminal"
    suffix = PurePath(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise RequestError(
            f"The file name '{path}' does not say which format it should have.",
            f"Use one of the endings {', '.join(SUFFIXES)}, or name a --format: {', '.join(FORMATS)}.",
        )
    return SUFFIXES[suffix]


def write(run: Run, name: str | None, output: str | PurePath | None, console: Console) -> Path | None:
    """Show a run on the console, or in a file when `output` is given; return the file.

    The format is `name`, or what the file's suffix asks for. Raises RequestError for an unknown format, a file that
    cannot be written, and HTML without a file on a terminal.
    """
    name = name or format_for(output)
    chosen = reporter(name)
    if output is not None:
        return _to_file(run, chosen, Path(output).expanduser())
    if name == "terminal":
        from layerprof.report.formats import terminal

        terminal.render(run, console)
    elif name == "html" and console.is_terminal:
        raise RequestError("An HTML page is of no use on a terminal.", "Name a file: -o report.html.")
    else:
        chosen.render(run, console.file)
    return None


def _to_file(run: Run, chosen: Reporter, path: Path) -> Path:
    text = io.StringIO()
    chosen.render(run, text)
    return to_file(text.getvalue(), path)


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
