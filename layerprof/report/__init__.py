"""Everything that shows a run; imports records only, never torch or hooks.

A reporter is a module with `render(run, out)`; it is loaded when its format is asked for.
"""

from __future__ import annotations

import difflib
from importlib import import_module
from pathlib import PurePath
from typing import IO, Protocol, cast

from layerprof.errors import RequestError
from layerprof.records import Run

FORMATS = {
    "terminal": "layerprof.report.terminal",
    "markdown": "layerprof.report.markdown",
    "csv": "layerprof.report.table",
    "json": "layerprof.report.jsonfile",
    "html": "layerprof.report.html",
}
SUFFIXES = {".txt": "terminal", ".md": "markdown", ".csv": "csv", ".json": "json", ".html": "html", ".htm": "html"}


class Reporter(Protocol):
    """Shows a run in one format."""

    def render(self, run: Run, out: IO[str]) -> None:
        """Write the run to a text stream."""


def reporter(name: str) -> Reporter:
    """Return the reporter of a format. Raises RequestError naming the formats and the nearest one."""
    if name not in FORMATS:
        near = difflib.get_close_matches(name, FORMATS, n=1)
        guess = f"Did you mean '{near[0]}'? " if near else ""
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
