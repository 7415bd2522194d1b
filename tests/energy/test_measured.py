"""Windows scaled to one walk, with the rests between walks taken off; phases as differences of windows."""

from __future__ import annotations

import pytest

from layerprof.energy.amount import around, ci95_of, joules_of
from layerprof.energy.measured import NOT_ABOVE_ZERO, EnergyData, Measured, Repeated, at_one_speed, mean_power, measured
from layerprof.energy.windows import WindowReading
from layerprof.records import IN_TURN, Phase, Quality


def window(
    joules: float | None, half: float = 0.0, baseline_w: float | None = None, reason: str | None = None
) -> WindowReading:
    """Return a window of 10 s."""
    return WindowReading(
        label="up to vision",
        start_s=5.0,
        end_s=15.0,
        energy=None if joules is None else around(joules, half),
        mean_power_w=None if joules is None else joules / 10,
        baseline_w=baseline_w,
        quality=Quality.UNAVAILABLE if joules is None else Quality.MEASURED,
        source="fake_counter",
        reason=reason,
    )


def test_rests_are_taken_off_at_their_own_power() -> None:
    """1000 J in 10 s with 4 walks and 2 s of rest at 50 W: 900 J of walks, 225 J and 2 s each, at 112.5 W."""
    found = measured(window(1000.0, 30.0), None, Repeated(4, 2.0), around(50.0, 20.0))
    assert joules_of(found.reading.energy) == pytest.approx(225.0)
    assert ci95_of(found.reading.energy) == pytest.approx((225 - 12.5, 225 + 12.5)), (
        "30 J and 2 s x 20 W in quadrature, over 4"
    )
    assert found.reading.mean_power_w == pytest.approx(112.5)
    assert found.host is None


def test_without_its_own_power_a_rest_is_taken_off_at_the_quiet_one_and_without_both_it_stays() -> None:
    """2 s at the 80 W around the window leave 840 J for 4 walks; where no power is known all 1000 J are theirs."""
    quiet, neither = (measured(window(1000.0, 30.0, watts), None, Repeated(4, 2.0)) for watts in (80.0, None))
    assert [joules_of(quiet.reading.energy), joules_of(neither.reading.energy)] == pytest.approx([210.0, 250.0])
    assert ci95_of(quiet.reading.energy) == pytest.approx((202.5, 217.5)), "the quiet power is taken for exact"
    assert [quiet.reading.mean_power_w, neither.reading.mean_power_w] == pytest.approx([105.0, 100.0])


def test_walks_without_rest_share_the_window() -> None:
    """Nothing is taken off where nothing was paused, whatever a rest would draw."""
    found = measured(window(1000.0, 30.0), None, Repeated(4), around(50.0, 20.0))
    assert joules_of(found.reading.energy) == pytest.approx(250.0)
    assert ci95_of(found.reading.energy) == pytest.approx((242.5, 257.5))
    assert found.reading.mean_power_w == pytest.approx(100.0)


def test_active_joules_are_above_the_quiet_power_while_it_walked() -> None:
    """225 J a walk, and 20 W of quiet power in the 2 s that a walk takes: 185 J."""
    found = measured(window(1000.0, baseline_w=20.0), None, Repeated(4, 2.0), around(50.0, 0.0))
    assert found.active_j == pytest.approx(185.0)


def test_the_host_rests_at_its_own_power() -> None:
    """400 J of the processor's, 2 s of rest at 25 W: 87.5 J a walk; the device's rest is no part of it."""
    found = measured(window(1000.0), window(400.0), Repeated(4, 2.0), around(50.0, 0.0), around(25.0, 0.0))
    assert found.host is not None
    assert [joules_of(found.reading.energy), joules_of(found.host.energy)] == pytest.approx([225.0, 87.5])


def test_a_window_without_joules_stays_as_it_is() -> None:
    """No figure is made of nothing, and the reason stays."""
    found = measured(window(None, reason="failed reads"), None, Repeated(4, 2.0), around(50.0, 0.0))
    assert found.reading == window(None, reason="failed reads")
    assert found.active_j is None


