"""How many positions a layer's call is given, in all its rows: read off the shape of what it works on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

from torch import nn

from layerprof.machine.modules import told
from layerprof.models import arguments
from layerprof.readings import Layer

MADE = ("patch_embed",)
"""Kinds that are given pixels: their positions are those that they give."""

NO_POSITIONS = ("rotary",)
"""Kinds that work on no features: they make angles of position numbers."""

FEATURES_ONLY = ("pos_embed", "rotary")
"""Kinds whose whole numbers are no token ids."""

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
WIDTHS = ("in_features", "embedding_dim", "num_features")
CHANNELS = ("in_channels", "out_channels")


class Size(NamedTuple):
    """Positions in all rows, and features of each; 0 of token ids."""

    positions: int
    features: int


NOTHING = Size(0, 0)


class Positions:
    """Counts the positions of one layer's calls; `NOTHING` where a call has none or does not tell.

    Hidden states are (..., positions, features): all sizes but the last are positions, whether rows stand apart or
    behind one another. Feature maps are (rows, channels, height, width) where a convolution of the module takes their
    second size, and (rows, height, width, channels) else. Token ids are positions themselves. What is given pixels
    (`patch_embed`, a convolution) has as many positions as it gives: it is `made` for `given_back`.
    """

    def __init__(self, layer: Layer, module: nn.Module) -> None:
        self.made = layer.kind in MADE or isinstance(module, CONVOLUTIONS)
        self._none = layer.kind in NO_POSITIONS or self.made
        self._ids = layer.kind not in FEATURES_ONLY
        sizes = list(_sizes(module))
        self._channels = {size for name, size in sizes if name in CHANNELS}
        self._widths = {size for name, size in sizes if name in WIDTHS}

    def given(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], around: int = 0) -> Size:
        """Count what a call is given; `around` are the positions of the call that it is part of.

        Features in four sizes and more, of a layer inside another, are those positions by heads or by copies.
        """
        if self._none:
            return NOTHING
        found = arguments.hidden(args, kwargs, features=True)
        if found is None and self._ids:
            found = arguments.hidden(args, kwargs) or _ids(args, kwargs)
        if found is None:
            return NOTHING
        shape = _known(found)
        if len(shape) > 3 and around and prod(shape[:-1]) % around == 0:
            return Size(around, shape[-1])
        if found.packed is not None:  # positions of all rows behind one another
            return Size(shape[0], shape[-1]) if shape else NOTHING
        return self._size(shape, ids=found.integer)

    def given_back(self, output: Any) -> Size:
        """Count what a call gave back."""
        parts = output.values() if isinstance(output, dict) else (output,)
        found = next((it for part in parts for it in arguments.operands(part) if len(it.shape) > 1), None)
        return NOTHING if found is None else self._size(_known(found), ids=found.integer)

    def _size(self, shape: tuple[int, ...], *, ids: bool) -> Size:
        if not shape or 0 in shape:
            return NOTHING
        if ids:
            return Size(prod(shape), 0)
        features = shape[1] if len(shape) in (4, 5) and self._channels_first(shape) else shape[-1]
        return Size(prod(shape) // features, features)

    def _channels_first(self, shape: Sequence[int]) -> bool:
        if shape[1] in self._channels:
            return True
        return shape[-1] not in self._widths and shape[1] in self._widths


def _ids(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> arguments.Operand | None:
    """Token ids that stand in one row."""
    found = arguments.token_ids(args, kwargs)
    return None if found is None else arguments.Operand(found, True)


def _known(found: arguments.Operand) -> tuple[int, ...]:
    """Return a shape; () where a size is no plain number."""
    return tuple(size for size in found.shape if size is not None) if None not in found.shape else ()


def _sizes(module: nn.Module) -> Iterator[tuple[str, int]]:
    """Yield the widths that the parts of a module are made for."""
    for part in module.modules():
        for name in (*WIDTHS, *CHANNELS):
            size = told(part, name)
            if isinstance(size, int):
                yield name, size
        shape = told(part, "normalized_shape")
        if isinstance(shape, tuple) and shape and isinstance(shape[-1], int):
            yield "num_features", shape[-1]
