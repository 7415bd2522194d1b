"""Joules with intervals: estimators against a counter whose truth is known, windows, shares, totals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from fake_counter import Faults, trace
from hypothesis import given, settings
from hypothesis import strategies as st

from layerprof.energy import share, windows
from layerprof.energy.amount import Amount, around, ci95_of, joules_of
from layerprof.energy.counter import CounterRead, Unwrapper, find_ticks
from layerprof.energy.fit import Fit, edge_window, line, pulse_window, steady_window
from layerprof.energy.sensor_record import SensorRecord, State
from layerprof.energy.share import attribute, by_difference
from layerprof.records import IN_TURN, Phase, Quality

FAULTS = {
    "steps": Faults(),
    "lag": Faults(late_s=0.1),
    "stale and failed reads": Faults(late_s=0.05, stale=0.1, failing=0.1),
    "zeros for failures": Faults(zeros=0.05),
    "wrap": Faults(wrap_j=700.0),
}
QUARTER = Faults(late_s=0.05, look=0.25)


def _changing(rng: np.random.Generator, seconds: float) -> list[float]:
    """Return a power that changes every 25 ms, at random."""
    return [float(w) for w in rng.uniform(250, 450, int(seconds / 0.025))]


def _errors(kind: str, faults: Faults, repetitions: int, seconds: float, changing: bool) -> tuple[np.ndarray, float]:
    """Relative errors of a window over many repetitions, and how often its interval held the truth."""
    errors, covered = [], 0
    rest = 1.2 if kind == "pulse" else 0.4
    for seed in range(repetitions):
        rng = np.random.default_rng([seed, *kind.encode(), *repr(faults).encode()])
        length = seconds * rng.uniform(1, 1.2)
        levels = _changing(rng, length) if changing else [400.0]
        start = 10 + rng.uniform(0, 0.1)
        around = 80.0 if kind == "pulse" else 350.0 if changing else 400.0
        times = start + np.arange(len(levels)) * length / len(levels)
        power = [(start - rest - 0.5, around), *zip(times.tolist(), levels, strict=True), (start + length, around)]
        samples, truth = trace(power, start + length + rest, faults, rng)
        ticks = find_ticks(samples)
        if kind == "pulse":
            fit = pulse_window(ticks, start, start + length, quiet_s=1.0, duty=faults.look)
        else:
            fit = steady_window(ticks, start, start + length, faults.look)
        true = truth(start, start + length)
        if fit.energy is not None and fit.energy.ci95 is not None:
            errors.append(fit.energy.joules / true - 1)
            covered += fit.energy.ci95[0] <= true <= fit.energy.ci95[1]
    # Too many reads may fail in a quiet second to read it; then there is a reason and no figure.
    assert len(errors) >= 0.99 * repetitions
    return np.array(errors), covered / len(errors)


@pytest.mark.parametrize("kind", ["steady", "pulse"])
def test_two_second_windows_are_unbiased_and_their_intervals_hold(kind: str) -> None:
    """Every fault that is claimed to be handled: no bias, and the 95 % interval holds the truth in 93-97 % of cases."""
    coverages = []
    for faults in FAULTS.values():
        errors, coverage = _errors(kind, faults, 400, 2.0, changing=False)
        assert abs(errors.mean()) < 0.001
        assert np.abs(errors).max() < 0.02
        # 400 repetitions of a true 95 % fall into this range 99 times in 100; all faults together are held tighter.
        assert 0.92 <= coverage <= 0.98
        coverages.append(coverage)
    assert 0.93 <= np.mean(coverages) <= 0.97


@pytest.mark.parametrize("kind", ["steady", "pulse"])
def test_a_sensor_that_looks_a_quarter_of_the_time_is_unbiased_and_its_interval_holds(kind: str) -> None:
    """A load that changes between the looks: the error is per cent, and the interval says so."""
    errors, coverage = _errors(kind, QUARTER, 400, 3.0, changing=True)
    assert abs(errors.mean()) < 0.01
    assert errors.std() > 0.01
    assert 0.92 <= coverage <= 0.98


def test_a_pulse_between_quiet_stretches_is_exact_for_a_load_that_changes() -> None:
    """A whole look at a changing load, 50 ms late: the lag does not reach the figure."""
    errors, coverage = _errors("pulse", Faults(late_s=0.05), 300, 2.0, changing=True)
    assert abs(errors.mean()) < 0.001
    assert 0.93 <= coverage <= 0.98


def test_a_window_opened_with_the_load_needs_the_quiet_stretches() -> None:
    """Why windows rest: the plain difference of a 100 ms late counter misses 4 % of a 2 s load, the pulse nothing."""
    samples, truth = trace([(8.0, 80.0), (10.0, 400.0), (12.0, 80.0)], 13.2, FAULTS["lag"], np.random.default_rng(1))
    ticks = find_ticks(samples)
    inside = [s.joules for s in samples if 10 <= s.t_s <= 12 and s.joules is not None]
    true = truth(10, 12)
    assert (inside[-1] - inside[0]) / true - 1 < -0.03
    assert joules_of(pulse_window(ticks, 10, 12, quiet_s=1.0).energy) == pytest.approx(true, rel=0.005)


def test_the_fitted_line_is_ordinary_least_squares() -> None:
    """Slope and its standard error, against numpy's polynomial fit."""
    rng = np.random.default_rng(3)
    t = np.sort(rng.uniform(0, 2, (5, 20)))
    c = 300 * t + rng.normal(0, 2, t.shape)
    fitted = line(t, c)
    for row in range(5):
        coefficients, covariance = np.polyfit(t[row], c[row], 1, cov=True)
        assert fitted.power_w[row] == pytest.approx(coefficients[0])
        assert fitted.se_w[row] == pytest.approx(np.sqrt(covariance[0, 0]))


