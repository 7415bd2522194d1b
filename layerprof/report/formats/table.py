"""The layer table, as `layers.csv` holds it."""

from __future__ import annotations

from typing import IO

from layerprof.records import Run
from layerprof.runs.layer_table import csv_text


def render(run: Run, out: IO[str]) -> None:
    """Write the layer table as CSV with a header line."""
    out.write(csv_text(run))
