"""Joules per correct answer: by hand, and its interval against a simulation that knows the truth."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from layerprof.books import cost
from layerprof.records import Energy, Quality


def _energy(joules: float | None, samples: int = 4, ci95: tuple[float, float] | None = None) -> Energy:
    return Energy(
        joules=joules,
        per_sample=None if joules is None else joules / samples,
        per_output_token=None,
        quality=Quality.UNAVAILABLE if joules is None else Quality.MEASURED,
        source="test",
        reason="no sensor is here" if joules is None else None,
        ci95=ci95,
    )


def test_answers_that_are_partly_right_count_as_their_part() -> None:
    """20 J for four samples, of which 1 + 1 + 1/2 + 0 answers are right: 20 J / 2.5."""
    found = cost.per_correct_answer(_energy(20.0), (1.0, 1.0, 0.5, 0.0), "vqa_accuracy")
    assert found == {
        "per_correct_answer": 8.0, "per_correct_answer_ci95": None, "per_correct_answer_reason": None,
    }  # fmt: skip


def test_a_sample_without_a_reference_is_taken_to_be_right_as_often_as_the_others() -> None:
    """Two of three judged answers are right, so 5 J a sample are 7.5 J a right answer, whatever the fourth was."""
    found = cost.per_correct_answer(_energy(20.0), (1.0, None, 0.0, 1.0), "exact_match")
    assert found["per_correct_answer"] == pytest.approx(7.5)


@pytest.mark.parametrize(
    ("energy", "scores", "metric", "reason"),
    [
        (_energy(None), (1.0, 1.0), "exact_match", "no sensor is here"),
        (_energy(20.0), (None, None), None, cost.NO_METRIC),
        (_energy(20.0), (None, None), "exact_match", cost.NONE_JUDGED),
        (_energy(20.0), (), "exact_match", cost.NONE_JUDGED),
        (_energy(20.0), (0.0, 0.0), "exact_match", "no answer was right"),
    ],
    ids=["no energy", "no metric", "no references", "no samples", "nothing right"],
)
def test_where_there_is_no_cost_there_is_a_reason(
    energy: Energy, scores: tuple[float | None, ...], metric: str | None, reason: str
) -> None:
    """None and why, never 0 and never infinity."""
    assert cost.per_correct_answer(energy, scores, metric) == {
        "per_correct_answer": None, "per_correct_answer_ci95": None, "per_correct_answer_reason": reason,
    }  # fmt: skip


# --- the interval -----------------------------------------------------------------------------------------------


def test_joules_known_exactly_leave_the_doubt_of_the_samples() -> None:
    """Five samples: the interval is that of e / mean over all 3,125 ways to draw them."""
    scores = (1.0, 1.0, 0.3, 0.6, 1.0)
    every = [10.0 * 5 / sum(drawn) for drawn in product(scores, repeat=5)]
    found = cost.cost_interval((10.0, (10.0, 10.0)), scores)
    low, high = np.percentile(every, [2.5, 97.5])
    assert found == pytest.approx((low, high), rel=0.02)


def test_answers_that_are_all_right_leave_the_doubt_of_the_joules() -> None:
    """Every resample has the mean 1, so what is left is the joules' own interval."""
    assert cost.cost_interval((10.0, (9.0, 11.0)), (1.0,) * 30) == pytest.approx((9.0, 11.0), rel=0.01)


@pytest.mark.parametrize(("samples", "right", "relative"), [(40, 0.8, 0.05), (100, 0.5, 0.01), (200, 0.1, 0.2)])
def test_the_interval_holds_the_truth_as_often_as_it_says(samples: int, right: float, relative: float) -> None:
    """Runs are made up of a true cost: joules with an error of a sensor, answers that are right by chance.

    Of 200 runs about 95 % of the intervals hold the true cost: between 90 and 99.5, three standard errors of a share of
    200.
    """
    random = np.random.default_rng(5)
    true_joules, runs = 10.0, 200
    held = 0
    for _ in range(runs):
        deviation = relative * true_joules
        joules = random.normal(true_joules, deviation)
        scores = (random.random(samples) < right).astype(float)
        ends = (joules - 1.96 * deviation, joules + 1.96 * deviation)
        found = cost.cost_interval((joules, ends), scores.tolist())
        assert found is not None
        held += found[0] <= true_joules / right <= found[1]
    assert 0.90 <= held / runs <= 0.995


def test_the_interval_of_a_run_is_a_samples_share_of_the_joules() -> None:
    """40 +- 4 J for 40 samples that are all right: 1 J a right answer, from 0.9 to 1.1."""
    found = cost.per_correct_answer(_energy(40.0, 40, (36.0, 44.0)), (1.0,) * 40, "exact_match")
    assert found["per_correct_answer"] == 1.0
    assert found["per_correct_answer_ci95"] == pytest.approx((0.9, 1.1), rel=0.01)


@pytest.mark.parametrize("scores", [(1.0,), (1.0, 0.0, 0.0)], ids=["one sample", "mostly without a right answer"])
def test_an_interval_without_an_upper_end_is_none(scores: tuple[float, ...]) -> None:
    """Of three samples with one right, (2/3)^3 = 30 % of the resamples have none right: their cost is beyond any."""
    found = cost.per_correct_answer(_energy(20.0, len(scores), (19.0, 21.0)), scores, "exact_match")
    assert found["per_correct_answer"] is not None
    assert found["per_correct_answer_ci95"] is None


def test_a_run_has_the_same_interval_each_time() -> None:
    """Draws are seeded."""
    once, again = (cost.cost_interval((10.0, (9.0, 11.0)), (1.0, 0.0) * 20) for _ in range(2))
    assert once == again