def test_a_load_that_is_not_steady_is_read_by_its_edges() -> None:
    """A fitted line through 500 W then 200 W weighs the middle; the counter's edges do not."""
    samples, truth = trace([(8.0, 500.0), (11.0, 200.0)], 14.0, Faults(), np.random.default_rng(0))
    fit = steady_window(find_ticks(samples), 10.0, 13.5)
    assert (fit.method, fit.steady) == ("edges", False)
    assert joules_of(fit.energy) == pytest.approx(truth(10.0, 13.5), rel=0.01)


def test_an_exact_counter_gives_an_exact_figure() -> None:
    """No scatter at all: no division by zero, no width."""
    samples = [CounterRead(k * 0.1, 30.0 * k) for k in range(40)]
    fit = steady_window(find_ticks(samples, update_s=1e-9), 1.0, 3.0)
    assert joules_of(fit.energy) == pytest.approx(600.0)
    assert ci95_of(fit.energy) == pytest.approx((600.0, 600.0))


@pytest.mark.parametrize("fit", [steady_window, edge_window])
def test_a_window_shorter_than_the_counters_step_has_a_reason_instead_of_joules(fit: Callable[..., Fit]) -> None:
    """50 ms at a counter that steps every 100 ms."""
    samples, _ = trace([(8.0, 300.0)], 12.0, Faults(), np.random.default_rng(0))
    found = fit(find_ticks(samples), 10.0, 10.05)
    assert found.energy is None
    assert "too short" in str(found.reason)


# --- the counter -------------------------------------------------------------------------------------------------


def _fed(values: list[float | None], **settings: float) -> list[tuple[float | None, str | None]]:
    unwrapper = Unwrapper(**settings)
    return [(s.joules, s.event) for s in (unwrapper.feed(k * 0.1, v) for k, v in enumerate(values))]


def test_a_wrap_is_undone() -> None:
    """262 144 J range, 100 W: 5 J before the wrap and 5 J after it are 10 J."""
    assert _fed([262139.0, 5.0], wrap_j=262144.0, max_power_w=1500.0) == [(0.0, None), (10.0, "wrap")]


def test_a_failed_read_is_never_zero_and_never_a_wrap() -> None:
    """A driver that answers 0, or nothing, in between: the joules go on, no 262 kJ appear."""
    fed = _fed([200000.0, 0.0, None, 200010.0], wrap_j=262144.0, max_power_w=1500.0)
    assert fed == [(0.0, None), (None, "failed"), (None, "failed"), (10.0, None)]


