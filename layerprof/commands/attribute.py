"""`layerprof attribute`: which layer launched each kernel of a trace."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from layerprof.commands import printing
from layerprof.report import kinds
from layerprof.report.attribution.documents import to_json
from layerprof.trace.attribute import attribute
from layerprof.trace.sums import merged


def show(traces: Sequence[Path], format_name: str, output: Path | None, json: str | None) -> None:
    """Attribute the traces and show their sum, or write it to a file. Raises RequestError and TraceError."""
    result = merged({str(trace): attribute(trace) for trace in traces})
    if json is not None:
        printing.emit(to_json(result), json)
    if json is None or output is not None:
        printing.show(result, kinds.trace(), format_name, output)
