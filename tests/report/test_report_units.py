"""Figures are shown so that rounding never lies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerprof.report import units


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (1, "1.00"),
        (9.996, "10.0"),
        (99.96, "100"),
        (999.6, "1000"),
        (0.012345, "0.0123"),
        (-3.14159, "-3.14"),
        (1234567, "1230000"),
        (1e-7, "1.00e-07"),
        (5e12, "5.00e+12"),
        (float("inf"), "inf"),
    ],
)
def test_numbers_have_three_significant_digits(value: float, shown: str) -> None:
    """Also where rounding adds a digit; only zero is `0`."""
    assert units.number(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (0, "0 %"),
        (1, "100 %"),
        (0.0004, "<0.1 %"),
        (0.9996, ">99.9 %"),
        (0.25, "25.0 %"),
        (-0.02, "-2.0 %"),
    ],
)
def test_shares_are_0_and_100_only_when_they_are(value: float | None, shown: str) -> None:
    """A residual of a thousandth is not shown as none, and nearly all is not all."""
    assert units.percent(value) == shown


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (units.seconds(0.000012), "12.0 µs"),
        (units.seconds(0.9999), "1.00 s"),
        (units.seconds(119.0), "119 s"),
        (units.seconds(125.4), "2 min 05 s"),
        (units.flops(75_001_000_000), "75.0 GFLOP"),
        (units.flops(0), "0 FLOP"),
        (units.joules(0.0045), "4.50 mJ"),
        (units.size(154_000_000), "154 MB"),
        (units.size(12), "12 B"),
        (units.size(12.5), "12.5 B"),
        (units.watts(None), "–"),
        (units.count(1234567), "1 234 567"),
        (units.interval((0.0125, 0.014), "s"), "[12.5, 14.0] ms"),
        (units.interval(None, "s"), ""),
    ],
)
def test_each_quantity_has_its_unit(shown: str, expected: str) -> None:
    """Prefixes fit the figure; bytes and FLOPs have none below one."""
    assert shown == expected


def test_a_column_has_one_scale() -> None:
    """The largest value picks the prefix, so that the numbers of a column compare."""
    scale = units.scale([0.000002, 0.5, None], "s")
    assert (scale.unit, scale.show(0.000002), scale.show(0.5), scale.show(None)) == ("ms", "0.00200", "500", "–")
    assert units.scale([], "J").unit == "J"


@given(st.floats(1e-12, 1e12))
def test_shown_numbers_are_within_half_a_percent(value: float) -> None:
    """Three significant digits never mislead by more than half a unit of the third."""
    assert float(units.number(value)) == pytest.approx(value, rel=0.0051)


@given(st.floats(0.0001, 1), st.integers(1, 60), st.booleans())
def test_bars_fill_their_width_and_never_vanish(share: float, width: int, ascii_only: bool) -> None:
    """A share above nothing shows at least a sliver; a full one fills; the cell count is the width."""
    bar = units.bar(share, width, ascii_only)
    assert len(bar) == width
    assert bar.strip()
    assert not ascii_only or bar.isascii()


def test_nothing_has_no_bar() -> None:
    """No share and a share of zero draw blanks."""
    assert units.bar(None, 4) == units.bar(0.0, 4) == "    "


@given(st.text(alphabet="a–µ×Σ日\x1b\u200b\U0001f600 "))
def test_ascii_text_is_ascii(text: str) -> None:
    """Whatever comes in, a terminal without Unicode can show it."""
    assert units.ascii_text(text).isascii()


def test_our_signs_are_spelt_and_other_people_s_names_kept() -> None:
    """A log in UTF-8 holds a path as it must be typed; only what we print ourselves is spelt out."""
    assert units.ascii_text("Δ WER ≤ 5 · 日本/Läufe", "utf-8") == "change in WER <= 5 * 日本/Läufe"
    assert units.ascii_text("Läufe") == "L\\xe4ufe"


def test_what_a_terminal_obeys_becomes_a_blank() -> None:
    """Escape sequences, bells, turned writing and halves of characters do nothing; all else is kept."""
    assert units.printable("a\x1b[2Jb\x07c\u202ed\ud800e ü日😀") == "a [2Jb c d e ü日😀"
    assert units.printable("one\ntwo\tthree\r", keep="\n\t") == "one\ntwo\tthree "
