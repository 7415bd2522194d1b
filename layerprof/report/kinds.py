"""What can be shown: runs, sweeps, comparisons and attributed traces, each with what renders it by format."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import IO, TYPE_CHECKING, TypeVar

from layerprof.report.formats import find
from layerprof.report.write import Formats

if TYPE_CHECKING:
    from layerprof.records import Run
    from layerprof.report.attribution.view import View
    from layerprof.report.sweep.overview import SweepData
    from layerprof.runs.changes import Comparisons
    from layerprof.trace.attribution import Attribution

T = TypeVar("T")


def run() -> Formats[Run]:
    """Return what shows a run: the installed formats, and any that the user names."""
    renderers = {name: find.renderer(name, "render") for name in find.names()}
    return Formats(renderers, own=partial(find.renderer, method="render"))


def sweep() -> Formats[SweepData]:
    """Return what shows a sweep: the same formats."""
    renderers = {name: find.renderer(name, "render_sweep") for name in find.names()}
    return Formats(renderers, page="sweep.html", own=partial(find.renderer, method="render_sweep"))


def comparison(fail_above: float | None) -> Formats[Comparisons]:
    """Return what shows a comparison; the terminal's says what is worse by more than so many percent."""
    from layerprof.report import comparison

    return Formats(
        {
            "terminal": partial(comparison.render, fail_above=fail_above),
            "markdown": comparison.render_markdown,
            "json": comparison.render_json,
        },
        unknown="Unknown format of a comparison '{}'.",
    )


def trace(view: View) -> Formats[Attribution]:
    """Return what shows an attributed trace; csv and json hold every row, whatever the view."""
    from layerprof.report.attribution import documents, terminal

    return Formats(
        {
            "terminal": partial(terminal.render, view=view),
            "markdown": _written(partial(documents.to_markdown, view=view)),
            "csv": _written(documents.to_csv),
            "json": _written(documents.to_json),
        },
        unknown="A trace cannot be shown as '{}'.",
    )


def _written(text: Callable[[T], str]) -> Callable[[T, IO[str]], None]:
    """Return what writes a text, whose last line is whole."""

    def render(result: T, out: IO[str]) -> None:
        out.write(text(result).removesuffix("\n") + "\n")

    return render
