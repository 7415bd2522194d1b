"""What a replay measures within a budget: everything, one of each kind, the heaviest kinds, or nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerprof.energy.replay_plan import Candidate, make_plan


def _units(kinds: int, each: int) -> list[Candidate]:
    return [Candidate(k, k % kinds, weight=float(k % kinds)) for k in range(kinds * each)]


def test_without_a_budget_everything_is_measured() -> None:
    """Every unit, one of each kind with warm caches too, 5 to 10 rounds."""
    plan = make_plan(_units(4, 25))
    assert len(plan.measured) == 100
    assert len(plan.hot) == 4
    assert plan.rounds == (5, 10)
    assert not plan.representative


@given(st.integers(1, 8), st.integers(1, 40), st.floats(1, 4000))
def test_a_plan_keeps_its_budget(kinds: int, each: int, budget: float) -> None:
    """Baselines and all rounds fit; at least two rounds or nothing; all calls, or one of a kind."""
    units = _units(kinds, each)
    plan = make_plan(units, budget)
    assert 2 * plan.baseline_s + plan.rounds[1] * plan.round_s <= budget * (1 + 1e-9)
    assert plan.rounds[1] >= 2 or not plan.measured
    of = [units[k].kind for k in plan.measured]
    assert len(of) == (len(set(of)) if plan.representative else len(units))
    assert plan.hot <= set(plan.measured)


def test_a_small_budget_measures_one_of_each_kind_the_heaviest_first() -> None:
    """100 units in 60 s: four representatives. In 8 s: the heaviest kind alone."""
    plan = make_plan(_units(4, 25), 60)
    assert plan.representative
    assert {u % 4 for u in plan.measured} == {0, 1, 2, 3}
    tiny = make_plan(_units(4, 25), 8)
    assert [u % 4 for u in tiny.measured] == [3]


def test_rounds_are_as_long_as_their_visits() -> None:
    """8 units of 0.25 + 1 + 2.5 s, and one of each of 4 kinds again for 0.3 + 2.5 s: 41.2 s a round."""
    plan = make_plan(_units(4, 2))
    assert plan.round_s == pytest.approx(8 * 3.75 + 4 * 2.8)
    assert (plan.settle_s, plan.window_s, plan.baseline_s) == (1.0, 2.5, 10.0)
    assert plan.measured == tuple(range(8))
    assert plan.hot == {0, 1, 2, 3}


@pytest.mark.parametrize(("budget", "rounds"), [(137, None), (138, (3, 3)), (300, (3, 6)), (10_000, (3, 10))])
def test_a_budget_of_three_rounds_keeps_every_unit(budget: float, rounds: tuple[int, int] | None) -> None:
    """Rounds of 41.2 s beside two baselines of a twentieth each, at most 10 s: 300 s hold 6, no plan over 10."""
    plan = make_plan(_units(4, 2), budget)
    assert plan.baseline_s == pytest.approx(min(10.0, budget / 20))
    if rounds is None:
        assert plan.representative
    else:
        assert (len(plan.measured), plan.rounds, plan.representative) == (8, rounds, False)
        assert plan.hot == {0, 1, 2, 3}


def test_representatives_are_measured_warm_too_where_three_rounds_of_that_fit() -> None:
    """Four kinds: 15 s cold, 26.2 s with warm caches. Of 90 s 81 are left, three rounds of both; of 85 s only cold."""
    both, cold = make_plan(_units(4, 25), 90), make_plan(_units(4, 25), 85)
    assert (both.hot, both.rounds) == (frozenset(range(4)), (2, 3))
    assert (cold.hot, cold.rounds) == (frozenset(), (2, 5))
    assert both.measured == cold.measured == (3, 2, 1, 0)


def test_windows_shrink_before_a_kind_is_left_out() -> None:
    """Twice four kinds take 30 s, and 22.8 s with windows of 2 s: of 27 s, which leave 24.3, the shorter ones."""
    plan = make_plan(_units(4, 25), 27)
    assert (plan.settle_s, plan.window_s) == (0.6, 2.0)
    assert plan.measured == (3, 2, 1, 0)
    assert plan.rounds == (2, 2)
    roomy = make_plan(_units(4, 25), 34)
    assert (roomy.settle_s, roomy.window_s, len(roomy.measured)) == (1.0, 2.5, 4)


def test_a_kind_weighs_as_much_as_all_its_units() -> None:
    """Three light units of one kind are more of the run than one heavier unit of another, and are measured first."""
    units = [Candidate(0, "alone", 2.0), *(Candidate(k, "many", 1.0) for k in (1, 2, 3))]
    assert make_plan(units, 8).measured == (1,)


def test_nothing_fits_into_less_than_two_visits() -> None:
    """5.7 s of visits and a tenth for baselines: 6.3 s hold none, 6.4 s hold one kind twice."""
    nothing, one = make_plan(_units(4, 2), 6.3), make_plan(_units(4, 2), 6.4)
    assert (nothing.measured, nothing.rounds) == ((), (0, 0))
    assert (one.measured, one.rounds, one.representative) == ((3,), (2, 2), True)
