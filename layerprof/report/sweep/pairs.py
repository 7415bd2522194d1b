"""What a cell of a sweep differs by from another one on the same samples, with the interval of the difference."""

from __future__ import annotations

from dataclasses import dataclass

from layerprof.errors import RequestError
from layerprof.runs import quantities
from layerprof.runs.changes import Change
from layerprof.runs.gained import Gained, gained
from layerprof.runs.sides import Paired, Side
from layerprof.sweep.folder import SweepFolder


@dataclass(frozen=True, slots=True)
class Pair:
    """Seconds per sample (a ratio) and word error rate (a difference in points) against another cell."""

    time: Change
    wer: Change | None


class Pairs:
    """Reads cells with what lies beside their runs, each once, and sets two against each other."""

    def __init__(self, folder: SweepFolder) -> None:
        self.folder = folder
        self._sides: dict[str, Side | None] = {}
        self._found: dict[tuple[str, str], Pair | None] = {}
        self._gained: dict[tuple[str, str], tuple[Gained, ...]] = {}

    def of(self, before: str, after: str) -> Pair | None:
        """Return how the cell `after` differs from `before`; None where they have no samples in common."""
        if (before, after) not in self._found:
            self._found[before, after] = self._compared(before, after)
        return self._found[before, after]

    def gained(self, before: str, after: str) -> tuple[Gained, ...]:
        """Return what the layers of the cell `after` gained over those of `before`; none without samples in common."""
        if (before, after) not in self._gained:
            a, b = self._side(before), self._side(after)
            paired = Paired(a, b) if a and b else None
            known = gained(a, b, paired) if a and b and paired and paired.shared else ()
            self._gained[before, after] = known
        return self._gained[before, after]

    def _compared(self, before: str, after: str) -> Pair | None:
        a, b = self._side(before), self._side(after)
        if a is None or b is None:
            return None
        paired = Paired(a, b)
        if not paired.shared:
            return None
        rates = a.run.totals.wer is not None and b.run.totals.wer is not None
        return Pair(quantities.latency(a, b, paired), quantities.word_error_rate(a, b, paired) if rates else None)

    def _side(self, key: str) -> Side | None:
        if key not in self._sides:
            try:
                self._sides[key] = Side.of(self.folder.cell_folder(key))
            except RequestError:  # a file beside the run is broken: its figures stand, and nothing is paired
                self._sides[key] = None
        return self._sides[key]
