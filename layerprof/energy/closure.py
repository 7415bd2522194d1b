"""The books of energy: replayed layers x calls + gaps against the end-to-end counter.

    residual = E_e2e - (sum n_i e_i + P_gap T_gap)
    u^2 = u^2(E_e2e) + sum n_i^2 u_i^2 + (common * sum n_i e_i)^2 + (sum n_i d_i)^2 + u^2(P_gap) (T_gap + sum n_i s_i)^2
    PASS if |residual| / E_e2e <= max(TOLERANCE, 1.96 u / E_e2e)

e_i are joules of a call in the model, T_gap the time between calls in the same window; d_i and s_i are a call's doubt
and shift where it took another time replayed (`place.py`). The residual is printed whatever it is. A negative one says
that something was counted twice, a positive one that something ran which is in no row.
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

    `common_u` is the relative uncertainty that all parts of one `group` (a phase) share. `doubt_j` a call is shared by
    all parts, whose calls took another time replayed for one reason; `shift_s` of each call stand in its joules at the
    power of a waiting device.
    """

    key: Key
    joules: float
    relative_u: float
    calls: int
    common_u: float = 0.0
    group: str = ""
    doubt_j: float = 0.0
    shift_s: float = 0.0


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
    variance += sum(p.calls * p.doubt_j for p in parts) ** 2
    waiting_s = gap_s + sum(p.calls * p.shift_s for p in parts)
    variance += (_u(gap_w) * waiting_s) ** 2 if gap_w else 0.0
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
