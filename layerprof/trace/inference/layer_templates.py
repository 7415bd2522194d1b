"""A layer that ran with a module's range around it, found again in kernels that have none. Pure, numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from layerprof.trace.inference.alignment import LONGEST, Side, fit
from layerprof.trace.inference.kernel_sequence import Kernels, Numbers
from layerprof.trace.kernel_names import coarse, does

_LIKE = 0.5
"""Share of a template that a layer must match; another GEMM of the same library counts a little more than half."""


@dataclass(frozen=True, slots=True)
class Template:
    """Kernels of one layer that ran elsewhere with a module's range around it.

    `name` is its class, `instances` how many distinct instances of it ran in a row.
    """

    name: str
    kernels: tuple[str, ...]
    instances: int


def match(kernels: Kernels, anchors: Numbers, templates: Sequence[Template]) -> tuple[int, int] | None:
    """Return which template the kernels between anchors are like, and how far ahead of an anchor it begins.

    None where they are like none. Compared is one round from anchor to anchor, which may begin anywhere in the layer.
    """
    middle = (len(anchors) - 1) // 2
    after, anchor = int(anchors[middle]) + 1, int(anchors[middle + 1])
    period = min(anchor + 1 - after, LONGEST)
    once = Side.of(kernels, range(anchor + 1 - period, anchor + 1))
    twice = Side(*(np.concatenate([column, column]) for column in once))
    found = []
    for number, template in enumerate(templates):
        side = _side(kernels, template.kernels[:LONGEST])
        if not period / 2 <= len(side.names) <= period * 2:
            continue
        end, share = fit(side, twice, longest=False, free=True)
        back = Side(*(column[:end][::-1] for column in twice))
        length, _ = fit(Side(*(column[::-1] for column in side)), back, longest=False)
        found.append((share, -number, (period - 1 - (end - length)) % period))
    share, number, rotation = max(found, default=(0.0, 0, 0))
    return (-number, rotation) if share >= _LIKE else None


def _side(kernels: Kernels, names: Sequence[str]) -> Side:
    """Return a template's kernels in the sequence's numbers; a name that it does not have gets one of its own."""
    exact, _, families = kernels.numbers
    return Side(
        np.array([exact.get(name, -1 - place) for place, name in enumerate(names)], np.int64),
        np.array([families.get(coarse(name), -1 - place) for place, name in enumerate(names)], np.int64),
        np.array([does(name) for name in names], np.int64),
    )
