"""Joules shared out by time: gaps of a phase with its layers, windows without a figure, the run's record."""

from __future__ import annotations

from typing import Any

import pytest

from layerprof.energy.share import Amount, amount, around, attribute, totals
from layerprof.energy.windows import WindowReading, combine
from layerprof.records import Phase, Quality

VISION, DECODE, MORE = ("v.0", Phase.VISION), ("d.0", Phase.DECODE), ("d.1", Phase.DECODE)


def window(joules: float | None = 100.0, **more: Any) -> WindowReading:
    """Return a window of 10 s with 2 J of doubt."""
    fields: dict[str, Any] = {
        "label": "w", "start_s": 0.0, "end_s": 10.0, "joules": joules, "mean_power_w": 10.0, "baseline_w": 3.0,
        "ci95": None if joules is None else (joules - 2, joules + 2), "source": "fake_counter", "reason": "why",
        "quality": Quality.UNAVAILABLE if joules is None else Quality.MEASURED, "flags": ("a flag",),
    }  # fmt: skip
    return WindowReading(**fields | more)


def test_an_amount_scales_and_subtracts_with_its_interval() -> None:
    """Three times 10 +- 2 is 30 +- 6, minus three times it turns around; of a difference doubts add in quadrature."""
    found = around(10.0, 2.0)
    assert (found.half, (found * 3).ci95, (found * -3).ci95) == (2.0, (24.0, 36.0), (-36.0, -24.0))
    assert (around(50.0, 3.0) - around(20.0, 4.0)).ci95 == (25.0, 35.0)


def test_a_window_without_joules_or_without_interval_is_no_amount() -> None:
    """Both, or nothing."""
    assert amount(window()) == Amount(100.0, (98.0, 102.0))
    assert amount(window(None)) is None
    assert amount(window(ci95=None)) is None


def test_gaps_of_a_phase_take_their_part_of_its_joules() -> None:
    """Decode: 30 J over 2 + 1 s of layers and 2 s of gaps, 6 J a second; gaps of one name are one line."""
    phases = {Phase.VISION: around(8.0, 1.0), Phase.DECODE: around(30.0, 2.0)}
    gaps = {("wait", Phase.VISION): 1.0, ("wait", Phase.DECODE): 1.5, ("sample", Phase.DECODE): 0.5}
    found = attribute(around(100.0, 1.0), {VISION: 3.0, DECODE: 2.0, MORE: 1.0}, {"lost": 9.0}, phases, gaps)
    assert {key: row.joules for key, row in found.rows.items()} == {VISION: 6.0, DECODE: 12.0, MORE: 6.0}
    assert found.rest == {"wait": 2.0 + 9.0, "sample": 3.0}
    assert found.total_j == 100.0


def test_a_phase_without_a_layer_that_was_timed_shares_nothing() -> None:
    """Rather no figure than a share of nothing; the other phases are as they were."""
    phases = {Phase.VISION: around(8.0, 1.0), Phase.DECODE: around(30.0, 2.0)}
    found = attribute(around(100.0, 1.0), {VISION: 0.0, DECODE: 2.0}, None, phases)
    assert (found.rows[VISION].joules, found.rows[VISION].quality) == (None, Quality.UNAVAILABLE)
    assert "no span" in str(found.rows[VISION].reason)
    assert found.rows[DECODE].joules == 30.0


def test_gaps_with_and_without_a_phase_share_a_whole_alike() -> None:
    """100 J over 5 s: 3 s of a layer, 1 s of a gap of decode, 1 s of a gap of the run, under one name."""
    found = attribute(window(), {DECODE: 3.0}, {"wait": 1.0}, None, {("wait", Phase.DECODE): 1.0})
    assert (found.rows[DECODE].joules, found.rest) == (60.0, {"wait": 40.0})


def test_the_runs_record_has_the_windows_figures() -> None:
    """100 J over 4 samples and 50 tokens, phases and the host beside it; without samples or tokens no quotient."""
    host = window(40.0, source="fake_host", ci95=(39.0, 41.0))
    found = totals(window(), 4, 50, host, {Phase.VISION: around(8.0, 1.0)})
    assert (found.joules, found.per_sample, found.per_output_token) == (100.0, 25.0, 2.0)
    assert (found.ci95, found.mean_power_w, found.baseline_w) == ((98.0, 102.0), 10.0, 3.0)
    assert (found.quality, found.source, found.reason) == (Quality.MEASURED, "fake_counter", "why")
    assert (found.by_phase, found.by_phase_ci95) == ({"vision": 8.0}, {"vision": (7.0, 9.0)})
    assert (found.host_joules, found.host_ci95, found.host_source) == (40.0, (39.0, 41.0), "fake_host")
    assert found.flags == ("a flag",)
    bare = totals(window(), 0, 0, window(None))
    assert (bare.joules, bare.per_sample, bare.per_output_token) == (100.0, None, None)
    assert (bare.by_phase, bare.by_phase_ci95) == (None, None)
    assert (bare.host_joules, bare.host_ci95, bare.host_source) == (None, None, None)
    assert totals(window(None), 4, 50).per_output_token is None


def test_windows_add_up_with_their_doubt() -> None:
    """60 +- 3 J and 40 +- 4 J of 10 s each: 100 +- 5 J at 5 W; a mean quiet power; flags and reasons once."""
    one = window(60.0, ci95=(57.0, 63.0))
    other = window(40.0, ci95=(36.0, 44.0), baseline_w=5.0, start_s=20.0, end_s=30.0)
    both = combine([one, other], "both")
    assert (both.label, both.joules, both.ci95, both.duration_s) == ("both", 100.0, (95.0, 105.0), 20.0)
    assert (both.mean_power_w, both.baseline_w, both.active_j) == (5.0, 4.0, 20.0)
    assert (both.flags, both.reason, both.quality) == (("a flag",), "why", Quality.MEASURED)
    with pytest.raises(KeyError, match="nothing"):
        combine([], "nothing")
