"""Bundles of two runs that batched the same samples otherwise, and intervals against every resample there is."""

from __future__ import annotations

import numpy as np
import pytest
from resampling import every_resample, holds_95_percent

from layerprof.quality.bootstrap import RESAMPLES, Draws
from layerprof.runs.pairing import bundles

# --- bundles ---------------------------------------------------------------------------------------------------


def test_batches_of_the_same_samples_are_paired_batch_by_batch() -> None:
    """Two runs with the same batches have one bundle a batch."""
    batches = {"a": 0, "b": 0, "c": 1, "d": 1}
    assert [(bundle.before, bundle.after, bundle.names) for bundle in bundles(batches, batches)] == [
        ((0,), (0,), ("a", "b")),
        ((1,), (1,), ("c", "d")),
    ]


def test_single_rows_are_paired_with_the_batch_they_are_in() -> None:
    """A run of batches of one against a run of batches of two: the bundle is the larger batch."""
    alone, together = {"a": 0, "b": 1, "c": 2, "d": 3}, {"a": 0, "b": 0, "c": 1, "d": 1}
    assert [(bundle.before, bundle.after) for bundle in bundles(alone, together)] == [((0, 1), (0,)), ((2, 3), (1,))]


def test_batches_that_cross_are_one_unit() -> None:
    """Batches of two against batches of three over six samples have no common border but the end."""
    twos, threes = ({name: index // size for index, name in enumerate("abcdef")} for size in (2, 3))
    assert [(bundle.before, bundle.after) for bundle in bundles(twos, threes)] == [((0, 1, 2), (0, 1))]


def test_batches_with_samples_that_one_run_lacks_are_left_out() -> None:
    """Time of a batch cannot be shared out among its samples, so a batch that is not wholly shared does not count."""
    assert [bundle.names for bundle in bundles({"a": 0, "b": 0, "c": 1}, {"a": 0, "c": 1, "x": 2})] == [("c",)]


def test_a_batch_that_one_run_filled_with_a_sample_of_its_own_is_left_out() -> None:
    """Whichever run has the additional sample: its batch holds time of something that the other did not do."""
    shared, more = {"a": 0, "b": 1}, {"a": 0, "x": 0, "b": 1}
    assert [bundle.names for bundle in bundles(shared, more)] == [("b",)]
    assert [bundle.names for bundle in bundles(more, shared)] == [("b",)]


def test_what_hangs_together_with_a_spoilt_batch_is_left_out_too() -> None:
    """Batches (a b)(c d) against (a)(b c)(d x): x spoils d's batch, that c's, that b's, that a's."""
    before = {"a": 0, "b": 0, "c": 1, "d": 1, "e": 2}
    after = {"a": 0, "b": 1, "c": 1, "d": 2, "x": 2, "e": 3}
    assert [bundle.names for bundle in bundles(before, after)] == [("e",)]


# --- intervals --------------------------------------------------------------------------------------------------


BEFORE, AFTER = (1.0, 2.0, 4.0, 7.0, 11.0), (1.5, 1.6, 6.0, 6.5, 15.0)
ERRORS, WORDS = (3.0, 0.0, 1.0, 1.0, 6.0), (1.0, 2.0, 3.0, 5.0, 8.0)
OTHER_ERRORS, OTHER_WORDS = (2.0, 1.0, 1.0, 0.0, 4.0), (2.0, 2.0, 4.0, 5.0, 6.0)


def test_a_constant_ratio_has_an_interval_of_no_width() -> None:
    """Where every pair has the same ratio, every resample has it too."""
    low, high = Draws(5).ratio([2.0, 4.0, 6.0, 8.0, 10.0], [1.0, 2.0, 3.0, 4.0, 5.0]) or (0, 0)
    assert low == pytest.approx(2.0)
    assert high == pytest.approx(2.0)


def test_the_interval_of_a_ratio_is_that_of_all_resamples() -> None:
    """Five pairs of times: of the 3,125 ways to draw them, the middle 95 %; neither 90 % nor sums drawn apart."""
    over, under = every_resample(AFTER, BEFORE)
    ratios = over / under
    assert holds_95_percent(Draws(5).ratio(AFTER, BEFORE), ratios, RESAMPLES)
    assert not holds_95_percent(tuple(np.percentile(ratios, [5, 95])), ratios, RESAMPLES)
    apart = (over[:, None] / under[None, :]).ravel()
    assert not holds_95_percent(tuple(np.percentile(apart, [2.5, 97.5])), ratios, RESAMPLES)


def test_the_interval_of_a_difference_of_rates_is_that_of_all_resamples() -> None:
    """Errors over words of the same five samples in two runs, after less before: four columns, drawn by sample."""
    errors, words, other_errors, other_words = every_resample(ERRORS, WORDS, OTHER_ERRORS, OTHER_WORDS)
    differences = other_errors / other_words - errors / words
    found = Draws(5).difference_of_rates((OTHER_ERRORS, OTHER_WORDS), (ERRORS, WORDS))
    assert holds_95_percent(found, differences, RESAMPLES)
    assert not holds_95_percent(tuple(np.percentile(differences, [5, 95])), differences, RESAMPLES)
    apart = (other_errors / other_words)[:, None] - (errors / words)[None, :]
    assert not holds_95_percent(tuple(np.percentile(apart, [2.5, 97.5])), differences, RESAMPLES)


def test_the_interval_of_a_ratio_is_the_bootstraps() -> None:
    """Ratios of 1 and 3 on equal bases, ten of each: the interval lies around 2, within binomial bounds done by hand.

    The ratio of a resample is 1 + 2 B / 20 with B ~ Binomial(20, 1/2), whose 2.5 and 97.5 percentiles are 6 and 14.
    """
    found = Draws(20).ratio([1.0, 3.0] * 10, [1.0] * 20)
    assert found == pytest.approx((1.6, 2.4))


def test_resamples_without_a_word_have_no_rate_and_are_left_out() -> None:
    """Of two samples one has no words: drawn twice it gives no rate, and all other draws give the other's, 1/2."""
    assert Draws(2).ratio([1.0, 0.0], [2.0, 0.0]) == pytest.approx((0.5, 0.5))
    assert Draws(2).ratio([1.0, 0.0], [0.0, 0.0]) is None


def test_one_pair_has_no_interval() -> None:
    """A single pair says nothing of its noise."""
    assert Draws(1).ratio([2.0], [1.0]) is None


def test_the_same_pairs_have_the_same_interval() -> None:
    """Draws are seeded: a comparison made twice is the same comparison."""
    assert Draws(5).ratio(AFTER, BEFORE) == Draws(5).ratio(AFTER, BEFORE)
