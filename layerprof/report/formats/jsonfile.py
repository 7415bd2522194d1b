"""The run as it is stored. Named so that it hides no module of the standard library."""

from __future__ import annotations

from typing import IO

from layerprof.records import Run
from layerprof.runs.store import dump


def render(run: Run, out: IO[str]) -> None:
    """Write the text of `run.json`."""
    out.write(dump(run).decode())
