"""Bootstrap intervals the long way: every resample that there is, and whether an interval is theirs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Floats = np.ndarray[Any, Any]


def every_resample(*columns: Sequence[float]) -> list[Floats]:
    """Return sums of each column in all n^n ways to draw n rows with replacement, the rows drawn whole."""
    count = len(columns[0])
    drawn = np.indices([count] * count).reshape(count, -1)
    return [np.asarray(column)[drawn].sum(0) for column in columns]


def holds_95_percent(found: tuple[float, float] | None, values: Floats, draws: int) -> bool:
    """Tell whether the ends of an interval cut off 2.5 % each, to four standard errors of a share of so many draws."""
    if found is None:
        return False
    error = 4 * 100 * (0.025 * 0.975 / draws) ** 0.5
    ends = [2.5 - error, 2.5 + error, 97.5 - error, 97.5 + error]
    low, lower, high, higher = np.percentile(values, ends, method="inverted_cdf")
    near = 1e-6 * max(1.0, float(np.abs(values).max()))
    return bool(low - near <= found[0] <= lower + near and high - near <= found[1] <= higher + near)
