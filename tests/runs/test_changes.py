"""One quantity in two runs: how much it changed, and from when on that is a regression."""

from __future__ import annotations

import pytest
from sample_run import sample_run

from layerprof.runs.changes import Change, Comparisons
from layerprof.runs.compare import two
from layerprof.runs.sides import Side


@pytest.mark.parametrize(
    ("change", "value", "percent"),
    [
        (Change("latency", "s", 4.0, 5.0), 1.25, 25.0),
        (Change("latency", "s", 5.0, 4.0), 0.8, -20.0),
        (Change("latency", "s", 0.0, 0.0), 1.0, 0.0),
        (Change("latency", "s", 0.0, 1.0), None, None),
        (Change("latency", "s", None, 1.0), None, None),
        (Change("latency", "s", 1.0, None), None, None),
        (Change("word error rate", "", 0.25, 0.5, "points"), 0.25, 25.0),
        (Change("word error rate", "", 0.5, 0.25, "points"), -0.25, -25.0),
        (Change("word error rate", "", 0.0, 0.25, "points"), 0.25, 25.0),
        (Change("word error rate", "", None, 0.25, "points"), None, None),
    ],
)
def test_a_change_is_a_ratio_or_a_difference(change: Change, value: float | None, percent: float | None) -> None:
    """Ratios in percent of what was before, rates in points; nothing where a side is missing or was nothing."""
    assert change.value == (None if value is None else pytest.approx(value))
    assert change.percent == (None if percent is None else pytest.approx(percent))


@pytest.mark.parametrize(
    ("change", "worse"),
    [
        (Change("latency", "s", 1.0, 1.2), True),
        (Change("latency", "s", 1.0, 1.04), False),
        (Change("latency", "s", 1.2, 1.0), False),
        (Change("latency", "s", 1.0, 1.2, ci95=(0.9, 1.5), n=8), False),
        (Change("latency", "s", 1.0, 1.2, ci95=(1.1, 1.3), n=8), True),
        (Change("latency", "s", None, 1.2), False),
        (Change("latency", "s", 0.0, 0.0), False),
        (Change("accuracy", "", 0.9, 0.8, "points", higher_is_worse=False), True),
        (Change("accuracy", "", 0.9, 0.87, "points", higher_is_worse=False), False),
        (Change("accuracy", "", 0.9, 0.8, "points", ci95=(-0.2, 0.01), n=8, higher_is_worse=False), False),
        (Change("accuracy", "", 0.8, 0.9, "points", higher_is_worse=False), False),
        (Change("word error rate", "", 0.1, 0.2, "points"), True),
        (Change("word error rate", "", 0.1, 0.2, "points", ci95=(-0.01, 0.2), n=8), False),
        (Change("word error rate", "", 0.1, 0.2, "points", ci95=(0.01, 0.2), n=8), True),
        (Change("accuracy", "", 0.9, 0.8, "points", ci95=(-0.2, -0.01), n=8, higher_is_worse=False), True),
        (Change("tokens", "", 1.0, 9.0, higher_is_worse=None), False),
        (Change("latency", "s", 0.0, 1.0), False),
        (Change("latency", "s", 4.0, 4.25, ci95=(1.0, 1.2), n=8), False),
        (Change("throughput", "/s", 1.0, 0.9, ci95=(0.8, 0.95), n=8, higher_is_worse=False), True),
        (Change("throughput", "/s", 1.0, 0.9, ci95=(0.8, 1.0), n=8, higher_is_worse=False), False),
    ],
)
def test_a_regression_is_worse_by_more_than_asked_and_more_than_noise(change: Change, worse: bool) -> None:
    """Five percent, or five points of a rate, in the bad direction, with an interval that leaves out no change."""
    assert change.worse_by_more_than(5) is worse


@pytest.mark.parametrize(("percent", "worse"), [(6.24, True), (6.25, False), (6.26, False)])
def test_a_regression_is_more_than_what_is_allowed(percent: float, worse: bool) -> None:
    """4.25 s after 4 s are 6.25 % more: no regression where so much is allowed."""
    assert Change("latency", "s", 4.0, 4.25).worse_by_more_than(percent) is worse


def test_regressions_are_told_by_cell() -> None:
    """Of two cells with 20 % more joules, each is named; of quantities that did not change, none."""
    base = sample_run()
    energy = base.totals.energy.model_copy(update={"per_sample": 1.2 * (base.totals.energy.per_sample or 0)})
    other = base.model_copy(update={"totals": base.totals.model_copy(update={"energy": energy})})
    cells = tuple(two(Side(base), Side(other), title) for title in ("one", "two"))
    found = Comparisons("a", "b", cells).regressions(5)
    assert [(cell, change.quantity) for cell, change in found] == [
        ("one", "energy per sample"),
        ("two", "energy per sample"),
    ]
    assert Comparisons("a", "b", cells).regressions(21) == []
