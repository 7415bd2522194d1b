"""Joules shared out by time: gaps of a phase with its layers, windows without a figure, the run's record."""

from __future__ import annotations

from typing import Any

import pytest

from layerprof.energy.amount import Amount, around, ci95_of, joules_of
from layerprof.energy.share import attribute, totals
from layerprof.energy.windows import WindowReading, combine
from layerprof.records import Phase, Quality

VISION, DECODE, MORE = ("v.0", Phase.VISION), ("d.0", Phase.DECODE), ("d.1", Phase.DECODE)


def window(energy: Amount | None = around(100.0, 2.0), **more: Any) -> WindowReading:  # noqa: B008  # frozen
    """Return a window of 10 s with 2 J of doubt."""
    fields: dict[str, Any] = {
        "label": "w", "start_s": 0.0, "end_s": 10.0, "energy": energy, "mean_power_w": 10.0, "baseline_w": 3.0,
        "source": "fake_counter", "reason": "why", "flags": ("a flag",),
        "quality": Quality.UNAVAILABLE if energy is None else Quality.MEASURED,
    }  # fmt: skip
    return WindowReading(**fields | more)


def test_an_amount_scales_and_subtracts_with_its_interval() -> None:
    """Three times 10 +- 2 is 30 +- 6, minus three times it turns around; of a difference doubts add in quadrature."""
    found = around(10.0, 2.0)
    assert (found.half, (found * 3).ci95, (found * -3).ci95) == (2.0, (24.0, 36.0), (-36.0, -24.0))
    assert (around(50.0, 3.0) - around(20.0, 4.0)).ci95 == (25.0, 35.0)


def test_gaps_of_a_phase_take_their_part_of_its_joules() -> None:
    """Decode: 30 J over 2 + 1 s of layers and 2 s of gaps, 6 J a second; gaps of one name are one line."""
    phases = {Phase.VISION: around(8.0, 1.0), Phase.DECODE: around(30.0, 2.0)}
    gaps = {("wait", Phase.VISION): 1.0, ("wait", Phase.DECODE): 1.5, ("sample", Phase.DECODE): 0.5}
    found = attribute(around(100.0, 1.0), {VISION: 3.0, DECODE: 2.0, MORE: 1.0}, gaps, phases)
    assert {key: joules_of(row.energy) for key, row in found.rows.items()} == {VISION: 6.0, DECODE: 12.0, MORE: 6.0}
    assert found.rest == {"wait": 2.0 + 9.0, "sample": 3.0}


def test_a_phase_without_a_layer_that_was_timed_shares_nothing() -> None:
    """Rather no figure than a share of nothing; the other phases are as they were."""
    phases = {Phase.VISION: around(8.0, 1.0), Phase.DECODE: around(30.0, 2.0)}
    found = attribute(around(100.0, 1.0), {VISION: 0.0, DECODE: 2.0}, {}, phases)
    assert (found.rows[VISION].energy, found.rows[VISION].quality) == (None, Quality.UNAVAILABLE)
    assert "no span" in str(found.rows[VISION].reason)
    assert joules_of(found.rows[DECODE].energy) == 30.0


def test_the_runs_record_has_the_windows_figures() -> None:
    """100 J over 4 samples and 50 tokens, phases and the host beside it; without samples or tokens no quotient."""
    host = window(around(40.0, 1.0), source="fake_host")
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
    one = window(around(60.0, 3.0))
    other = window(around(40.0, 4.0), baseline_w=5.0, start_s=20.0, end_s=30.0)
    both = combine([one, other], "both")
    assert (both.label, joules_of(both.energy), ci95_of(both.energy), both.duration_s) == (
        "both",
        100.0,
        (95.0, 105.0),
        20.0,
    )
    assert (both.mean_power_w, both.baseline_w) == (5.0, 4.0)
    assert (both.flags, both.reason, both.quality) == (("a flag",), "why", Quality.MEASURED)
    with pytest.raises(KeyError, match="nothing"):
        combine([], "nothing")
