"""`layerprof attribute`: which layer launched each kernel of a trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from layerprof.commands import printing
from layerprof.errors import RequestError
from layerprof.report import kinds, write
from layerprof.report.attribution.documents import to_json
from layerprof.report.attribution.view import View
from layerprof.trace.attribute import attribute
from layerprof.trace.graphs import capture_files
from layerprof.trace.graphs.capture_files import CaptureFile
from layerprof.trace.reading.source import called
from layerprof.trace.sums import merged

WHOLE = ("csv", "json")
"""Formats that hold every row."""


@dataclass(frozen=True, slots=True)
class Naming:
    """How kernels are to get their names: ranges by name (None: all), traces of captures, inference."""

    layers: str | None = None
    captures: Sequence[Path] = ()
    infer: bool = True


def show(
    traces: Sequence[Path], naming: Naming, view: View, format_name: str, output: Path | None, json: str | None
) -> None:
    """Attribute the traces and show their sum, or write it to a file. Raises RequestError and TraceError."""
    shows = json is None or output is not None
    captures = capture_files.listed(naming.captures)
    _check_twice(traces)
    if shows:
        _check_view(view, write.chosen(format_name, printing.file(output)))
    _check_targets(traces, captures, printing.file(output), json)
    layers = None if naming.layers is None else _split(naming.layers)
    given = {
        str(trace): attribute(trace, layers=layers, captures=naming.captures, infer=naming.infer) for trace in traces
    }
    result = merged(given)
    if json is not None:
        printing.emit(to_json(result), json)
    if shows:
        printing.show(result, kinds.trace(view), format_name, output)


def _split(names: str) -> list[str]:
    """Return names and patterns that commas join; a comma inside a bracket is part of the name."""
    parts = [""]
    depth = 0
    for sign in names:
        depth += (sign in "([<{") - (sign in ")]>}")
        if sign == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += sign
    chosen = [part.strip() for part in parts if part.strip()]
    if not chosen:
        raise RequestError("--layers names nothing.", "Give names of ranges or operators, or leave it out.")
    return chosen


def _check_view(view: View, format_name: str) -> None:
    """Refuse what would not be heeded."""
    if format_name in WHOLE and view != View():
        raise RequestError(
            f"{format_name} holds every row, so that its books close.",
            "Leave out --depth, --top, --sort, --only and --phase, or choose --format terminal or markdown.",
        )


def _check_twice(traces: Sequence[Path]) -> None:
    """Refuse to add a trace to itself, however it is spelt."""
    first: dict[Path, Path] = {}
    for path in traces:
        before = first.setdefault(path.resolve(), path)
        if before is not path:
            spelt = "" if str(before) == str(path) else f", also as {before}"
            raise RequestError(f"The trace {called(path)} is given twice{spelt}.", "Give each trace once.")


def _check_targets(
    read: Sequence[Path], captures: Sequence[CaptureFile], output: Path | None, json: str | None
) -> None:
    """Refuse to write over what is read: `--json trace.json` takes the trace for the file.

    What lies in a folder of captures and is no trace may be the result of the last time.
    """
    traces = {path.resolve() for path in read}
    found = {file.path.resolve(): file for file in captures}
    targets = {"-o": output, "--json": None if json in (None, "-") else Path(str(json)).expanduser()}
    for option, target in targets.items():
        if target is None:
            continue
        capture = found.get(target.resolve())
        if target.resolve() in traces or (capture and (capture.folder is None or capture.is_trace)):
            raise RequestError(f"{option} would write over the trace {target}.", f"Give {option} another file.")
