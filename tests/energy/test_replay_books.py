"""What a replay does with its rounds: intervals of layers, plans within a budget, books that close."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerprof.energy.amount import Amount, around
from layerprof.energy.blocks import fit_blocks
from layerprof.energy.closure import RowPart, close
from layerprof.energy.replay_plan import Candidate, make_plan
from layerprof.records import Phase

# --- rounds, statistics, plans -----------------------------------------------------------------------------------


def test_balanced_blocks_follow_the_formula() -> None:
    """Geometric mean and exp(+- t s / sqrt(R)) with s from the two-way residuals, worked out by hand here."""
    from scipy import stats

    logs = np.log(np.random.default_rng(0).lognormal(0, 0.02, (4, 6))) + np.array([[1.0], [2.0], [0.5], [1.5]])
    logs += np.linspace(0, 0.2, 6)
    fit = fit_blocks(np.exp(logs))
    residual = logs - logs.mean(1, keepdims=True) - logs.mean(0) + logs.mean()
    s, df = np.sqrt((residual**2).sum() / 15), 15
    half = stats.t.ppf(0.975, df) * s / np.sqrt(6)
    assert fit.df == df
    assert fit.joules == pytest.approx(np.exp(logs.mean(1)))
    assert fit.ci95[:, 1] == pytest.approx(np.exp(logs.mean(1) + half))
    assert fit.common_u == pytest.approx(logs.mean(0).std(ddof=1) / np.sqrt(6))


def test_one_layer_alone_has_its_own_scatter() -> None:
    """T with R - 1 degrees of freedom and the sample standard deviation."""
    from scipy import stats

    logs = np.array([[0.01, -0.02, 0.03, 0.0, 0.01]])
    fit = fit_blocks(np.exp(logs))
    half = stats.t.ppf(0.975, 4) * logs.std(ddof=1) / np.sqrt(5)
    assert fit.ci95[0, 1] == pytest.approx(np.exp(logs.mean() + half))
    assert fit.common_u == 0.0


def test_blocks_cover_the_truth_although_rounds_drift_and_windows_fail() -> None:
    """A drift of 20 % shared by all layers and a tenth of the windows missing: 93-97 % of layers covered."""
    rng = np.random.default_rng(4)
    covered: list[bool] = []
    for _ in range(250):
        truth = rng.uniform(0.5, 5, 6)
        rounds = np.linspace(-0.1, 0.1, 8)
        seen = truth[:, None] * np.exp(rounds + rng.normal(0, 0.015, (6, 8)))
        seen[rng.uniform(size=seen.shape) < 0.1] = np.nan
        fit = fit_blocks(seen)
        covered.extend((fit.ci95[:, 0] <= truth) & (truth <= fit.ci95[:, 1]))
    assert 0.93 <= np.mean(covered) <= 0.97


def test_blocks_with_nothing_or_one_round_have_no_interval() -> None:
    """No spread can be read from one value; a layer without any has no figure."""
    fit = fit_blocks(np.array([[2.0], [3.0]]))
    assert fit.joules == pytest.approx([2.0, 3.0])
    assert np.isnan(fit.ci95).all()
    assert np.isnan(fit_blocks(np.full((2, 3), np.nan)).joules).all()


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


# --- the books ---------------------------------------------------------------------------------------------------

PARTS = [
    RowPart(("v", Phase.VISION), 2.0, 0.01, 10, 0.02, "vision"),
    RowPart(("d", Phase.DECODE), 1.0, 0.01, 60, 0.01, "decode"),
]


def test_the_books_close_within_five_percent_or_their_own_uncertainty() -> None:
    """80 J of layers, 16 J of gaps (8 W for 2 s) against 100 J: 4 J are left, which passes."""
    found = close(around(100, 1), PARTS, around(8, 0.3), 2.0)
    assert found.residual.joules == pytest.approx(4.0)
    assert found.passed
    failing = close(around(120, 1), PARTS, around(8, 0.3), 2.0)
    assert not failing.passed
    unsure = close(around(120, 30), PARTS, around(8, 0.3), 2.0)
    assert unsure.passed
    assert unsure.tolerance == pytest.approx((unsure.residual.half or 0.0) / 120)


def test_the_residuals_interval_adds_shared_drift_and_own_scatter() -> None:
    """Rows of a phase drift together: 20 J at 1 % and 2 %, 60 J at 1 % and 1 %, by hand."""
    found = close(Amount(100, (100, 100)), PARTS)
    variance = 0.2**2 + 0.6**2 + 0.4**2 + 0.6**2
    assert found.residual.half == pytest.approx(1.959964 * math.sqrt(variance))
    together = [RowPart(p.key, p.joules, 0.0, p.calls, 0.01, "one") for p in PARTS]
    assert close(Amount(100, (100, 100)), together).residual.half == pytest.approx(1.959964 * 0.8)


@settings(max_examples=60)
@given(
    st.floats(1, 1e5),
    st.lists(st.tuples(st.floats(0, 50), st.integers(0, 500)), max_size=20),
    st.floats(0, 300),
    st.floats(0, 10),
)
def test_the_books_always_add_up(total: float, rows: list[tuple[float, int]], gap_w: float, gap_s: float) -> None:
    """Layers + gaps + residual = total, whatever the figures."""
    parts = [RowPart((f"l{k}", Phase.DECODE), j, 0.01, n) for k, (j, n) in enumerate(rows)]
    found = close(around(total, 1), parts, around(gap_w, 1), gap_s)
    summed = found.parts_j + found.gap_j + found.residual.joules
    assert summed == pytest.approx(total, rel=1e-9)
    assert found.residual.ci95 is not None
    assert found.residual.ci95[0] <= found.residual.joules <= found.residual.ci95[1]


def test_what_was_measured_once_widens_no_interval() -> None:
    """Nobody knows its doubt, so the residual has that of the rest alone: 1 J of the total."""
    found = close(around(100, 1), [RowPart(("v", Phase.VISION), 8.0, 0.0, 10)], Amount(8), 2.0)
    assert found.residual.joules == pytest.approx(4.0)
    assert found.residual.half == pytest.approx(1.0)


def test_books_without_a_total_are_refused() -> None:
    """Nothing can be a share of nothing."""
    with pytest.raises(ValueError, match="positive"):
        close(around(0, 0), PARTS)
