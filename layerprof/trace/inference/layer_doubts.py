"""What repeats and yet is not certain to be a model's layers: a benchmark's rounds, a training. Pure, numpy.

A stack is given by its bounds: layer i is kernels bounds[i] .. bounds[i+1]-1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from layerprof.trace.inference.kernel_sequence import Kernels, Numbers
from layerprof.trace.kernel_names import Does

_FLUSH_NS, _FLUSH_SHARE = 10_000, 0.05
"""A fill that empties a GPU's cache writes tens of megabytes: it takes at least so long, and so much of a round."""
_AT_EDGE = 2
"""Kernels on either side of a boundary that are looked at for such a fill."""
_MOST = 0.9
_PART_OF_TRAINING = 3
"""Kernels of a backward pass or an optimizer from which a sequence is a training's."""
_MODEL = (
    *(Does.ATTENTION, Does.SCAN, Does.NORM, Does.NORM_PART, Does.GEMM, Does.CONVOLUTION, Does.EXPERTS, Does.ROPE),
    *(Does.ACTIVATION, Does.EMBEDDING, Does.POSITIONS, Does.OTHER),
)
"""Work that a model does before its first layer or after its last, and a benchmark around its rounds does not."""


def is_loop(kernels: Kernels, stacks: Sequence[Numbers], alike: bool) -> bool:
    """Return whether nothing but one stack ran whose layers are all `alike`.

    A model embeds or projects before its first layer or after its last. A CUDA graph may hold the layers alone; that
    it is none, the caller knows.
    """
    if len(stacks) != 1 or not alike:
        return False
    beside = np.ones(len(kernels), np.bool_)
    beside[int(stacks[0][0]) : int(stacks[0][-1])] = False
    return not (beside & kernels.are(*_MODEL)).any()


def is_flushed(kernels: Kernels, bounds: Numbers) -> bool:
    """Return whether a cache is emptied between nearly all layers, as only a benchmark does between its rounds."""
    spent = np.r_[0, np.cumsum(kernels.ns)]
    least = max(_FLUSH_NS, _FLUSH_SHARE * float(np.median(np.diff(spent[bounds]))))
    fills = np.flatnonzero(kernels.are(Does.FILL) & (kernels.ns >= least))
    inner = bounds[1:-1]
    near = np.searchsorted(fills, inner + _AT_EDGE) > np.searchsorted(fills, inner - _AT_EDGE)
    return float(near.mean()) > _MOST


def certain(kernels: Kernels, stacks: Sequence[Numbers]) -> NDArray[np.bool_]:
    """Return which stacks to keep: all, unless a backward pass or an optimizer ran; then those counted in both passes.

    A pass forward runs no kernel of the backward pass; one backward comes after a pass forward of as many layers.
    """
    trains = kernels.are(Does.BACKWARD, Does.OPTIMIZER)
    if trains.sum() < _PART_OF_TRAINING:
        return np.ones(len(stacks), np.bool_)
    backward = kernels.are(Does.BACKWARD)
    goes_back = [bool(backward[int(bounds[0]) : int(bounds[-1])].any()) for bounds in stacks]
    many = [len(bounds) - 1 for bounds in stacks]
    both: set[int] = set()
    forward: set[int] = set()
    kept = []
    for layers, back in zip(many, goes_back, strict=True):
        if not back:
            forward.add(layers)
        elif layers in forward:
            both.add(layers)
        kept.append(not back or layers in forward)
    return np.array([keep and layers in both for keep, layers in zip(kept, many, strict=True)], np.bool_)
