"""In which formats weights are stored, where a run's layers differ in that."""

from __future__ import annotations

from collections.abc import Mapping

from layerprof.records import Run
from layerprof.report.layer_lines import LayerLine

TITLE = "weights"


def differ(run: Run) -> bool:
    """Tell whether the formats are worth a column: layers store theirs in different ones, as quantised models do."""
    return len({row.weights_dtype for row in run.layers if row.weights_dtype}) > 1


def of(line: LayerLine) -> str:
    """Return the format of a line's weights, the formats of layers that share it one after another; empty for none."""
    return ", ".join(dict.fromkeys(row.weights_dtype for row in line.rows if row.weights_dtype))


def stored(run: Run) -> str | None:
    """Return how the model's weights are stored, e.g. `weights int8 (torchao 0.18.0)`; None where as its dtype says.

    A run that was not told it names the formats that its layers have.
    """
    told = run.model.get("quantization")
    if not isinstance(told, Mapping) or not told.get("format"):
        formats = dict.fromkeys(row.weights_dtype for row in run.layers if row.weights_dtype) if differ(run) else ()
        return f"weights {', '.join(formats)}" if formats else None
    by = " ".join(str(told[name]) for name in ("package", "package_version") if told.get(name))
    as_what = f", unpacked to {told['run_as']}" if told.get("run_as") else ""
    return f"weights {told['format']}{as_what}" + (f" ({by})" if by else "")


def adapter(run: Run) -> str | None:
    """Return what was put on the model, e.g. `lora adapter of rank 8`; None where nothing was."""
    told = run.model.get("adapter")
    if not isinstance(told, Mapping) or not told:
        return None
    rank = f" of rank {told['rank']}" if told.get("rank") else ""
    return f"{str(told.get('kind') or '').lower()} adapter{rank}".strip()
