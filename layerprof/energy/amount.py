"""Joules with their interval, as every part of this wing carries them."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

NORMAL_95 = 1.959964
"""Half the width of a 95 % interval over the standard uncertainty."""

TOLERANCE = 0.05
"""Share by which two figures of one thing (books, clocks, times of a call) may differ before it is told.

Sensors have gain errors of that size, and clocks move by some per cent all the time: less would be told always.
"""


@dataclass(frozen=True, slots=True)
class Amount:
    """Joules with their 95 % interval; `ci95` is None for what was measured once, whose scatter nobody knows.

    Watts where a field's name says so (`gap_w`). Where there is no figure at all, None stands in the amount's place and
    the reason beside it.
    """

    joules: float
    ci95: tuple[float, float] | None = None

    @property
    def half(self) -> float | None:
        """Half the width of the interval; None without one."""
        return (self.ci95[1] - self.ci95[0]) / 2 if self.ci95 else None

    def __mul__(self, share: float) -> Amount:
        if self.ci95 is None:
            return Amount(self.joules * share)
        low, high = sorted((self.ci95[0] * share, self.ci95[1] * share))
        return Amount(self.joules * share, (low, high))

    def __sub__(self, other: Amount) -> Amount:
        """Subtract; intervals add in quadrature, and without one of them there is none."""
        if self.half is None or other.half is None:
            return Amount(self.joules - other.joules)
        return around(self.joules - other.joules, sqrt(self.half**2 + other.half**2))


def around(joules: float, half: float) -> Amount:
    """Return `joules` +- `half`."""
    return Amount(joules, (joules - half, joules + half))


def joules_of(amount: Amount | None) -> float | None:
    """Return the joules, for a file that holds them in a field of their own."""
    return amount.joules if amount else None


def ci95_of(amount: Amount | None) -> tuple[float, float] | None:
    """Return the interval, likewise."""
    return amount.ci95 if amount else None


def ends_of(amount: Amount | None) -> list[float] | None:
    """Return the interval as JSON has it."""
    return list(amount.ci95) if amount and amount.ci95 else None
