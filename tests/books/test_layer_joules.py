"""Joules of layers that call each other: each moment shared out once, and every row with all of its calls."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from layerprof.books import ledger
from layerprof.books.layer_joules import layer_energy
from layerprof.energy.amount import Amount
from layerprof.energy.measured import EnergyData, Measured
from layerprof.energy.replayed import ReplayReading, ReplayRow
from layerprof.energy.windows import WindowReading
from layerprof.readings import Layer, Span, SpanReading
from layerprof.records import Phase, Quality

PHASE = Phase.PREFILL
HOLDER, PART, ASKED = "steps", "part", "steps.act"
LAYERS = (
    Layer(HOLDER, "language", "other", 0),
    Layer(PART, "language", "norm", 0),
    Layer(ASKED, "language", "module", 0),
)
SPANS = SpanReading(
    (
        Span(HOLDER, PHASE, 0, 0, 0.0, 4.0, 1.0),
        Span(PART, PHASE, 0, 0, 0.0, 3.0, 3.0, (HOLDER,)),
        Span(ASKED, PHASE, 0, 0, 3.0, 3.5, 0.0, (HOLDER,)),
        Span(PART, PHASE, 0, 0, 5.0, 8.0, 3.0),
    ),
    (10.0,),
    {"within prefill": 1.0, "after the last layer": 2.0},
    "fake",
)
"""A holder of 4 s, of which 3 in a part that runs once more on its own; an activation of 0.5 s; 3 s in no layer."""


def window(joules: float) -> Measured:
    """Return a window with so many joules."""
    reading = WindowReading(
        "w", 0.0, 10.0, Amount(joules, (joules, joules)), None, None, Quality.MEASURED, "fake", None
    )
    return Measured(reading, None)


def read(replayed: ReplayReading | None = None) -> tuple[Any, Any]:
    """Return what was asked and read: 20 J in 10 s, of which nobody knows which phase took how many."""
    data = EnergyData(window(20.0), dict.fromkeys(Phase, window(20.0)), replayed)
    return SimpleNamespace(layers=LAYERS), SimpleNamespace(energy=data, spans=SPANS)


def test_shared_joules_are_those_of_each_moment_once() -> None:
    """2 W throughout: 8 J in the holder's row, 12 in the part's, 1 in the activation's; 8 and 6 in the books."""
    energy = layer_energy(*read())
    found = {name: amount.joules for (name, _), amount in energy.amounts.items()}
    assert found == pytest.approx({HOLDER: 8.0, PART: 12.0, ASKED: 1.0})
    assert all(amount.ci95 for amount in energy.amounts.values())
    column = ledger.close(LAYERS, energy=energy, total_energy_j=20.0).energy_j
    assert column.rest["other"] == pytest.approx(8.0)
    assert column.rest["norm"] == pytest.approx(6.0)
    assert sum(energy.rest_j.values()) == pytest.approx(6.0)
    assert column.residual == pytest.approx(0.0, abs=1e-9)


def replayed(joules: float) -> ReplayRow:
    """Return a replayed row of so many joules a call."""
    return ReplayRow(Amount(joules), None, None, 1.0, 1, Quality.REPLAYED, None)


def test_replayed_joules_count_only_calls_that_no_other_s_hold() -> None:
    """7 J a call of the holder, 5 a call of the part: 10 in the part's row, 5 of them in the books."""
    rows = {(HOLDER, PHASE): replayed(7.0), (PART, PHASE): replayed(5.0)}
    energy = layer_energy(*read(ReplayReading(rows, gap_w=Amount(2.0))))
    assert {name: amount.joules for (name, _), amount in energy.amounts.items()} == {HOLDER: 7.0, PART: 10.0}
    column = ledger.close(LAYERS, energy=energy, total_energy_j=20.0).energy_j
    assert (column.rest["other"], column.rest["norm"]) == (7.0, 5.0)
    assert column.residual == pytest.approx(20 - 7 - 5 - 2 * 3)
    assert energy.labels[ASKED, PHASE][0] is Quality.UNAVAILABLE
