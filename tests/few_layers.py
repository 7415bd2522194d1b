"""Seven located layers of both towers, one inside another, for tests of rows and books."""

from __future__ import annotations

from layerprof.readings import Layer, Span
from layerprof.records import Phase

BLOCK0 = Layer("visual.blocks.0", "vision", "vision_block", 0)
MERGER = Layer("visual.merger", "vision", "merger", 0)
LAYER0 = Layer("lm.layers.0", "language", "decoder_layer", 0)
LAYER0_MLP = Layer("lm.layers.0.mlp", "language", "module", 0)
LAYER1 = Layer("lm.layers.1", "language", "decoder_layer", 1)
VISION_NORM = Layer("visual.norm", "vision", "norm", 0)
NORM = Layer("lm.norm", "language", "norm", 0)
LAYERS = (BLOCK0, MERGER, LAYER0, LAYER0_MLP, LAYER1, VISION_NORM, NORM)
KEYS = [(layer.name, phase) for layer in LAYERS for phase in Phase]


def span(layer: Layer, phase: Phase, start: float, end: float, batch: int = 0, step: int = 0) -> Span:
    """Return one call that called no other located layer."""
    return Span(layer.name, phase, batch, step, start, end, end - start)
