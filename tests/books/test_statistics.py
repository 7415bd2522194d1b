"""Statistics agree with plain definitions and with resampling done the long way."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerprof.books import statistics

values = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50)


def test_median_and_p95_of_known_values() -> None:
    """1 to 21: the median is the 11th, the 95th percentile the 20th; an even count takes the middle of two."""
    assert statistics.median(range(1, 22)) == 11
    assert statistics.p95(range(1, 22)) == 20
    assert statistics.median([1.0, 2.0, 4.0, 8.0]) == 3.0


def test_no_values_have_no_statistic() -> None:
    """Nothing measured is None for a description, and an error for a bare figure."""
    assert statistics.describe([]) is None
    with pytest.raises(ValueError, match="no values"):
        statistics.median([])


def test_one_value_has_no_interval() -> None:
    """A single measurement tells nothing of its spread."""
    single = statistics.describe([2.0])
    assert single is not None
    assert (single.median, single.p95, single.ci95, single.n) == (2.0, 2.0, None, 1)


@given(values)
def test_the_interval_lies_within_the_values_and_around_their_middle(sample: list[float]) -> None:
    """Low <= high, and neither outside what was measured."""
    interval = statistics.median_ci(sample)
    if len(sample) < 2:
        assert interval is None
    else:
        assert interval is not None
        assert min(sample) <= interval[0] <= interval[1] <= max(sample)


@pytest.mark.parametrize("count", [3, 4, 5, 6])
def test_the_median_interval_is_that_of_all_resamples(count: int) -> None:
    """Drawn directly, the interval is the one that every possible resample gives, for odd and even counts."""
    sample = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0][:count])
    every = np.median(sample[np.indices([count] * count).reshape(count, -1)], axis=0)
    expected = np.percentile(every, [2.5, 97.5])
    assert statistics.median_ci(list(sample), drawn=200_000) == pytest.approx(tuple(expected))


@pytest.mark.parametrize("count", [7, 8, 9, 10, 14])
def test_the_median_interval_is_that_of_resamples_done_the_long_way(count: int) -> None:
    """Powers of two, so that each pair of middle values has a mean of its own: 200,000 drawn medians say the same.

    A share of 2.5 % of so many is known to 0.035 %; with what the product draws, four errors of the difference are 0.2.
    """
    sample = 2.0 ** np.arange(count)
    drawn = np.median(np.random.default_rng(5).choice(sample, (200_000, count)), axis=1)
    low, lower, high, higher = np.percentile(drawn, [2.3, 2.7, 97.3, 97.7], method="inverted_cdf")
    found = statistics.median_ci(sample.tolist(), drawn=200_000)
    assert found is not None
    assert low <= found[0] <= lower
    assert high <= found[1] <= higher


def test_the_median_interval_of_many_values_is_the_binomial_one() -> None:
    """Of 101 values, a resample's median is at most the k-th with P(Bin(101, k/101) >= 51)."""
    reached = [sum(comb(101, m) * k**m * (101 - k) ** (101 - m) for m in range(51, 102)) / 101**101 for k in range(102)]
    low, high = (next(k for k, share in enumerate(reached) if share >= level) for level in (0.025, 0.975))
    assert statistics.median_ci(range(1, 102), drawn=200_000) == (low, high)


def test_the_interval_leaves_out_two_and_a_half_percent_on_each_side() -> None:
    """Of 1,001 values a resample's median is normal around the 501st, with a deviation of sqrt(1001) / 2 places."""
    interval = statistics.median_ci(range(1001), drawn=200_000)
    half = 1.96 * 1001**0.5 / 2
    assert interval == pytest.approx((500 - half, 500 + half), abs=1.0)


def test_the_same_values_give_the_same_interval() -> None:
    """Intervals are seeded: a report made twice is the same report."""
    sample = np.random.default_rng(0).random(1000).tolist()
    assert statistics.median_ci(sample) == statistics.median_ci(sample)


def test_a_description_holds_all_four_figures() -> None:
    """0, 1, ..., 99: median 49.5, p95 94.05 between two values, the interval of the median, and how many there were."""
    found = statistics.describe(range(100))
    assert found is not None
    assert (found.median, found.n) == (49.5, 100)
    assert found.p95 == pytest.approx(94.05)
    assert found.ci95 == statistics.median_ci(range(100))


def test_the_order_of_values_does_not_matter() -> None:
    """Median and interval are of the values, whichever was measured first."""
    assert statistics.describe([5.0, 1.0, 3.0, 2.0, 9.0]) == statistics.describe([1.0, 2.0, 3.0, 5.0, 9.0])
