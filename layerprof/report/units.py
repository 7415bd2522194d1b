"""How quantities are shown: SI in, three significant digits and a fitting prefix out; `–` for what was not measured."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

MISSING = "–"

_PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_SMALL = ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))


@dataclass(frozen=True, slots=True)
class Scale:
    """One prefix for a whole column, so that its numbers compare at a glance."""

    factor: float
    unit: str

    def show(self, value: float | None) -> str:
        """Return the value in this scale without its unit."""
        return MISSING if value is None else number(value / self.factor)


def scale(values: Iterable[float | None], unit: str) -> Scale:
    """Return the prefix that fits the largest magnitude among the values."""
    largest = max((abs(v) for v in values if v is not None), default=0.0)
    factor, prefix = _prefix(largest, unit)
    return Scale(factor, prefix + unit)


def flops(value: float | None) -> str:
    """Return executed work, e.g. `12.3 GFLOP`."""
    return _scaled(value, "FLOP")


def bound(shown: str, at_least: bool) -> str:
    """Return a figure as shown, marked where it is a lower bound, e.g. `≥ 12.3 GFLOP`; what is missing has no mark."""
    return f"≥ {shown}" if at_least and shown != MISSING else shown


def seconds(value: float | None) -> str:
    """Return a time, e.g. `1.23 ms`; from two minutes on, minutes and seconds."""
    if value is not None and value >= 120:
        return f"{int(value // 60)} min {int(value % 60):02d} s"
    return _scaled(value, "s")


def joules(value: float | None) -> str:
    """Return an energy, e.g. `4.56 mJ`."""
    return _scaled(value, "J")


def size(value: float | None) -> str:
    """Return bytes in powers of ten, e.g. `154 MB`; a few whole ones as they are, e.g. `64 B`."""
    few = value is not None and float(value).is_integer() and 0 < abs(value) < 1000
    return f"{value:.0f} B" if few else _scaled(value, "B")


def watts(value: float | None) -> str:
    """Return a power, e.g. `212 W`."""
    return _scaled(value, "W")


def percent(share: float | None) -> str:
    """Return a share of one as a percentage; `0 %` and `100 %` only when it is exactly that."""
    if share is None:
        return MISSING
    if share in (0, 1):
        return f"{share * 100:.0f} %"
    if 0 < share < 0.001:
        return "<0.1 %"
    if 0.999 < share < 1:
        return ">99.9 %"
    return f"{share * 100:.0f} %" if abs(share) >= 9.995 else f"{share * 100:.1f} %"


def bare_percent(share: float | None, missing: str = MISSING) -> str:
    """Return a percentage without its sign, for columns whose head has it."""
    return missing if share is None else percent(share).removesuffix(" %")


def count(value: float | None) -> str:
    """Return a count with thousands set apart."""
    return MISSING if value is None else f"{value:,.0f}".replace(",", " ")


def positions(value: float | None) -> str:
    """Return how many positions, e.g. `1 024`; of a mean, three digits."""
    if value is None:
        return MISSING
    return count(value) if float(value).is_integer() or value >= 1000 else number(value)


def many(number: int, what: str, plural: str = "s") -> str:
    """Return a count of things, e.g. `1 event` or `12 events`; `plural` is what several of them end in."""
    return f"{count(number)} {what}{'' if number == 1 else plural}"


def number(value: float) -> str:
    """Return three significant digits without an exponent where up to nine places do; `0` only for zero itself."""
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return str(value)
    magnitude = math.floor(math.log10(abs(value)))
    if magnitude < -4 or magnitude > 8:
        return f"{value:.2e}"
    rounded = round(value, 2 - magnitude)
    places = max(0, 2 - math.floor(math.log10(abs(rounded))))
    return f"{rounded:.{places}f}"


def interval(low_high: tuple[float, float] | None, unit: str) -> str:
    """Return a 95 % interval in one scale, e.g. `[1.20, 1.31] ms`; empty when there is none."""
    if low_high is None:
        return ""
    fit = scale(low_high, unit)
    return f"[{fit.show(low_high[0])}, {fit.show(low_high[1])}] {fit.unit}"


def bracket(low_high: tuple[float, float] | None, fit: Scale) -> str:
    """Return an interval in a scale without its unit, e.g. `[1.20, 1.31]`; empty when there is none."""
    return f"[{fit.show(low_high[0])}, {fit.show(low_high[1])}]" if low_high else ""


def bar(share: float | None, width: int, ascii_only: bool = False) -> str:
    """Return a bar of `width` cells for a share of one, in eighths of a cell; `#` where only ASCII shows."""
    if share is None or share <= 0:
        return " " * width
    cells = min(share, 1.0) * width
    if ascii_only:
        return ("#" * max(1, round(cells))).ljust(width)
    full, part = divmod(max(1, round(cells * 8)), 8)
    eighths: str = ("", *"▏▎▍▌▋▊▉")[part]
    return ("█" * full + eighths).ljust(width)


_SPELT = {
    "–": "-", "µ": "u", "×": "x", "±": "+/-", "Σ": "sum", "Δ": "change in", "→": "->", "·": "*", "≤": "<=", "≥": ">=",
    "…": "...", "°": "deg ", "≈": "~",
}  # fmt: skip


def printable(text: str, keep: str = "") -> str:
    """Return text without the signs that a terminal obeys (escape sequences, bells, turned writing): blanks instead."""
    return "".join(sign if sign.isprintable() or sign in keep else " " for sign in text)


def ascii_text(text: str, encoding: str = "ascii") -> str:
    """Return text that any terminal or log can hold: the signs we use spelt out, the rest escaped.

    Where `encoding` can hold more, names and paths of others stay as they are.
    """
    spelt = "".join(_SPELT.get(sign, sign) for sign in text)
    return spelt.encode(encoding, "backslashreplace").decode(encoding)


def _prefix(magnitude: float, unit: str) -> tuple[float, str]:
    for factor, prefix in _PREFIXES:
        if _at_least(magnitude, factor):
            return factor, prefix
    if unit in ("FLOP", "B") or magnitude == 0:
        return 1.0, ""
    for factor, prefix in _SMALL:
        if _at_least(magnitude, factor):
            return factor, prefix
    return _SMALL[-1]


def _at_least(magnitude: float, factor: float) -> bool:
    return magnitude >= factor * 0.9995  # 999.6 shows as 1 000 in the smaller unit


def _scaled(value: float | None, unit: str) -> str:
    if value is None:
        return MISSING
    factor, prefix = _prefix(abs(value), unit)
    return f"{number(value / factor)} {prefix}{unit}"
