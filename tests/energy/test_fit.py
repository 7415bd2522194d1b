"""Each part of a window's interval alone, on counters whose only doubt is that part: half-widths worked out by hand.

95 % of a normal deviation s is 1.96 s; a moment known to lie anywhere in a stretch d has the deviation d / sqrt(12).
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
import pytest
from scipy import stats

from layerprof.energy.amount import joules_of
from layerprof.energy.counter import Floats, Ticks
from layerprof.energy.fit import Fit, edge_window, is_steady, line, pulse_window, steady_window, student

PERIOD, LAG = 0.1, 0.15


def ticks(power: list[tuple[float, float]], end_s: float, *, noise: Any = 0.0, width_s: float = 0.0) -> Ticks:
    """Return the ticks, every 0.1 s from 0, of a counter over a power `[(from_s, watts), ...]`; `noise` is added."""
    times: Floats = np.arange(round(end_s / PERIOD) + 1) * np.float64(PERIOD)
    begins, watts = np.array(power).T
    edges = np.append(begins, end_s + 1.0)
    joules = np.interp(times, edges, np.concatenate([[0.0], np.cumsum(watts * np.diff(edges))])) + noise
    return Ticks(times, joules, np.full(len(times), width_s), PERIOD)


def half(fit: Fit) -> float:
    """Return half the width of a window's interval, which lies around its joules."""
    assert fit.energy is not None
    assert fit.energy.ci95 is not None
    low, high = fit.energy.ci95
    assert fit.energy.joules == pytest.approx((low + high) / 2)
    return (high - low) / 2


def alternating(count: int, joules: float) -> Any:
    """Return an error of +joules, -joules, +joules, ...: as far from a wandering power as can be."""
    return np.where(np.arange(count) % 2, -joules, joules)


# --- steady ---------------------------------------------------------------------------------------------------------


def test_a_steady_window_has_the_error_of_its_slope() -> None:
    """300 W for 2 s by a line through 21 ticks, each off by 1 J: its slope, and Student's t with 19 degrees."""
    found = steady_window(ticks([(0.0, 300.0)], 4.0, noise=alternating(41, 1.0)), 1.0, 3.0)
    t = np.arange(10, 31) * PERIOD
    (slope, _), covariance = np.polyfit(t, 300 * t + alternating(41, 1.0)[10:31], 1, cov=True)
    assert (found.method, found.ticks) == ("steady", 21)
    assert joules_of(found.energy) == pytest.approx(2 * slope)
    assert found.mean_power_w == pytest.approx(slope)
    assert half(found) == pytest.approx(stats.t.ppf(0.975, 19) * sqrt(covariance[0, 0]) * 2, rel=1e-6)


def test_what_a_sensor_did_not_look_at_weighs_six_fifths_in_a_slope() -> None:
    """A quarter of the time looked at: increments scatter with a variance v, and n of them sum up in a window.

    A sum of n increments has the variance n v; a line fitted through their running sum weighs each one by how many
    ticks come after it, which makes 6/5 of that. Alternating by 2 J up and down, v is half the mean squared difference
    of neighbours, 8 J^2, and three quarters of it were not seen.
    """
    count = 1000
    counter = ticks([(0.0, 300.0)], 120.0, noise=alternating(1201, 1.0))
    whole, quarter = (half(steady_window(counter, 10.0, 110.0, duty)) for duty in (1.0, 0.25))
    unseen = (quarter**2 - whole**2) / 1.96**2
    t = np.arange(count + 1) * PERIOD
    weights = np.cumsum(((t - t.mean()) / np.sum((t - t.mean()) ** 2))[::-1])[:-1]
    in_a_slope = float(np.sum((weights * count * PERIOD) ** 2)) / count
    assert in_a_slope == pytest.approx(6 / 5, rel=1e-3)
    # Degrees of freedom are a third of the increments: 1.967 for 1.96, which is 1 % of the variance.
    assert unseen == pytest.approx(in_a_slope * 0.75 * count * 8.0, rel=0.015)


def test_ticks_that_came_late_are_no_scatter_of_the_load() -> None:
    """A constant 300 W with ticks off by up to 10 ms: scatter of up to 3 J by the reading, none by the load."""
    times: Floats = np.arange(1201) * np.float64(PERIOD)
    late = np.random.default_rng(1).uniform(-0.01, 0.01, len(times))
    counter = Ticks(times + late, 300.0 * times, np.full(len(times), 0.02), PERIOD)
    whole, quarter = (half(steady_window(counter, 10.0, 110.0, duty)) for duty in (1.0, 0.25))
    taken_for_load = 1.2 * 0.75 * 1000 * 3 * (300 * 0.02) ** 2 / 12
    assert (quarter**2 - whole**2) / 1.96**2 < 0.1 * taken_for_load


