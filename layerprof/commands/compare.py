"""`layerprof compare`: two runs, or two sweeps cell by cell."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from layerprof.commands import printing
from layerprof.errors import RequestError
from layerprof.report import kinds, write
from layerprof.sweep.folder import is_sweep

if TYPE_CHECKING:
    from layerprof.runs.changes import Comparisons


def show(before: Path, after: Path, fail_above: float | None, format_name: str, output: Path | None) -> int:
    """Compare, show it or write it to a file, and return the exit code: 1 where a figure is worse than allowed.

    Raises RequestError.
    """
    if fail_above is not None and not 0 <= fail_above < math.inf:
        raise RequestError(f"--fail-above is {fail_above:g}.", "Give percent, 0 or more.")
    formats = kinds.comparison(fail_above)
    formats.renderer(write.chosen(format_name, printing.file(output)))  # a wrong format is told before anything is read
    found = compared(before, after)
    printing.show(found, formats, format_name, output)
    return 1 if fail_above is not None and found.regressions(fail_above) else 0


def compared(before: Path, after: Path) -> Comparisons:
    """Compare two runs or two sweeps by their folders. Raises RequestError for anything else, or a run and a sweep."""
    from layerprof.runs import compare as runs
    from layerprof.sweep import compare as sweeps

    first, second = ("sweep" if is_sweep(path) else "run" for path in (before, after))
    if first != second:
        raise RequestError(
            f"{before} is a {first} and {after} is a {second}.",
            "Compare two runs or two sweeps; the run of a cell lies in the sweep's folder under cells/.",
        )
    return sweeps.compare(before, after) if first == "sweep" else runs.compare(before, after)
