"""Joules of a call where it stands in the model: the work that it did in its loop, and the waiting of its place."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerprof.energy.amount import Amount, around
from layerprof.energy.place import in_place

WAITING = around(120.0, 0.0)
CALL = around(0.02 + 120.0 * 0.002, 0.001)
"""20 mJ of work, and 2 ms of a device that waits at 120 W, known to 1 mJ."""


def test_a_call_has_the_waiting_of_its_place() -> None:
    """In the model it takes half the time: the same 20 mJ of work, and 1 ms at 120 W."""
    found = in_place(CALL, 0.002, 0.001, WAITING)
    assert found.energy.joules == pytest.approx(0.02 + 0.12)
    assert (found.seconds, found.shift_s) == pytest.approx((0.001, -0.001))


def test_a_call_that_takes_as_long_as_in_its_loop_is_left_alone() -> None:
    """Joules, interval and all."""
    found = in_place(CALL, 0.002, 0.002, around(120.0, 5.0))
    assert found.energy == CALL
    assert found.doubt_j == 0


def test_that_the_difference_may_be_work_is_in_the_interval() -> None:
    """At the mean power of 130 W, 1 ms would be 130 mJ: 10 mJ off, evenly spread: 10 / sqrt 3, and 1.96 of them."""
    found = in_place(CALL, 0.002, 0.001, WAITING)
    assert found.doubt_j == pytest.approx(0.01 / math.sqrt(3))
    assert found.energy.half == pytest.approx(math.hypot(0.001, 1.959964 * 0.01 / math.sqrt(3)))
    assert found.energy.ci95 is not None
    assert found.energy.ci95[0] < 0.130 < found.energy.ci95[1]


def test_nothing_is_doubted_where_the_device_was_seen_to_wait() -> None:
    """The joules stay, with the interval that they had in the loop."""
    found = in_place(CALL, 0.002, 0.001, WAITING, sure=True)
    assert found.energy.joules == pytest.approx(0.14)
    assert (found.doubt_j, found.energy.half) == pytest.approx((0.0, 0.001))


def test_the_power_of_waiting_has_its_own_doubt() -> None:
    """3 W for the millisecond of difference are 3 mJ, beside 4 mJ: 5 in quadrature."""
    found = in_place(around(0.26, 0.004), 0.002, 0.001, around(120.0, 3.0), sure=True)
    assert found.energy.half == pytest.approx(0.005)


def test_an_interval_keeps_its_sides() -> None:
    """One that reaches further up than down does so in the model, too."""
    found = in_place(Amount(0.26, (0.259, 0.263)), 0.002, 0.001, WAITING, sure=True)
    assert found.energy.ci95 == pytest.approx((0.139, 0.143))


def test_what_was_measured_once_has_no_interval_there_either() -> None:
    """Its scatter is as unknown as in the loop."""
    found = in_place(Amount(0.26), 0.002, 0.001, WAITING).energy
    assert found.joules == pytest.approx(0.14)
    assert found.ci95 is None


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(1e-5, 1), st.floats(1e-5, 1)), max_size=8), st.floats(1, 500))
def test_each_second_of_a_walk_has_the_waiting_power_once(
    calls: list[tuple[float, float, float]], watts: float
) -> None:
    """All calls of a walk: their work, and the power of waiting for as long as they took there."""
    placed = [in_place(Amount(work + watts * s), s, there, Amount(watts)) for work, s, there in calls]
    expected = sum(work for work, _, _ in calls) + watts * sum(there for _, _, there in calls)
    assert sum(place.energy.joules for place in placed) == pytest.approx(expected, abs=1e-9)
