"""The books of energy: replayed layers x calls + named rest + gaps against the end-to-end counter.

    residual = E_e2e - (sum n_i e_i + rest + P_gap T_gap)
    u^2 = u^2(E_e2e) + sum n_i^2 u_i^2 + (common * sum n_i e_i)^2 + u^2(rest, gap)
    PASS if |residual| / E_e2e <= max(5 %, 1.96 u / E_e2e)

The residual is printed whatever it is. A negative one says that gaps or warm caches were counted twice, a positive one
that something ran which is in no row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt

from layerprof.energy.fit import NORMAL_95
from layerprof.energy.share import Amount, Key, around

TOLERANCE = 0.05
"""Share of the total that energy's residual may reach; a wider interval of its own allows more."""


@dataclass(frozen=True, slots=True)
class Part:
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
    """The account. `parts_j + sum(rest_j) + gap_j + residual.joules = total.joules`, exactly.

    `reconciled_j` are the rows scaled to close without a residual: an extra column, never the figure itself.
    """

    total: Amount
    parts_j: float
    rest_j: dict[str, float]
    gap_j: float
    residual: Amount
    tolerance: float
    passed: bool
    missing: tuple[Key, ...] = ()
    reconciled_j: dict[Key, float] = field(default_factory=dict)

    @property
    def residual_share(self) -> float:
        """Residual over the end-to-end joules, signed."""
        return self.residual.joules / self.total.joules

    def verdict(self) -> str:
        """Return the line that is printed under the books."""
        word = "closes" if self.passed else "does not close"
        low, high = (100 * x / self.total.joules for x in self.residual.ci95)
        text = (
            f"energy {word}: residual {100 * self.residual_share:+.1f} % ({low:+.1f} to {high:+.1f} %) of "
            f"{self.total.joules:.4g} J, allowed {100 * self.tolerance:.1f} %"
        )
        if not self.missing:
            return text
        return f"{text}; {len(self.missing)} row(s) without a replayed figure are in the residual"


def close(
    total: Amount,
    parts: Sequence[Part],
    rest: Mapping[str, Amount] | None = None,
    gap_w: Amount | None = None,
    gap_s: float = 0.0,
    missing: Sequence[Key] = (),
) -> Closure:
    """Close the books of one window.

    `rest` are named joules measured beside the layers, `gap_w` the power (an Amount in watts) and `gap_s` the seconds
    in which nothing of a row ran. `missing` are rows that ran but have no figure. Raises ValueError for a total that is
    not positive.
    """
    if total.joules <= 0:
        raise ValueError(f"the end-to-end energy must be positive, not {total.joules}")
    rest = rest or {}
    parts_j = sum(p.calls * p.joules for p in parts)
    gap_j = gap_w.joules * gap_s if gap_w else 0.0
    residual = total.joules - parts_j - sum(a.joules for a in rest.values()) - gap_j
    variance = (total.half / NORMAL_95) ** 2 + sum((p.calls * p.joules * p.relative_u) ** 2 for p in parts)
    for group in {p.group for p in parts}:
        # What a round's drift does to one layer it does to all of its phase: these add up, not in quadrature.
        variance += sum(p.calls * p.joules * p.common_u for p in parts if p.group == group) ** 2
    variance += sum((a.half / NORMAL_95) ** 2 for a in rest.values())
    variance += (gap_w.half / NORMAL_95 * gap_s) ** 2 if gap_w else 0.0
    half = NORMAL_95 * sqrt(variance)
    tolerance = max(TOLERANCE, half / total.joules)
    named = total.joules - residual
    scale = total.joules / named if named > 0 else float("nan")
    return Closure(
        total=total,
        parts_j=parts_j,
        rest_j={name: a.joules for name, a in rest.items()},
        gap_j=gap_j,
        residual=around(residual, half),
        tolerance=tolerance,
        passed=abs(residual) / total.joules <= tolerance,
        missing=tuple(missing),
        reconciled_j={p.key: p.calls * p.joules * scale for p in parts},
    )
