"""Two runs with what lies beside them, and the samples and batches that can be set against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from layerprof.quality import wer
from layerprof.quality.bootstrap import Draws
from layerprof.records import Phase, Run, Sample
from layerprof.runs import batch_files, store
from layerprof.runs.batch_files import BatchTime
from layerprof.runs.pairing import Bundle, bundles


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

    def edits(self, ids: Sequence[str]) -> tuple[list[float], list[float]]:
        """Return errors and reference words of each of these samples, against the reference that is nearest."""
        known = self._edits
        return [known[name][0] for name in ids], [known[name][1] for name in ids]

    @cached_property
    def _edits(self) -> dict[str, tuple[float, float]]:
        metric = self.run.totals.task_metric.name if self.run.totals.task_metric else None
        rows = self.samples
        references, answers = [row.references for row in rows], [row.answer for row in rows]
        _, _, scores = wer.score(references, answers, [row.truncated for row in rows], metric=metric)
        best = [score.best or wer.Edits() for score in scores]
        return {row.id: (float(edit.errors), float(edit.words)) for row, edit in zip(rows, best, strict=True)}


class Paired:
    """The bundles of two runs, and sums over them."""

    def __init__(self, a: Side, b: Side) -> None:
        self.a, self.b = a, b
        self.first = {sample.id: sample for sample in a.samples}
        self.second = {sample.id: sample for sample in b.samples}
        self.shared = [name for name in self.first if name in self.second]
        batches = ({s.id: s.batch for s in a.samples}, {s.id: s.batch for s in b.samples})
        self.bundles: tuple[Bundle, ...] = bundles(*batches)
        self.draws = Draws(len(self.bundles)) if len(self.bundles) > 1 else None

    def same_answers(self) -> float | None:
        """Return the share of shared samples that got the same tokens; None where none is shared."""
        if not self.shared:
            return None
        same = [self.first[name].answer_tokens == self.second[name].answer_tokens for name in self.shared]
        return sum(same) / len(same)

    def times(
        self, before: Mapping[int, float], after: Mapping[int, float]
    ) -> tuple[float, float, tuple[float, float] | None, int] | None:
        """Return seconds per sample on both sides and the interval of their ratio; None where batches are missing."""
        known = [
            bundle
            for bundle in self.bundles
            if set(bundle.before) <= before.keys() and set(bundle.after) <= after.keys()
        ]
        if not known or len(known) != len(self.bundles):
            return None
        a = [sum(before[batch] for batch in bundle.before) for bundle in known]
        b = [sum(after[batch] for batch in bundle.after) for bundle in known]
        samples = sum(len(bundle.ids) for bundle in known)
        interval = self.draws.ratio(b, a) if self.draws and sum(a) > 0 else None
        return sum(a) / samples, sum(b) / samples, interval, len(known)
