"""What a replay measures within a budget of seconds, and how often."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

SETTLE_S = 1.0
WINDOW_S = 2.5
HOT_SETTLE_S = 0.3
BASELINE_S = 10.0
VISIT_S = 0.25
"""What making copies and finding a call's length take, beside settling and window."""
SHORTEST = (0.6, 2.0)
"""Settling and window that a small budget may shrink to, seconds; below 2 s a counter of 0.1 s steps says little."""

MIN_ROUNDS, MAX_ROUNDS = 5, 10
FEW_ROUNDS = 3
TARGET = 0.02
"""Replay stops when every row's 95 % half-width is below this share."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One captured call: what it stands for, and how much of the run it is thought to be (for a budget's order)."""

    index: int
    kind: Hashable
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Which units are measured, how long and how often.

    `stands_for[i]` is the unit whose figure unit i takes (itself, where it is measured); a unit that is in neither has
    no figure. `hot` are measured with warm caches too.
    """

    measured: tuple[int, ...]
    stands_for: dict[int, int]
    hot: frozenset[int]
    rounds: tuple[int, int]
    settle_s: float
    window_s: float
    baseline_s: float
    representative: bool

    @property
    def round_s(self) -> float:
        """Seconds that one round takes."""
        visits = len(self.measured) * (VISIT_S + self.settle_s + self.window_s)
        return visits + len(self.hot) * (HOT_SETTLE_S + self.window_s)


def make_plan(units: Sequence[Unit], budget_s: float | None = None) -> Plan:
    """Plan the rounds.

    Without a budget every unit is measured in 5 to 10 rounds, and one of each kind with warm caches too. A budget that
    holds three rounds of all units keeps all; a smaller one measures one unit of each kind (heaviest first, as many as
    fit twice) for all of its kind.
    """
    first: dict[Hashable, int] = {}
    for unit in units:
        first.setdefault(unit.kind, unit.index)
    hot = frozenset(first.values())
    everything = _plan(tuple(u.index for u in units), {u.index: u.index for u in units}, hot, (MIN_ROUNDS, MAX_ROUNDS))
    if budget_s is None:
        return everything
    baseline = min(BASELINE_S, 0.05 * budget_s)
    time = budget_s - 2 * baseline
    if FEW_ROUNDS * everything.round_s <= time:
        most = min(MAX_ROUNDS, int(time / everything.round_s))
        return _plan(everything.measured, everything.stands_for, hot, (FEW_ROUNDS, most), baseline_s=baseline)
    weights: dict[Hashable, float] = {}
    for unit in units:
        weights[unit.kind] = weights.get(unit.kind, 0.0) + unit.weight
    kinds = sorted(first, key=lambda kind: -weights[kind])
    for settle, window in ((SETTLE_S, WINDOW_S), SHORTEST):
        fits = [k for k in range(1, len(kinds) + 1) if 2 * k * (VISIT_S + settle + window) <= time]
        if fits and (fits[-1] == len(kinds) or (settle, window) == SHORTEST):
            kinds = kinds[: fits[-1]]
            break
    else:
        kinds = []
    chosen = {kind: first[kind] for kind in kinds}
    stands = {u.index: chosen[u.kind] for u in units if u.kind in chosen}
    measured = tuple(chosen.values())
    once = len(measured) * (VISIT_S + settle + window)
    with_hot = once + len(measured) * (HOT_SETTLE_S + window)
    warm = frozenset(measured) if measured and FEW_ROUNDS * with_hot <= time else frozenset()
    most = min(MAX_ROUNDS, int(time / (with_hot if warm else once))) if measured else 0
    return _plan(measured, stands, warm, (min(2, most), most), settle, window, baseline, representative=True)


def _plan(
    measured: tuple[int, ...],
    stands_for: dict[int, int],
    hot: frozenset[int],
    rounds: tuple[int, int],
    settle_s: float = SETTLE_S,
    window_s: float = WINDOW_S,
    baseline_s: float = BASELINE_S,
    *,
    representative: bool = False,
) -> Plan:
    return Plan(measured, stands_for, hot, rounds, settle_s, window_s, baseline_s, representative)
