"""Parts of the list of layers that was found in a model."""

from __future__ import annotations

from layerprof.readings import Layer
from layerprof.records import BLOCK_KINDS


def blocks(layers: tuple[Layer, ...], tower: str) -> list[Layer]:
    """Return the blocks of a tower."""
    return [x for x in layers if x.tower == tower and x.kind in BLOCK_KINDS]
