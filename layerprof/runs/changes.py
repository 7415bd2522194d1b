"""What a comparison says: quantities of two runs with the interval of their difference, layers, cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from layerprof.records import Phase


@dataclass(frozen=True, slots=True)
class Change:
    """One quantity in two runs, in its SI unit.

    `how` is `ratio` (after / before, and its interval) or `points` (after - before, of shares and rates).
    `higher_is_worse` is None for what is neither good nor bad. `n` is how many pairs the figures and their interval are
    of; of what is not paired, `apart` is how many units of each side the interval is of. `at_least` says of each side
    whether its figure is a lower bound: between those there is no change to be told.
    """

    quantity: str
    unit: str
    before: float | None
    after: float | None
    how: Literal["ratio", "points"] = "ratio"
    ci95: tuple[float, float] | None = None
    n: int = 0
    higher_is_worse: bool | None = True
    at_least: tuple[bool, bool] = (False, False)
    apart: tuple[int, int] | None = None

    @property
    def value(self) -> float | None:
        """The ratio or difference; None where one side is no figure, or a ratio has nothing below it."""
        if self.before is None or self.after is None or any(self.at_least):
            return None
        if self.how == "points":
            return self.after - self.before
        return self.after / self.before if self.before else (1.0 if self.after == 0 else None)

    @property
    def percent(self) -> float | None:
        """The change in percent, or in percentage points."""
        return None if self.value is None else 100 * (self.value - (1 if self.how == "ratio" else 0))

    def worse_by_more_than(self, percent: float) -> bool:
        """Tell a regression: worse by more than so many percent (or points), and not just by the noise of the pairs."""
        if self.percent is None or self.higher_is_worse is None:
            return False
        sign = 1 if self.higher_is_worse else -1
        if sign * self.percent <= percent:
            return False
        if self.ci95 is None:
            return True
        nothing = 1.0 if self.how == "ratio" else 0.0
        return self.ci95[0] > nothing if self.higher_is_worse else self.ci95[1] < nothing


@dataclass(frozen=True, slots=True)
class LayerChange:
    """One layer in one phase: its time, work, energy and peak memory of a call in two runs."""

    name: str
    phase: Phase
    span: Change
    flops: Change
    energy: Change
    memory: Change


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs side by side. `same_answers` is the share of shared samples with the same tokens, None without."""

    title: str
    totals: tuple[Change, ...]
    layers: tuple[LayerChange, ...]
    settings: dict[str, tuple[Any, Any]]
    environment: dict[str, tuple[Any, Any]]
    shared_samples: int
    same_answers: float | None
    notes: tuple[str, ...] = ()

    def regressions(self, percent: float) -> list[Change]:
        """Return the end-to-end quantities that are worse by more than so many percent."""
        return [change for change in self.totals if change.worse_by_more_than(percent)]


@dataclass(frozen=True, slots=True)
class Comparisons:
    """What `layerprof compare` found.

    There is one comparison for two runs, one a cell for two sweeps, and cells without a partner.
    """

    before: str
    after: str
    cells: tuple[Comparison, ...]
    alone: tuple[str, ...] = ()

    def regressions(self, percent: float) -> list[tuple[str, Change]]:
        """Return (cell, quantity) for all that is worse by more than so many percent."""
        return [(cell.title, change) for cell in self.cells for change in cell.regressions(percent)]
