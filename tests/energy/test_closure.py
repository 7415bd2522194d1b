"""The books of energy: layers, gaps and a residual, whose interval holds the doubt of all of them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerprof.energy.amount import Amount, around
from layerprof.energy.closure import RowPart, close
from layerprof.records import Phase

PARTS = [
    RowPart(("v", Phase.VISION), 2.0, 0.01, 10, 0.02, "vision"),
    RowPart(("d", Phase.DECODE), 1.0, 0.01, 60, 0.01, "decode"),
]


def test_the_books_close_within_five_percent_or_their_own_uncertainty() -> None:
    """80 J of layers, 16 J of gaps (8 W for 2 s) against 100 J: 4 J are left, which passes."""
    found = close(around(100, 1), PARTS, around(8, 0.3), 2.0)
    assert found.residual.joules == pytest.approx(4.0)
    assert found.passed
    assert not close(around(120, 1), PARTS, around(8, 0.3), 2.0).passed
    unsure = close(around(120, 30), PARTS, around(8, 0.3), 2.0)
    assert unsure.passed
    assert unsure.tolerance == pytest.approx((unsure.residual.half or 0.0) / 120)


def test_the_residuals_interval_adds_shared_drift_and_own_scatter() -> None:
    """Rows of a phase drift together: 20 J at 1 % and 2 %, 60 J at 1 % and 1 %, by hand."""
    found = close(Amount(100, (100, 100)), PARTS)
    variance = 0.2**2 + 0.6**2 + 0.4**2 + 0.6**2
    assert found.residual.half == pytest.approx(1.959964 * math.sqrt(variance))
    together = [RowPart(p.key, p.joules, 0.0, p.calls, 0.01, "one") for p in PARTS]
    assert close(Amount(100, (100, 100)), together).residual.half == pytest.approx(1.959964 * 0.8)


def test_the_account_by_hand() -> None:
    """100 J: 20 and 60 J of rows, 8 W for 2 s; the 4 J that are left make 100/96 of each row."""
    found = close(around(100, 1), PARTS, around(8, 0.3), 2.0, [("x", Phase.DECODE)])
    assert (found.parts_j, found.gap_j) == (80.0, 16.0)
    assert found.residual.joules == pytest.approx(4.0)
    assert found.total == around(100, 1)
    scaled = {key: joules * 100 / 96 for key, joules in ((PARTS[0].key, 20.0), (PARTS[1].key, 60.0))}
    assert found.reconciled_j == pytest.approx(scaled)
    assert found.missing == (("x", Phase.DECODE),)


def test_a_fraction_of_a_joule_is_scaled_like_any_other() -> None:
    """0.4 J of rows against 0.5 J."""
    found = close(around(0.5, 0.0), [RowPart(("v", Phase.VISION), 0.1, 0.0, 4)])
    assert found.reconciled_j == {("v", Phase.VISION): pytest.approx(0.5)}


def test_each_doubt_is_in_the_residuals_interval() -> None:
    """Of the total 5 J, of the gap's power 6 W for 2 s: 13 J in quadrature; the total's alone its own."""
    parts = [RowPart(("v", Phase.VISION), 2.0, 0.0, 10)]
    assert close(around(100, 5), parts, around(3, 6), 2.0).residual.half == pytest.approx(13.0)
    assert close(around(100, 5), parts).residual.half == pytest.approx(5.0)


def test_what_was_measured_once_widens_no_interval() -> None:
    """Nobody knows its doubt, so the residual has that of the rest alone: 1 J of the total."""
    found = close(around(100, 1), [RowPart(("v", Phase.VISION), 8.0, 0.0, 10)], Amount(8), 2.0)
    assert found.residual.joules == pytest.approx(4.0)
    assert found.residual.half == pytest.approx(1.0)


def test_rows_of_different_groups_drift_apart() -> None:
    """Two rows of one phase with 1 % of common doubt add up, 0.2 + 0.6 J; in two phases they add in quadrature."""
    for groups, half in ((("one", "one"), 0.8), (("one", "other"), math.hypot(0.2, 0.6))):
        parts = [RowPart(p.key, p.joules, 0.0, p.calls, 0.01, group) for p, group in zip(PARTS, groups, strict=True)]
        assert close(around(100, 0), parts).residual.half == pytest.approx(1.959964 * half)


@pytest.mark.parametrize(
    ("left", "half", "passed", "tolerance"),
    [
        (5.0, 1.0, True, 0.05),
        (-5.0, 1.0, True, 0.05),
        (5.1, 1.0, False, 0.05),
        (-5.1, 1.0, False, 0.05),
        (7.9, 8.0, True, 0.08),
        (-7.9, 8.0, True, 0.08),
        (8.1, 8.0, False, 0.08),
    ],
)
def test_the_rule(left: float, half: float, passed: bool, tolerance: float) -> None:
    """Five percent of the total, or half the width of the residual's interval where that is more, in either sign."""
    found = close(around(100, half), [RowPart(("v", Phase.VISION), 100.0 - left, 0.0, 1)])
    assert found.tolerance == pytest.approx(tolerance)
    assert found.passed is passed


def test_books_without_a_figure_for_any_row_are_not_scaled() -> None:
    """Nothing named cannot be scaled to the whole."""
    found = close(around(100, 1), [RowPart(("v", Phase.VISION), 0.0, 0.0, 3)])
    assert all(math.isnan(joules) for joules in found.reconciled_j.values())
    assert not found.passed


@settings(max_examples=60)
@given(
    st.floats(1, 1e5),
    st.lists(st.tuples(st.floats(0, 50), st.integers(0, 500)), max_size=20),
    st.floats(0, 300),
    st.floats(0, 10),
)
def test_the_books_always_add_up(total: float, rows: list[tuple[float, int]], gap_w: float, gap_s: float) -> None:
    """Rows by their calls and gaps have what they were given, whatever the figures, and the residual the rest."""
    parts = [RowPart((f"l{k}", Phase.DECODE), j, 0.01, n) for k, (j, n) in enumerate(rows)]
    found = close(around(total, 1), parts, around(gap_w, 1), gap_s)
    given_j = [math.fsum(n * j for j, n in rows), gap_w * gap_s]
    assert [found.parts_j, found.gap_j] == pytest.approx(given_j)
    assert found.residual.joules == pytest.approx(total - math.fsum(given_j), abs=1e-9 * max(total, *given_j))
    assert found.residual.ci95 is not None
    assert found.residual.ci95[0] <= found.residual.joules <= found.residual.ci95[1]


def test_books_without_a_total_are_refused() -> None:
    """Nothing can be a share of nothing."""
    with pytest.raises(ValueError, match="positive"):
        close(around(0, 0), PARTS)
