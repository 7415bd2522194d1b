"""Randomised complete blocks: every layer once a round, in shuffled order, so that drift goes to the round.

    log e_ir = mu + alpha_i + beta_r + eps,   nu = cells - layers - rounds + 1,   s^2 = sum(eps^2) / nu
    95 % interval of layer i:  e_i exp(+- t(.975, nu) s / sqrt(R))

Fitted within one phase. A layer alone has its own standard deviation and R - 1 degrees of freedom.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from layerprof.energy.counter import Floats
from layerprof.energy.fit import student


@dataclass(frozen=True, slots=True)
class BlockFit:
    """Joules a call of each layer, shape (layers,), with their intervals (layers, 2); NaN where no round counted.

    `relative_u` (layers,) is the standard uncertainty of a layer's logarithm apart from what all share; `common_u` that
    of the rounds themselves, which moves all layers of the fit together and so does not average out in their sum.
    """

    joules: Floats
    ci95: Floats
    relative_u: Floats
    common_u: float
    df: int


def fit_blocks(joules: Floats) -> BlockFit:
    """Fit joules a call, shape (layers, rounds), positive; NaN marks a window that did not count.

    Balanced data give the formulas above; missing cells are fitted by least squares. Fewer than two values of a layer
    give it no interval (NaN).
    """
    layers = len(joules)
    seen = np.isfinite(joules) & (joules > 0)
    row, column = np.nonzero(seen)
    y = np.log(joules[row, column])
    present = np.flatnonzero(seen.any(axis=1))
    used = np.flatnonzero(seen.any(axis=0))
    blank = np.full(layers, np.nan)
    if not len(y):
        return BlockFit(blank, np.full((layers, 2), np.nan), blank, float("nan"), 0)
    design = _design(row, column, present, used)
    solution, *_ = np.linalg.lstsq(design, y, rcond=None)
    inverse = np.linalg.pinv(design.T @ design)
    df = len(y) - int(np.linalg.matrix_rank(design))
    sigma = float(np.sqrt(np.sum((y - design @ solution) ** 2) / df)) if df > 0 else float("nan")
    mean, u = blank.copy(), blank.copy()
    mean[present] = solution[: len(present)]
    u[present] = sigma * np.sqrt(np.diag(inverse)[: len(present)])
    half = student(df) * u if df > 0 else blank
    effects = solution[len(present) :]
    common = 0.0
    # With one layer the rounds are its only scatter, and have no effects of their own.
    if len(effects):
        common = float(np.std(np.append(effects, -effects.sum()), ddof=1) / np.sqrt(len(used)))
    ci95 = np.stack([np.exp(mean - half), np.exp(mean + half)], axis=1)
    return BlockFit(np.exp(mean), ci95, u, common, df)


def _design(row: np.ndarray, column: np.ndarray, present: np.ndarray, used: np.ndarray) -> Floats:
    """One column a layer; with several layers, rounds as contrasts that sum to zero."""
    design = np.zeros((len(row), len(present)))
    design[np.arange(len(row)), np.searchsorted(present, row)] = 1
    if len(present) == 1 or len(used) == 1:
        return design
    place = np.searchsorted(used, column)
    contrasts = np.vstack([np.eye(len(used) - 1), -np.ones(len(used) - 1)])
    return np.hstack([design, contrasts[place]])