def test_a_reset_is_told_from_a_wrap_and_its_fall_is_no_energy() -> None:
    """A driver reload in the middle of the range; the second low value confirms it."""
    fed = _fed([100000.0, 100010.0, 40.0, 50.0, 60.0], wrap_j=262144.0, max_power_w=1500.0)
    assert [e for _, e in fed] == [None, None, "failed", "reset", None]
    assert [j for j, _ in fed if j is not None] == [0.0, 10.0, 10.0, 20.0]


def test_a_single_low_value_is_a_failed_read() -> None:
    """One glitch does not make a reset."""
    fed = _fed([100000.0, 77.0, 100020.0])
    assert fed == [(0.0, None), (None, "failed"), (20.0, None)]


def test_an_impossible_jump_is_not_energy() -> None:
    """A counter that jumps by a gigajoule in 0.1 s was replaced, not used."""
    assert [e for _, e in _fed([0.5, 1e9, 1e9 + 10])] == [None, "failed", "reset"]


@given(st.lists(st.floats(0.01, 50), min_size=1, max_size=60), st.floats(100, 1000), st.data())
def test_unwrapping_gives_back_what_was_used(steps: list[float], wrap: float, data: st.DataObject) -> None:
    """Any increments, any range, any failed reads: the joules at good reads are those used."""
    used = np.cumsum([3.0, *steps])
    failing = data.draw(st.lists(st.booleans(), min_size=len(used), max_size=len(used)))
    # Two good reads may not be so far apart that a whole range passes unseen.
    failing = [f and k % 2 == 1 for k, f in enumerate(failing)]
    unwrapper = Unwrapper(wrap, max_power_w=90.0)
    for k, (total, fails) in enumerate(zip(used, failing, strict=True)):
        value = float(total % wrap)
        step = unwrapper.feed(k * 1.0, None if fails else value)
        assert step.joules is None if fails or value == 0 else step.joules == pytest.approx(total - 3.0)


def test_the_bracket_of_a_tick_is_between_the_reads_around_it() -> None:
    """Read at 0.00, 0.02, 0.06 (failed), 0.08: the change seen at 0.08 fell after 0.02."""
    samples = [
        CounterRead(0.0, 1.0),
        CounterRead(0.02, 1.0),
        CounterRead(0.06, None, None, "failed"),
        CounterRead(0.08, 9.0),
    ]
    ticks = find_ticks(samples)
    assert ticks.t_s.tolist() == pytest.approx([0.05])
    assert ticks.width_s.tolist() == pytest.approx([0.06])
    assert ticks.failed_s == (0.06,)


# --- windows -----------------------------------------------------------------------------------------------------


def _record(samples: list[CounterRead], **more: object) -> SensorRecord:
    settings: dict[str, object] = {"lag_s": 0.15, **more}
    return SensorRecord("Fake", "nvml_counter", "board", tuple(samples), **settings)  # type: ignore[arg-type]  # free settings


def _constant(seconds: float = 6.0, watts: float = 300.0) -> list[CounterRead]:
    return trace([(8.0, watts)], 8.0 + seconds, Faults(), np.random.default_rng(0))[0]


def test_a_clean_window_is_measured_and_says_by_what() -> None:
    """Joules, interval, power, label and source; no flag, no reason."""
    found = windows.read_window(_record(_constant()), windows.Window("w", 9.0, 13.0, steady=True))
    assert joules_of(found.energy) == pytest.approx(1200.0, rel=0.01)
    assert (found.quality, found.source, found.flags, found.reason) == (Quality.MEASURED, "nvml_counter", (), None)
    assert found.mean_power_w == pytest.approx(300.0, rel=0.01)


