"""The books of energy: replayed layers x calls + gaps against the end-to-end counter.

    residual = E_e2e - (sum n_i e_i + P_gap T_gap)
    u^2 = u^2(E_e2e) + sum n_i^2 u_i^2 + (common * sum n_i e_i)^2 + u^2(gap)
    PASS if |residual| / E_e2e <= max(TOLERANCE, 1.96 u / E_e2e)

The residual is printed whatever it is. A negative one says that gaps or warm caches were counted twice, a positive one
that something ran which is in no row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import sqrt

from layerprof.energy.amount import NORMAL_95, TOLERANCE, Amount, around
from layerprof.readings import Key


@dataclass(frozen=True, slots=True)
class RowPart:
    """One replayed row: joules a call, its relative standard uncertainty, and how often it ran in the window.

    `common_u` is the relative uncertainty that all parts of one `group` (a phase) share.
    """

    key: Key
    joules: float
    relative_u: float
    calls: int
    common_u: float = 0.0
    group: str = ""


@dataclass(frozen=True, slots=True)
class Closure:
    """The account. `parts_j + gap_j + residual.joules = total.joules`, exactly.

    `reconciled_j` are the rows scaled to close without a residual: an extra column, never the figure itself.
    """

    total: Amount
    parts_j: float
    gap_j: float
    residual: Amount
    tolerance: float
    passed: bool
    missing: tuple[Key, ...] = ()
    reconciled_j: dict[Key, float] = field(default_factory=dict)


def close(
    total: Amount,
    parts: Sequence[RowPart],
    gap_w: Amount | None = None,
    gap_s: float = 0.0,
    missing: Sequence[Key] = (),
) -> Closure:
    """Close the books of one window.

    `gap_w` is the power (an Amount in watts) and `gap_s` the seconds in which nothing of a row ran. `missing` are rows
    that ran but have no figure. Raises ValueError for a total that is not positive.
    """
    if total.joules <= 0:
        raise ValueError(f"the end-to-end energy must be positive, not {total.joules}")
    parts_j = sum(p.calls * p.joules for p in parts)
    gap_j = gap_w.joules * gap_s if gap_w else 0.0
    residual = total.joules - parts_j - gap_j
    variance = _u(total) ** 2 + sum((p.calls * p.joules * p.relative_u) ** 2 for p in parts)
    for group in dict.fromkeys(p.group for p in parts):
        # What a round's drift does to one layer it does to all of its phase: these add up, not in quadrature.
        variance += sum(p.calls * p.joules * p.common_u for p in parts if p.group == group) ** 2
    variance += (_u(gap_w) * gap_s) ** 2 if gap_w else 0.0
    half = NORMAL_95 * sqrt(variance)
    tolerance = max(TOLERANCE, half / total.joules)
    named = total.joules - residual
    scale = total.joules / named if named > 0 else float("nan")
    return Closure(
        total=total,
        parts_j=parts_j,
        gap_j=gap_j,
        residual=around(residual, half),
        tolerance=tolerance,
        passed=abs(residual) / total.joules <= tolerance,
        missing=tuple(missing),
        reconciled_j={p.key: p.calls * p.joules * scale for p in parts},
    )


def _u(amount: Amount) -> float:
    """Return the standard uncertainty; 0 for what was measured once: a doubt that nobody knows widens no interval."""
    return amount.half / NORMAL_95 if amount.half is not None else 0.0
