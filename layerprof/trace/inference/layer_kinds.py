"""Which layers of a stack run the same kernels, and how evenly they take time. Pure, numpy."""

from __future__ import annotations

from collections import Counter

import numpy as np

from layerprof.trace.inference.kernel_sequence import COARSE, Kernels, Numbers
from layerprof.trace.kernel_names import Does

_HARDLY_DIFFERS = 0.8
"""Share of kernels in common from which a layer that nothing else is equal to counts as one of a kind beside it."""

Sign = tuple[tuple[int, int], ...]
"""Symbols of a layer, and how often each comes."""


def kinds(kernels: Kernels, bounds: Numbers) -> tuple[int, ...]:
    """Return the kind of each layer, 0 for the first seen: layers of a kind run the same kernels, in whatever order.

    Copies and fills do not count, nor do kernels that hardly any layer has. Layer i is bounds[i] .. bounds[i+1]-1.
    """
    part = kernels.part(int(bounds[0]), int(bounds[-1]))
    lengths = np.diff(bounds)
    width = int(part.symbols[COARSE].max()) + 1
    counted = ~part.are(Does.COPY, Does.FILL)
    owner = np.repeat(np.arange(len(lengths)), lengths)[counted]
    keys, amounts = np.unique(owner * width + part.symbols[COARSE][counted], return_counts=True)
    layer, symbol = np.divmod(keys, width)
    usual = np.bincount(symbol, minlength=width)[symbol] >= max(2, len(lengths) // 10)
    signs: list[list[tuple[int, int]]] = [[] for _ in lengths]
    for which, what, amount in zip(layer[usual].tolist(), symbol[usual].tolist(), amounts[usual].tolist(), strict=True):
        signs[which].append((what, amount))
    leaders = _leaders([tuple(sign) for sign in signs])
    numbers: dict[Sign, int] = {}
    return tuple(numbers.setdefault(leaders[tuple(sign)], len(numbers)) for sign in signs)


def _leaders(signs: list[Sign]) -> dict[Sign, Sign]:
    """Return for each sign the one that stands for its kind.

    Where most layers have a like, one that has none joins the kind that it hardly differs from; where hardly any has,
    since kernels stray between layers, each joins the first that it hardly differs from.
    """
    often = Counter(signs)
    kept = [sign for sign, count in often.items() if count > 1]
    free = 2 * len(often) > len(signs)
    found = {sign: sign for sign in kept}
    for sign in often:
        if sign not in found:
            like = max(((_alike(sign, other), place) for place, other in enumerate(kept)), default=(0.0, 0))
            joins = like[0] > _HARDLY_DIFFERS
            found[sign] = kept[like[1]] if joins else sign
            if free and not joins:
                kept.append(sign)
    return found


def _alike(a: Sign, b: Sign) -> float:
    one, other = dict(a), dict(b)
    shared = sum(min(amount, other.get(symbol, 0)) for symbol, amount in one.items())
    return shared / max(sum(one.values()), sum(other.values()), 1)


def spread(ns: Numbers, bounds: Numbers, kind: tuple[int, ...]) -> float | None:
    """Return the median deviation of a layer's time from its kind's median, as a share of it; None without times."""
    took = np.add.reduceat(ns[: int(bounds[-1])], bounds[:-1]).astype(np.float64)
    of = np.array(kind)
    medians = np.array([np.median(took[of == number]) for number in range(int(of.max()) + 1)])[of]
    return float(np.median(np.abs(took - medians) / medians)) if medians.all() else None
