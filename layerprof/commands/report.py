"""`layerprof report`: a finished run or sweep again, in any format."""

from __future__ import annotations

from pathlib import Path

from layerprof.commands import printing
from layerprof.report import kinds
from layerprof.runs import store
from layerprof.sweep import folder


def show(path: Path, format_name: str, output: Path | None) -> None:
    """Show a run or a sweep on standard output, or in a file. Raises LayerprofError."""
    if folder.is_sweep(path):
        from layerprof.report.sweep import overview

        printing.show(overview.load(path), kinds.sweep(), format_name, output)
    else:
        printing.show(store.load(path), kinds.run(), format_name, output)
