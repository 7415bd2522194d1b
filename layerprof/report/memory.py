"""The memory of layers as plain data: what a call holds and leaves, and weights, alike neighbours on one line."""

from __future__ import annotations

from layerprof.records import LayerRow, Run
from layerprof.report.layer_lines import Group, layer_groups, near

COLUMNS = (
    ("peak", "memory_peak_bytes"),
    ("kept", "memory_kept_bytes"),
    ("of it KV", "memory_kept_kv_bytes"),
    ("weights", "weights_bytes"),
)
"""Titles of the figures of a layer, with their names in a row."""
TOLD = "what one call holds at most, and leaves; weights as they lie in memory"


def groups(run: Run) -> list[Group]:
    """Return the lines by tower and phase that have a figure; empty where memory was not measured."""
    return [
        group
        for group in layer_groups(run, fold=True, alike=_alike)
        if any(line.each(name) is not None for line in group.lines for _, name in COLUMNS)
    ]


def _alike(a: LayerRow, b: LayerRow) -> bool:
    return near(a, b, *(name for _, name in COLUMNS))
