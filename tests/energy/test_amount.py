"""Amounts: how intervals follow through products and differences, and what has none."""

from __future__ import annotations

import pytest

from layerprof.energy.amount import Amount, around, ci95_of, ends_of, joules_of


def test_errors_of_a_difference_add_in_quadrature() -> None:
    """90 +- 3 less 30 +- 4 is 60 +- 5."""
    left = around(90, 3) - around(30, 4)
    assert left.joules == 60
    assert left.half == pytest.approx(5)


def test_a_share_takes_its_part_of_the_interval_and_a_negative_one_turns_it() -> None:
    """A tenth of 10 (8 to 14), and minus that."""
    assert Amount(10, (8, 14)) * 0.5 == Amount(5, (4, 7))
    assert Amount(10, (8, 14)) * -0.5 == Amount(-5, (-7, -4))


def test_what_was_measured_once_has_no_interval_and_gives_none() -> None:
    """Whatever it is added to: a doubt that nobody knows is not zero."""
    once = Amount(10)
    assert (once.half, ends_of(once), (once * 2).ci95) == (None, None, None)
    assert (around(30, 1) - once).ci95 is None
    assert (once - around(3, 1)).ci95 is None


def test_files_have_figure_and_interval_apart_and_nothing_for_what_is_not_there() -> None:
    """The fields of a record, and lists for JSON."""
    assert (joules_of(around(3, 1)), ci95_of(around(3, 1)), ends_of(around(3, 1))) == (3, (2, 4), [2, 4])
    assert (joules_of(None), ci95_of(None), ends_of(None)) == (None, None, None)
