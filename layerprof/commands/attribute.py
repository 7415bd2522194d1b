"""`layerprof attribute`: which layer launched each kernel of a trace."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from layerprof.commands import printing
from layerprof.report import attribution as view
from layerprof.trace import attribute as attribution


def show(traces: Sequence[Path], format_name: str, target: Path | None, json: str | None) -> None:
    """Attribute the traces and show their sum, or write it to a file. Raises RequestError and TraceError."""
    result = attribution.merged({str(trace): attribution.attribute(trace) for trace in traces})
    if json is not None:
        printing.emit(view.to_json(result), json)
        return
    file = printing.file(target)
    chosen = format_name if file is None or format_name != "terminal" else None
    written = view.write(result, chosen, file, printing.console())
    if written is not None:
        printing.say(f"Wrote {written}")
