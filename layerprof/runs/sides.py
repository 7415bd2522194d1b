"""Two runs with what lies beside them, and the samples and batches that can be set against each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import TypeVar

from layerprof.quality import wer
from layerprof.quality.bootstrap import Apart, Draws, Rate, ratio_of_medians
from layerprof.records import Phase, Run, Sample
from layerprof.runs import batch_files, store
from layerprof.runs.batch_files import BatchTime
from layerprof.runs.changes import Change
from layerprof.runs.pairing import Bundle, Name, bundles, match

Value = TypeVar("Value")
Both = tuple[Value, Value]
"""Something of the first and of the second run."""

BatchRate = Mapping[int, tuple[float, float]]
"""By batch, what stands above and below the line of a rate: seconds and samples, tokens and seconds."""


@dataclass(frozen=True)
class Side:
    """One run with what lies beside it."""

    run: Run
    samples: tuple[Sample, ...] = ()
    batches: tuple[BatchTime, ...] = ()
    spans: Mapping[tuple[str, Phase], Mapping[int, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path) -> Side:
        """Read a run's folder. Raises RequestError."""
        folder = path if path.is_dir() else path.parent
        return cls(
            store.load(path),
            store.load_samples(folder),
            batch_files.load_batches(folder),
            batch_files.load_spans(folder),
        )

    @cached_property
    def rows(self) -> Mapping[int, int]:
        """Samples by batch."""
        if self.samples:
            return Counter(sample.batch for sample in self.samples)
        return {one.batch: one.rows for one in self.batches}

    @cached_property
    def hooked(self) -> frozenset[int]:
        """Batches whose layers were timed: a layer that has no time in one of these was not called there."""
        return frozenset(batch for spans in self.spans.values() for batch in spans)

    def edits(self, places: Iterable[int] | None = None) -> Rate:
        """Return errors and reference words of the samples at these places, or all, against the nearest reference."""
        known = self._edits if places is None else [self._edits[place] for place in places]
        return [errors for errors, _ in known], [words for _, words in known]

    @cached_property
    def _edits(self) -> list[tuple[float, float]]:
        metric = self.run.totals.task_metric.name if self.run.totals.task_metric else None
        rows = self.samples
        references, answers = [row.references for row in rows], [row.answer for row in rows]
        _, _, scores = wer.score(references, answers, [row.truncated for row in rows], metric=metric)
        best = [score.best or wer.Edits() for score in scores]
        return [(float(edit.errors), float(edit.words)) for edit in best]


class Paired:
    """The samples of two runs and how they lie in batches: of all, and of those whose layers were timed."""

    def __init__(self, a: Side, b: Side) -> None:
        self.a, self.b = a, b
        self.match = match(a.samples, b.samples)
        self.all = Batched(self._batches(None), (a.rows, b.rows))
        self.hooked = Batched(self._batches((a.hooked, b.hooked)), (a.hooked, b.hooked))

    @property
    def shared(self) -> int:
        """How many samples both runs answered."""
        return len(self.match.shared)

    def samples(self) -> list[tuple[Sample, Sample]]:
        """Return the shared samples as the first and the second run answered them."""
        first, second = self.match.places
        return [(self.a.samples[x], self.b.samples[y]) for x, y in zip(first, second, strict=True)]

    def same_answers(self) -> float | None:
        """Return the share of shared samples that got the same tokens; None where none is shared."""
        if not self.shared:
            return None
        return sum(x.answer_tokens == y.answer_tokens for x, y in self.samples()) / self.shared

    def _batches(self, kept: Both[Collection[int]] | None) -> Both[Mapping[Name, int]]:
        """Return the batch of each sample of both runs, of all batches or of those to be kept."""
        found: list[dict[Name, int]] = []
        for number, (side, names) in enumerate(((self.a, self.match.first), (self.b, self.match.second))):
            batches = {name: side.samples[place].batch for name, place in names.items()}
            found.append({name: it for name, it in batches.items() if kept is None or it in kept[number]})
        return found[0], found[1]


class Batched:
    """Rates over batches of two runs: in pairs where they share whole batches, else each run's batches on their own.

    A single pair of many batches tells less than the batches do, so it counts only where they hold nothing else.
    """

    def __init__(self, samples: Both[Mapping[Name, int]], every: Both[Iterable[int]]) -> None:
        bundled = bundles(*samples)
        same = samples[0].keys() == samples[1].keys()
        self.bundles: tuple[Bundle[Name], ...] = bundled if len(bundled) > 1 or same else ()
        self.units: Both[Sequence[Sequence[int]]]
        if self.bundles:
            self.units = [bundle.before for bundle in self.bundles], [bundle.after for bundle in self.bundles]
        else:
            self.units = [[batch] for batch in sorted(every[0])], [[batch] for batch in sorted(every[1])]

    def compared(
        self, quantity: str, unit: str, before: BatchRate, after: BatchRate, *, higher_is_worse: bool = True
    ) -> Change | None:
        """Return how a rate changed, over the same samples where they are paired, with the interval of the ratio.

        None where a batch has no figure: the others alone would be another run.
        """
        sides = list(zip(self.units, (before, after), strict=True))
        if not all(units and all(batch in rates for one in units for batch in one) for units, rates in sides):
            return None
        first, second = (_columns(units, rates) for units, rates in sides)
        x, y = rate(first), rate(second)
        interval = self.draws.ratio_of_rates(second, first) if x and y is not None else None
        n = len(self.bundles)
        apart = None if n or interval is None else (len(first[0]), len(second[0]))
        return Change(quantity, unit, x, y, "ratio", interval, n, higher_is_worse, apart=apart)

    def medians(self, quantity: str, before: Mapping[int, float], after: Mapping[int, float]) -> Change | None:
        """Return how the median over batches changed: over pairs where each is of one batch on both sides.

        Both are of the same samples wherever batches of the same are there. None where a batch has no figure.
        """
        paired = bool(self.bundles) and all(len(unit) == 1 for units in self.units for unit in units)
        batches = [[batch for unit in units for batch in unit] for units in self.units]
        if not all(
            units and all(batch in known for batch in units)
            for units, known in zip(batches, (before, after), strict=True)
        ):
            return None
        x, y = ([known[batch] for batch in units] for units, known in zip(batches, (before, after), strict=True))
        interval = ratio_of_medians(y, x, paired=paired)
        apart = None if paired or interval is None else (len(x), len(y))
        n = len(x) if paired else 0
        return Change(quantity, "s", median(x), median(y), "ratio", interval, n, apart=apart)

    @cached_property
    def draws(self) -> Draws | Apart:
        """The resamples that all rates of these batches share."""
        before, after = (len(side) for side in self.units)
        return Draws(before) if self.bundles else Apart(before, after)


def rate(columns: Rate) -> float | None:
    """Return sum over sum; None over nothing."""
    below = float(sum(columns[1]))
    return float(sum(columns[0])) / below if below else None


def _columns(units: Sequence[Sequence[int]], rates: BatchRate) -> Rate:
    """Return what stands above and below the line, summed over the batches of each unit."""
    over, under = ([sum(rates[batch][part] for batch in unit) for unit in units] for part in (0, 1))
    return over, under
