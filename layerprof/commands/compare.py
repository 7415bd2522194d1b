"""`layerprof compare`: two runs, or two sweeps cell by cell."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING

from layerprof.commands import printing
from layerprof.errors import RequestError
from layerprof.report.write import format_for, to_file
from layerprof.settings import unknown_choice
from layerprof.sweep.folder import is_sweep

if TYPE_CHECKING:
    from layerprof.runs.changes import Comparisons

FORMATS = ("terminal", "markdown", "json")


def show(before: Path, after: Path, fail_above: float | None, format_name: str, target: Path | None) -> int:
    """Compare, show it or write it to a file, and return the exit code: 1 where a figure is worse than allowed.

    Raises RequestError.
    """
    from layerprof.report import comparison

    if fail_above is not None and not 0 <= fail_above < math.inf:
        raise RequestError(f"--fail-above is {fail_above:g}.", "Give percent, 0 or more.")
    file = printing.file(target)
    name = format_for(file) if file is not None and format_name == "terminal" else format_name
    if name not in FORMATS:
        raise unknown_choice("format of a comparison", name, FORMATS)
    found = compared(before, after)
    text = io.StringIO()
    if name == "terminal" and file is None:
        comparison.render(found, printing.console(), fail_above)
    elif name == "terminal":
        comparison.render(found, text, fail_above)
    elif name == "markdown":
        comparison.render_markdown(found, text)
    else:
        comparison.render_json(found, text)
    if file is not None:
        printing.say(f"Wrote {to_file(text.getvalue(), file.expanduser())}")
    elif text.getvalue():
        printing.say(text.getvalue().rstrip("\n"))
    return 1 if fail_above is not None and found.regressions(fail_above) else 0


def compared(before: Path, after: Path) -> Comparisons:
    """Compare two runs or two sweeps by their folders. Raises RequestError for anything else, or a run and a sweep."""
    from layerprof.runs import compare as runs
    from layerprof.sweep import compare as sweeps

    kinds = ["sweep" if is_sweep(path) else "run" for path in (before, after)]
    if kinds[0] != kinds[1]:
        raise RequestError(
            f"{before} is a {kinds[0]} and {after} is a {kinds[1]}.",
            "Compare two runs or two sweeps; the run of a cell lies in the sweep's folder under cells/.",
        )
    return sweeps.compare(before, after) if kinds[0] == "sweep" else runs.compare(before, after)
