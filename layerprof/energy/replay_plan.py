"""What a replay measures within a budget of seconds, and how often."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

SETTLE_S = 1.0
WINDOW_S = 2.5
HOT_SETTLE_S = 0.3
BASELINE_S = 10.0
BASELINE_SHARE = 0.05
"""Share of a budget that each of the two baselines may take at most."""
VISIT_S = 0.25
"""What making copies and finding a call's length take, beside settling and window."""
SHORTEST = (0.6, 2.0)
"""Settling and window that a small budget may shrink to, seconds; below 2 s a counter of 0.1 s steps says little."""

MIN_ROUNDS, MAX_ROUNDS = 5, 10
FEW_ROUNDS = 3
TARGET = 0.02
"""Replay stops when every row's 95 % half-width is below this share."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One captured call that may be measured: its kind, and how much of the run it is thought to be.

    One call of a kind may stand for all of it; the weights give the order of kinds where the budget is small.
    """

    index: int
    kind: Hashable
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Which captured calls are measured, by index, how long and how often.

    `hot` are measured with warm caches too. `representative` says that one of each kind is measured for all of it; a
    kind that none is measured of has no figure.
    """

    measured: tuple[int, ...]
    hot: frozenset[int]
    rounds: tuple[int, int]
    settle_s: float = SETTLE_S
    window_s: float = WINDOW_S
    baseline_s: float = BASELINE_S
    representative: bool = False

    @property
    def round_s(self) -> float:
        """Seconds that one round takes."""
        visits = len(self.measured) * (VISIT_S + self.settle_s + self.window_s)
        return visits + len(self.hot) * (HOT_SETTLE_S + self.window_s)


def make_plan(candidates: Sequence[Candidate], budget_s: float | None = None) -> Plan:
    """Plan the rounds.

    Without a budget every call is measured in 5 to 10 rounds, and one of each kind with warm caches too. A budget that
    holds three rounds of all calls keeps all; a smaller one measures one call of each kind (heaviest first, as many as
    fit twice) for all of its kind.
    """
    first: dict[Hashable, int] = {}
    for one in candidates:
        first.setdefault(one.kind, one.index)
    hot = frozenset(first.values())
    everything = Plan(tuple(one.index for one in candidates), hot, (MIN_ROUNDS, MAX_ROUNDS))
    if budget_s is None:
        return everything
    baseline = min(BASELINE_S, BASELINE_SHARE * budget_s)
    time = budget_s - 2 * baseline
    if FEW_ROUNDS * everything.round_s <= time:
        most = min(MAX_ROUNDS, int(time / everything.round_s))
        return replace(everything, rounds=(FEW_ROUNDS, most), baseline_s=baseline)
    weights: dict[Hashable, float] = {}
    for one in candidates:
        weights[one.kind] = weights.get(one.kind, 0.0) + one.weight
    kinds = sorted(first, key=lambda kind: -weights[kind])
    kinds, settle, window = _that_fit(kinds, time)
    measured = tuple(first[kind] for kind in kinds)
    once = len(measured) * (VISIT_S + settle + window)
    with_hot = once + len(measured) * (HOT_SETTLE_S + window)
    warm = frozenset(measured) if measured and FEW_ROUNDS * with_hot <= time else frozenset()
    most = min(MAX_ROUNDS, int(time / (with_hot if warm else once))) if measured else 0
    return Plan(measured, warm, (min(2, most), most), settle, window, baseline, representative=True)


def _that_fit(kinds: list[Hashable], time: float) -> tuple[list[Hashable], float, float]:
    """Return the kinds of which one call each fits twice into `time`, with the settling and the window it then gets.

    Windows shrink before a kind is left out.
    """
    for settle, window in ((SETTLE_S, WINDOW_S), SHORTEST):
        fits = sum(2 * k * (VISIT_S + settle + window) <= time for k in range(1, len(kinds) + 1))
        if fits and fits == len(kinds):
            break
    return kinds[:fits], settle, window