def test_the_mean_power_of_a_window_has_its_interval() -> None:
    """1000 +- 30 J in 10 s are 100 +- 3 W; nothing is nothing."""
    power = mean_power(window(1000.0, 30.0))
    assert power is not None
    assert [power.joules, power.half] == pytest.approx([100.0, 3.0])
    assert mean_power(window(None)) is None
    assert mean_power(None) is None


def data(vision: WindowReading, prefill: WindowReading, decode: WindowReading) -> EnergyData:
    """Return what a pass read, each window of one walk."""
    upto = {phase: Measured(it, None) for phase, it in zip(IN_TURN, (vision, prefill, decode), strict=True)}
    return EnergyData(Measured(window(100.0), None), upto)


def test_phases_are_differences_of_the_windows() -> None:
    """20, 50 and 98 J up to the end of each phase: 20, 30 and 48 J; errors of 3 and 4 J make 5."""
    found = data(window(20.0, 3.0), window(50.0, 4.0), window(98.0, 0.0)).phases()
    assert found is not None
    assert [found[phase].joules for phase in IN_TURN] == [20.0, 30.0, 48.0]
    assert [found[phase].half for phase in IN_TURN] == pytest.approx([3.0, 5.0, 4.0])
    assert data(window(20.0), window(50.0), window(98.0)).phases_reason() is None


def test_phases_may_be_small() -> None:
    """Half a joule is above zero, and a phase like any other."""
    found = data(window(0.5), window(1.0), window(1.5)).phases()
    assert found is not None
    assert [found[phase].joules for phase in IN_TURN] == [0.5, 0.5, 0.5]


def test_a_phase_that_is_not_above_zero_leaves_no_phases() -> None:
    """Windows that differ by less than their doubt say nothing, and that is the reason."""
    for decode in (49.0, 50.0):
        found = data(window(20.0, 3.0), window(50.0, 4.0), window(decode, 4.0))
        assert found.phases() is None
        assert found.phases_reason() == NOT_ABOVE_ZERO


def test_a_missing_window_leaves_no_phases_and_its_own_reason() -> None:
    """Each reason of a window without joules once; those of windows with joules are no reason."""
    found = data(
        window(None, reason="too short"), window(50.0, reason="some reads failed"), window(None, reason="lost")
    )
    assert found.phases() is None
    assert found.phases_reason() == "too short; lost"
    twice = data(window(None, reason="too short"), window(None, reason="too short"), window(9.0))
    assert twice.phases_reason() == "too short"
    assert data(window(None), window(None, reason="too short"), window(9.0)).phases_reason() == "too short"


def test_windows_at_other_speeds_of_the_host_are_set_to_one() -> None:
    """10, 20 and 30 J of work, and waiting at 10 W: of walks to the end of each phase that take 2, 1.5 and 6 s.

    At one speed they take 1, 3 and 8 s, so phases have 10 + 10, 20 + 20 and 30 + 50 J, where the plain differences of
    30, 45 and 120 J are 30, 15 and 75.
    """
    walks = dict(zip(IN_TURN, ((30.0, 2.0), (45.0, 1.5), (120.0, 6.0)), strict=True))
    upto = {phase: Measured(window(joules), None, walk_s=walk_s) for phase, (joules, walk_s) in walks.items()}
    ends_s = dict(zip(IN_TURN, (1.0, 3.0, 8.0), strict=True))
    found = EnergyData(Measured(window(140.0), None), at_one_speed(upto, ends_s, around(10.0, 0.0))).phases()
    assert found is not None
    assert [found[phase].joules for phase in IN_TURN] == pytest.approx([20.0, 40.0, 80.0])
    assert found[Phase.VISION].half == pytest.approx(1.959964 * 10 * 0.5 / 3**0.5), "half the time for 10 J of work"
    assert at_one_speed(upto, ends_s, None) == upto, "nothing is set without the power of waiting"
    assert at_one_speed(upto, {}, around(10.0, 0.0)) == upto, "nor without a time"


def test_a_window_without_joules_has_none_at_another_speed() -> None:
    """The reason stays."""
    upto = {Phase.VISION: Measured(window(None, reason="too short"), None, walk_s=2.0)}
    assert at_one_speed(upto, {Phase.VISION: 1.0}, around(10.0, 0.0)) == upto
