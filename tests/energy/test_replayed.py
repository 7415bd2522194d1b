"""Replayed rows set in their place in the model: what is trusted of a call whose time differs there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from layerprof.energy.amount import around
from layerprof.energy.flags import THROTTLED
from layerprof.energy.replayed import TIME_RATIO, ReplayReading, ReplayRow
from layerprof.records import Phase, Quality

KEY = ("a", Phase.DECODE)
ROW = ReplayRow(
    energy=around(0.26, 0.002),
    active=around(0.02, 0.002),
    hot_j=0.255,
    seconds=0.002,
    rounds=5,
    quality=Quality.REPLAYED,
    reason=None,
    hot_s=0.0021,
    relative_u=0.002 / 1.959964 / 0.26,
)
"""20 mJ of work in 2 ms at 120 W; with warm weights 3 mJ of work in 2.1 ms."""


def placed(row: ReplayRow, place_s: float = 0.001, watts: float | None = 120.0) -> ReplayRow:
    """Return the row where it takes `place_s` in the model."""
    gap_w = None if watts is None else around(watts, 0.0)
    return ReplayReading({KEY: row}, gap_w=gap_w).placed({KEY: place_s}).rows[KEY]


def test_a_device_that_was_seen_waiting_leaves_no_doubt() -> None:
    """The millisecond less is waiting, and the interval stays that of the loop."""
    found = placed(replace(ROW, host_bound=True))
    assert found.in_model is not None
    assert (found.in_model.joules, found.in_model.half) == pytest.approx((0.14, 0.002))
    assert found.flags == (TIME_RATIO,)
    assert str(found.reason).endswith("the difference is waiting at 120 W")


@pytest.mark.parametrize(
    "row", [ROW, replace(ROW, host_bound=False), replace(ROW, host_bound=True, flags=(THROTTLED,))]
)
def test_else_that_it_may_be_work_is_doubted(row: ReplayRow) -> None:
    """Nobody looked, or the device was busy throughout, or its clocks were held back: 10 mJ, evenly spread."""
    found = placed(row)
    assert found.place is not None
    assert found.place.doubt_j == pytest.approx(0.01 / 3**0.5)
    assert "may be work is in the interval (8.1% of the joules)" in str(found.reason)


def test_warm_weights_have_the_same_place() -> None:
    """255 mJ in 2.1 ms: 3 mJ of work, and 1 ms of waiting."""
    assert placed(ROW).hot_in_model_j == pytest.approx(0.003 + 0.12)
    assert placed(replace(ROW, hot_j=None, hot_s=None)).hot_in_model_j is None


def test_without_the_power_of_waiting_a_call_is_as_it_was_replayed() -> None:
    """It is flagged all the same."""
    found = placed(ROW, watts=None)
    assert found.in_model == ROW.energy
    assert found.hot_in_model_j == ROW.hot_j
    assert (found.flags, found.reason) == ((TIME_RATIO,), "a replayed call took 2.00 of its time in the model")


def test_times_within_five_per_cent_are_alike() -> None:
    """The joules are those of the place, and nothing is said."""
    found = placed(ROW, 0.00196)
    assert found.in_model is not None
    assert found.in_model.joules == pytest.approx(0.26 - 120 * 0.00004)
    assert (found.flags, found.reason) == ((), None)


def test_the_books_add_the_doubts_of_all_calls_up() -> None:
    """One cause makes all calls unlike: 100 calls of 10 mJ / sqrt 3 of doubt each, and of 2 mJ in quadrature."""
    reading = ReplayReading({KEY: ROW}, gap_w=around(120.0, 0.0)).placed({KEY: 0.001})
    found = reading.closure(around(20.0, 0.0), {KEY: 100}, gap_s=0.01)
    assert (found.parts_j, found.gap_j) == pytest.approx((14.0, 1.2))
    assert found.residual.half == pytest.approx(((1.959964 * 1.0 / 3**0.5) ** 2 + 0.2**2) ** 0.5)
