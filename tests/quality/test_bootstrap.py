"""Bootstrap intervals against all resamples there are, and resamples that several quantities share."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from layerprof.quality import bootstrap
from layerprof.quality.bootstrap import Draws

ERRORS, WORDS = [0.0, 1.0, 3.0, 2.0], [2.0, 1.0, 7.0, 5.0]


def test_the_interval_of_a_ratio_is_that_of_all_resamples() -> None:
    """Four rows have 256 resamples, each with its own denominator; the ends are percentiles 2.5 and 97.5 of them."""
    every = [sum(ERRORS[k] for k in rows) / sum(WORDS[k] for k in rows) for rows in product(range(4), repeat=4)]
    expected = np.percentile(every, [2.5, 97.5])
    assert Draws(4, 200_000).ratio(ERRORS, WORDS) == pytest.approx(tuple(expected))


def test_the_interval_of_a_difference_keeps_its_pairs() -> None:
    """What is hard in both runs is no noise: the same rows on both sides, one of them 0.1 a word worse throughout."""
    worse = [errors + 0.1 * words for errors, words in zip(ERRORS, WORDS, strict=True)]
    assert Draws(4).difference_of_rates((worse, WORDS), (ERRORS, WORDS)) == pytest.approx((0.1, 0.1))


def test_resamples_are_the_same_whether_they_are_held_or_drawn_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where memory is too small for all, they are drawn in parts for each quantity, from the same seed."""
    monkeypatch.setattr(bootstrap, "PART", 40)
    held = Draws(4, 100)
    first = (held.ratio(ERRORS, WORDS), held.ratio(WORDS, ERRORS))
    monkeypatch.setattr(bootstrap, "HELD", 0)
    anew = Draws(4, 100)
    assert (anew.ratio(ERRORS, WORDS), anew.ratio(WORDS, ERRORS)) == first


def test_there_are_fewer_resamples_of_very_many_rows_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """10,000 for a comparison of usual size; what can be held, but 200, of more rows."""
    monkeypatch.setattr(bootstrap, "HELD", 50_000)
    assert [Draws(n).times for n in (0, 5, 10, 1000)] == [10_000, 10_000, 5_000, 200]
    assert Draws(1000, 10_000).times == 10_000


def test_resamples_without_a_denominator_are_left_out() -> None:
    """Of rows with one word among them, those that drew it have the ratio 1/2; with no words at all there is none."""
    assert Draws(2).ratio([1.0, 0.0], [2.0, 0.0]) == (0.5, 0.5)
    assert Draws(2).ratio([1.0, 0.0], [0.0, 0.0]) is None


@pytest.mark.parametrize("rows", [0, 1])
def test_nothing_and_one_row_have_no_interval(rows: int) -> None:
    """A single row tells nothing of its scatter."""
    column = [1.0] * rows
    assert Draws(rows).ratio(column, column) is None
    assert Draws(rows).difference_of_rates((column, column), (column, column)) is None
