"""In which formats weights are stored, where a run's layers differ in that."""

from __future__ import annotations

from layerprof.records import Run
from layerprof.report.layer_lines import LayerLine

TITLE = "weights"


def differ(run: Run) -> bool:
    """Tell whether the formats are worth a column: layers store theirs in different ones, as quantised models do."""
    return len({row.weights_dtype for row in run.layers if row.weights_dtype}) > 1


def of(line: LayerLine) -> str:
    """Return the format of a line's weights, the formats of layers that share it one after another; empty for none."""
    return ", ".join(dict.fromkeys(row.weights_dtype for row in line.rows if row.weights_dtype))