def test_flags_say_what_disturbed_the_window() -> None:
    """Another process, a power cap and a clock that moved, inside; the same outside are no flags."""
    states = (
        State(8.5, 900.0, throttle=("power cap",)),
        State(10.0, 1980.0),
        State(11.0, 1700.0, throttle=("power cap",)),
        State(12.0, 1980.0),
    )
    record = _record(_constant(), states=states, foreign=((8.6, (7,)), (11.0, (4242,)), (12.0, ())))
    disturbed = windows.read_window(record, windows.Window("w", 9.0, 13.0, steady=True))
    assert set(disturbed.flags) == {"foreign process", "throttled", "clock drift"}
    assert "another process" in str(disturbed.reason)
    quiet = windows.read_window(record, windows.Window("w", 11.5, 13.9, steady=True))
    assert quiet.flags == ()


def test_a_reset_inside_leaves_no_joules() -> None:
    """What a reset counter gained is unknown: None, a flag, a reason with its remedy; not an absolute value."""
    samples = _constant()
    samples[len(samples) // 2] = CounterRead(samples[len(samples) // 2].t_s, 1.0, None, "reset")
    found = windows.read_window(_record(samples), windows.Window("w", 9.0, 13.0, steady=True))
    assert (found.energy, found.quality) == (None, Quality.UNAVAILABLE)
    assert "counter reset" in found.flags
    assert "persistence" in str(found.reason)


def test_failed_reads_are_flagged_and_all_failed_is_no_figure() -> None:
    """Some: a flag. All: None with a reason."""
    samples = _constant()
    some = [CounterRead(s.t_s, None, None, "failed") if k % 9 == 0 else s for k, s in enumerate(samples)]
    window = windows.Window("w", 9.0, 13.0, steady=True)
    assert windows.read_window(_record(some), window).flags == ("failed reads",)
    none = [CounterRead(s.t_s, None, None, "failed") for s in samples]
    found = windows.read_window(_record(none), window)
    assert found.energy is None
    assert "failed" in str(found.reason)


def test_a_short_window_is_flagged_and_its_interval_is_wide() -> None:
    """Half a second at 0.1 s a step."""
    found = windows.read_window(_record(_constant()), windows.Window("w", 10.0, 10.5))
    assert found.flags == ("too short for the counter",)
    assert joules_of(found.energy) == pytest.approx(150.0, rel=0.1)
    assert found.energy is not None
    assert (found.energy.half or 0.0) > 0.005 * 150


def test_a_pulse_tells_the_quiet_power_around_it() -> None:
    """80 W before and after, 400 W for 2 s: 800 J gross."""
    samples, _ = trace([(8.0, 80.0), (10.0, 400.0), (12.0, 80.0)], 13.5, Faults(), np.random.default_rng(5))
    found = windows.read_window(_record(samples), windows.Window("w", 10.0, 12.0, quiet_s=1.0))
    assert joules_of(found.energy) == pytest.approx(800.0, rel=0.01)
    assert found.baseline_w == pytest.approx(80.0, rel=0.01)


def test_windows_of_one_label_add_up_and_one_without_joules_leaves_no_sum() -> None:
    """Never a partial sum under a full name."""
    record = _record(_constant())
    parts = [windows.read_window(record, windows.Window("w", a, a + 2.2, steady=True)) for a in (9.0, 11.3)]
    both = windows.combine(parts, "w")
    assert joules_of(both.energy) == pytest.approx(sum(joules_of(p.energy) or 0 for p in parts))
    broken = windows.combine([parts[0], windows.read_window(record, windows.Window("w", 9.0, 9.01))], "w")
    assert (broken.energy, broken.quality) == (None, Quality.UNAVAILABLE)
    assert broken.reason


# --- shares and totals -----------------------------------------------------------------------------------

V0, P0, D0, D1 = ("v.0", Phase.VISION), ("d.0", Phase.PREFILL), ("d.0", Phase.DECODE), ("d.1", Phase.DECODE)
SPANS = {V0: 2.0, P0: 1.0, D0: 4.0, D1: 2.0}


def test_a_total_is_shared_by_span_and_gaps_take_their_part() -> None:
    """100 J over 9 s of layers and 1 s of gaps: 10 J a second; the interval is shared too; the label says so."""
    found = attribute(Amount(100.0, (90.0, 110.0)), SPANS, {("between steps", Phase.DECODE): 1.0})
    assert joules_of(found.rows[D0].energy) == pytest.approx(40.0)
    assert ci95_of(found.rows[D0].energy) == pytest.approx((36.0, 44.0))
    assert found.rest == pytest.approx({"between steps": 10.0})
    assert {r.quality for r in found.rows.values()} == {Quality.ATTRIBUTED}
    assert "whole run" in str(found.rows[V0].reason)


def test_measured_phases_are_shared_each_among_its_own() -> None:
    """Decode's 30 J go to decode and its gap alone, at 4 J a second; a phase without a figure has no joules."""
    phases = {Phase.VISION: Amount(50.0, (49.0, 51.0)), Phase.DECODE: Amount(30.0, (28.0, 32.0))}
    found = attribute(Amount(100.0, (99.0, 101.0)), SPANS, {("between steps", Phase.DECODE): 1.5}, phases)
    assert joules_of(found.rows[D1].energy) == pytest.approx(8.0)
    assert joules_of(found.rows[V0].energy) == pytest.approx(50.0)
    assert found.rest == pytest.approx({"between steps": 6.0})
    assert found.rows[P0].energy is None
    assert found.rows[P0].quality is Quality.UNAVAILABLE


@settings(max_examples=40)
@given(
    st.dictionaries(
        st.tuples(st.text("ab", min_size=1, max_size=3), st.sampled_from(Phase)), st.floats(0.001, 10), min_size=1
    ),
    st.dictionaries(st.tuples(st.text("xyz", min_size=1, max_size=2), st.sampled_from(Phase)), st.floats(0, 5)),
    st.floats(0.1, 1e6),
)
def test_shares_add_up_to_what_was_shared(
    spans: dict[tuple[str, Phase], float], gaps: dict[tuple[str, Phase], float], joules: float
) -> None:
    """Rows + rest = total, whatever the spans; every row has its label and reason."""
    found = attribute(Amount(joules, (joules, joules)), spans, gaps)
    assert sum(joules_of(r.energy) or 0 for r in found.rows.values()) + sum(found.rest.values()) == pytest.approx(
        joules
    )
    assert all(r.quality is Quality.ATTRIBUTED and r.reason for r in found.rows.values())


def test_a_total_that_was_not_measured_gives_rows_with_its_reason() -> None:
    """No joules at all, never zeros."""
    window = windows.read_window(_record([], reason="no counter here"), windows.Window("w", 0, 1))
    found = attribute(window.energy, SPANS, {}, why_none=window.reason)
    assert {(r.energy, r.quality, r.reason) for r in found.rows.values()} == {
        (None, Quality.UNAVAILABLE, "no counter here")
    }


def test_phases_come_by_difference_and_their_intervals_widen() -> None:
    """Vision alone 10, up to the first token 30, whole answer 90; errors add in quadrature (3-4-5)."""
    found = by_difference(around(10, 3), around(30, 4), around(90, 12))
    assert [found[p].joules for p in IN_TURN] == [10, 20, 60]
    assert found[Phase.PREFILL].half == pytest.approx(5.0)
    assert found[Phase.DECODE].half == pytest.approx(np.hypot(4, 12))


def test_totals_divide_by_samples_and_tokens_and_keep_the_label() -> None:
    """1200 J over 4 samples and 60 tokens; the host's joules stand apart."""
    window = windows.read_window(_record(_constant()), windows.Window("w", 9.0, 13.0, steady=True))
    record = share.totals(window, samples=4, output_tokens=60)
    assert record.per_sample == pytest.approx((record.joules or 0) / 4)
    assert record.per_output_token == pytest.approx((record.joules or 0) / 60)
    assert (record.quality, record.source) == (Quality.MEASURED, "nvml_counter")
    assert record.host_joules is None


def test_totals_of_nothing_are_none_with_the_reason() -> None:
    """None, not 0, and the division is not tried."""
    window = windows.read_window(_record([], reason="no counter here"), windows.Window("w", 0, 1))
    record = share.totals(window, samples=4, output_tokens=0)
    assert (record.joules, record.per_sample, record.per_output_token) == (None, None, None)
    assert (record.quality, record.source, record.reason) == (Quality.UNAVAILABLE, "none", "no counter here")