def test_a_steady_window_of_few_ticks_has_a_reason() -> None:
    """Three points and a line leave one degree of freedom, which is no interval."""
    counter = ticks([(0.0, 300.0)], 4.0, noise=alternating(41, 1.0))
    assert steady_window(counter, 1.0, 1.2).energy is None
    assert "3 counter updates" in str(steady_window(counter, 1.0, 1.2).reason)
    assert steady_window(counter, 1.0, 1.3).energy is not None


def test_scatter_is_steady_and_wandering_is_not() -> None:
    """White noise passes at 1.3 sigma nine times in ten and more, at 3 nearly always; a running sum at neither."""
    rng = np.random.default_rng(0)
    t: Floats = np.arange(100) * np.float64(PERIOD)
    scatter = [line(t, 300 * t + rng.normal(0, 1, 100)) for _ in range(1000)]
    assert 0.9 <= np.mean([is_steady(it) for it in scatter]) <= 0.97
    assert np.mean([is_steady(it, 3.0) for it in scatter]) > 0.995
    wandering = [line(t, 300 * t + np.cumsum(rng.normal(0, 1, 100))) for _ in range(400)]
    assert not any(is_steady(it, 3.0) for it in wandering)


# --- pulse ----------------------------------------------------------------------------------------------------------


def test_a_pulse_is_the_height_between_the_quiet_lines() -> None:
    """80 W, then 400 W for 2 s, then 80 W, every tick exact: 800 J without any doubt, and the quiet power beside it."""
    found = pulse_window(ticks([(0.0, 80.0), (2.0, 400.0), (4.0, 80.0)], 6.0), 2.0, 4.0, quiet_s=1.5)
    assert joules_of(found.energy) == pytest.approx(800.0)
    assert half(found) == pytest.approx(0.0, abs=1e-6)
    assert found.baseline_w == pytest.approx(80.0)
    assert found.mean_power_w == pytest.approx(400.0)
    assert (found.method, found.ticks) == ("pulse", 21)


def test_an_unknown_lag_counts_where_the_quiet_power_changed() -> None:
    """80 W before and 120 W after: a lag of anything up to 0.15 s moves up to 6 J across the window's edges."""
    counter = ticks([(0.0, 80.0), (2.0, 400.0), (4.0, 120.0)], 6.0)
    found = pulse_window(counter, 2.0, 4.0, quiet_s=1.5, lag_s=LAG)
    assert half(found) == pytest.approx(1.959964 * 40 * LAG / sqrt(12), rel=1e-6)
    assert joules_of(found.energy) == pytest.approx(800 + 40 * LAG / 2), "as if the lag were half of it"
    assert found.baseline_w == pytest.approx(100.0)
    twice = pulse_window(counter, 2.0, 4.0, quiet_s=1.5, lag_s=2 * LAG)
    assert half(twice) == pytest.approx(2 * half(found), rel=1e-6)


def test_a_load_that_starts_between_two_looks_counts() -> None:
    """A quarter of each 0.1 s is looked at: 320 W more may be taken for up to 75 ms too long, at both edges."""
    counter = ticks([(0.0, 80.0), (2.0, 400.0), (4.0, 80.0)], 6.0)
    found = pulse_window(counter, 2.0, 4.0, quiet_s=1.5, duty=0.25)
    one_edge = 320 * 0.075 / sqrt(12)
    # What was not looked at of a load that does not change is nothing.
    assert half(found) == pytest.approx(1.959964 * sqrt(2) * one_edge, rel=1e-3)


def test_the_quiet_lines_scatter_counts_with_few_degrees_of_freedom() -> None:
    """Ticks off by 0.5 J to and fro in both quiet stretches: two fitted heights, and Welch and Satterthwaite's t."""
    noise = alternating(61, 0.5)
    noise[18:44] = 0.0
    counter = ticks([(0.0, 80.0), (2.0, 400.0), (4.0, 80.0)], 6.0, noise=noise)
    found = pulse_window(counter, 2.0, 4.0, quiet_s=1.5, lag_s=LAG)
    parts = []
    for low, high, at in ((0.65, 2.0, 2.0 + LAG / 2), (4.15, 5.5, 4.0 + LAG / 2)):
        inside = (counter.t_s >= low) & (counter.t_s <= high + 1e-9)
        t, c = counter.t_s[inside], counter.joules[inside]
        (slope, level), covariance = np.polyfit(t - at, c, 1, cov=True)
        parts.append((covariance[1, 1], len(t) - 2, slope, level))
    (v1, df1, before, _), (v2, df2, after, _) = parts
    moved = ((after - before) * LAG) ** 2 / 12
    variance = v1 + v2 + moved
    df = variance**2 / (v1**2 / df1 + v2**2 / df2)
    assert joules_of(found.energy) == pytest.approx(parts[1][3] - parts[0][3])
    assert half(found) == pytest.approx(stats.t.ppf(0.975, df) * sqrt(variance), rel=1e-6)


