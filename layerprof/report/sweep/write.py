"""Shows a sweep in the formats that a run has."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import IO, TYPE_CHECKING

from layerprof.errors import RequestError
from layerprof.report import write as report
from layerprof.report.sweep.view import SweepData

if TYPE_CHECKING:
    from rich.console import Console


def write(data: SweepData, name: str | None, output: str | PurePath | None, console: Console) -> Path | None:
    """Show a sweep on the console, or in a file when `output` is given; return the file.

    The format is `name`, or what the file's suffix asks for. Raises RequestError as `report.write`.
    """
    name = name or report.format_for(output)
    render = renderer(name)
    if output is not None:
        text = io.StringIO()
        render(data, text)
        return report.to_file(text.getvalue(), Path(output).expanduser())
    if name == "terminal":
        from layerprof.report.sweep import terminal

        terminal.render(data, console)
    elif name == "html" and console.is_terminal:
        raise RequestError("An HTML page is of no use on a terminal.", "Name a file: -o sweep.html.")
    else:
        render(data, console.file)
    return None


def renderer(name: str) -> Callable[[SweepData, IO[str]], None]:
    """Return what writes a sweep in a format. Raises RequestError naming the formats and the nearest one."""
    from layerprof.report.sweep import html, markdown, table, terminal

    renderers: dict[str, Callable[[SweepData, IO[str]], None]] = {
        "terminal": terminal.render,
        "markdown": markdown.render,
        "csv": table.render_csv,
        "json": table.render_json,
        "html": html.render,
    }
    if name not in renderers:
        report.reporter(name)  # raises with the nearest format
    return renderers[name]
