"""Rounds of all layers in shuffled order: means, intervals and what all layers share, against worked-out formulas."""

from __future__ import annotations

import numpy as np
import pytest

from layerprof.energy.blocks import fit_blocks


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


def test_two_layers_in_two_rounds_have_one_degree_of_freedom() -> None:
    """The least that has an interval: Student's t of 12.7 times the two-way residual."""
    from scipy import stats

    logs = np.array([[0.0, 0.02], [0.01, 0.01]])
    fit = fit_blocks(np.exp(logs))
    residual = logs - logs.mean(1, keepdims=True) - logs.mean(0) + logs.mean()
    half = stats.t.ppf(0.975, 1) * np.sqrt((residual**2).sum() / 1) / np.sqrt(2)
    assert fit.df == 1
    assert fit.ci95[:, 1] == pytest.approx(np.exp(logs.mean(1) + half))


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