@pytest.mark.parametrize(("start_s", "quiet_s"), [(2.0, 0.4), (0.2, 1.5)])
def test_a_pulse_without_four_quiet_ticks_on_each_side_has_no_figure(start_s: float, quiet_s: float) -> None:
    """Too short a rest, or a record that begins with the load."""
    counter = ticks([(0.0, 80.0), (start_s, 400.0), (4.0, 80.0)], 6.0)
    assert pulse_window(counter, start_s, 4.0, quiet_s=quiet_s).energy is None


# --- edges ----------------------------------------------------------------------------------------------------------


def test_edges_inside_a_constant_load_are_exact() -> None:
    """300 W all around: nothing that a lag could have moved, and no step between two ticks."""
    found = edge_window(ticks([(0.0, 300.0)], 6.0), 1.03, 3.56)
    assert joules_of(found.energy) == pytest.approx(300 * 2.53)
    assert half(found) == pytest.approx(0.0, abs=1e-6)
    assert found.ticks == 25


def test_a_load_that_differs_at_the_edges_counts_by_what_a_lag_could_move() -> None:
    """100 W, 300 W inside, 200 W after: a lag of up to 0.15 s and one step of the counter move 200 W and 100 W."""
    found = edge_window(ticks([(0.0, 100.0), (2.0, 300.0), (4.0, 200.0)], 6.0), 2.0, 4.0, lag_s=LAG)
    moved = LAG + PERIOD
    assert joules_of(found.energy) == pytest.approx(600.0)
    assert half(found) == pytest.approx(1.959964 * sqrt((200 * moved) ** 2 / 12 + (100 * moved) ** 2 / 12), rel=1e-6)


def test_a_counter_without_lag_is_off_by_the_width_of_its_reads() -> None:
    """Ticks known to 20 ms at 300 W: 6 J of play at either end, and at the edges of a step 200 W of 20 ms."""
    constant = edge_window(ticks([(0.0, 300.0)], 6.0, width_s=0.02), 1.0, 3.0, lag_s=0.0)
    assert half(constant) == pytest.approx(1.959964 * sqrt(2 * 6.0**2 / 12), rel=1e-6)
    stepping = edge_window(ticks([(0.0, 100.0), (2.0, 300.0)], 6.0, width_s=0.02), 2.0, 4.0, lag_s=0.0)
    assert half(stepping) == pytest.approx(1.959964 * sqrt((2 * 6.0**2 + 4.0**2) / 12), rel=1e-6)


def test_beyond_its_ticks_a_counter_goes_on_at_the_power_it_had() -> None:
    """A window that opens 50 ms before the first tick and closes 50 ms after the last one."""
    found = edge_window(ticks([(0.0, 300.0)], 2.0), -0.05, 2.05)
    assert joules_of(found.energy) == pytest.approx(300 * 2.1)


def test_a_changing_load_is_in_the_interval_of_edges_too() -> None:
    """Ticks that alternate by 1 J, a quarter looked at: three quarters of 20 x 8 J^2 were not seen."""
    counter = ticks([(0.0, 300.0)], 4.0, noise=alternating(41, 1.0))
    whole, quarter = (edge_window(counter, 1.0, 3.0, duty) for duty in (1.0, 0.25))
    known = (half(whole) / 1.959964) ** 2
    unseen = 0.75 * 20 * 8.0
    looks = (18 - 1) // 3  # increments of the ticks from 1.25 s to 3 s
    df = (known + unseen) ** 2 / (unseen**2 / looks)
    assert half(quarter) == pytest.approx(stats.t.ppf(0.975, df) * sqrt(known + unseen), rel=1e-6)


# --- Student --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("df", "quantile"), [(1, 12.706), (5, 2.571), (30, 2.042), (1e9, 1.960)])
def test_students_t_is_the_tables(df: float, quantile: float) -> None:
    """Quantiles of 97.5 % as printed in any table."""
    assert student(df) == pytest.approx(quantile, abs=5e-4)
