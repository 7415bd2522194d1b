"""`layerprof report`: a finished run or sweep again, in any format."""

from __future__ import annotations

from pathlib import Path

from layerprof.commands import printing
from layerprof.report import write
from layerprof.runs import store
from layerprof.sweep import folder


def show(path: Path, format_name: str, target: Path | None) -> None:
    """Show a run or a sweep on standard output, or in a file. Raises RequestError."""
    file = printing.file(target)
    chosen = format_name if file is None or format_name != "terminal" else None
    if folder.is_sweep(path):
        from layerprof.report.sweep import view as sweep_view
        from layerprof.report.sweep import write as sweep_reports

        written = sweep_reports.write(sweep_view.load(path), chosen, file, printing.console())
    else:
        written = write.write(store.load(path), chosen, file, printing.console())
    if written is not None:
        printing.say(f"Wrote {written}")
