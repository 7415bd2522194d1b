"""Word error rates with their counts, by jiwer, one sample at a time; each dataset's own metric beside them.

A word error rate divides edits by the reference's words, so against one-word references a long answer is worth many
errors and the rate goes beyond 1. The figures that tell such a case apart stand beside it: clipped mean, match error
rate, words on both sides, share of answers cut off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from layerprof.quality import normalise, task_metrics
from layerprof.quality.bootstrap import RESAMPLES, Draws
from layerprof.records import TaskMetric, Wer


@dataclass(frozen=True, slots=True)
class Edits:
    """Word alignment of one answer against one reference; `words` are the reference's, `answer_words` the answer's."""

    hits: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    @property
    def errors(self) -> int:
        """Edits that turn the reference into the answer."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def words(self) -> int:
        """Words of the reference."""
        return self.hits + self.substitutions + self.deletions

    @property
    def answer_words(self) -> int:
        """Words of the answer."""
        return self.hits + self.substitutions + self.insertions


@dataclass(frozen=True, slots=True)
class SampleScore:
    """One sample: its rate against the nearest reference (None: no reference to score by), and its metric.

    `best` is the alignment with the nearest normalised reference, `first` that with the first raw one.
    """

    wer: float | None
    metric: float | None
    best: Edits | None = field(default=None, repr=False)
    first: Edits | None = field(default=None, repr=False)


def score(
    references: Sequence[tuple[str, ...]],
    hypotheses: Sequence[str],
    truncated: Sequence[bool],
    *,
    metric: str | None,
    choices: Sequence[tuple[str, ...]] | None = None,
) -> tuple[Wer, TaskMetric | None, list[SampleScore]]:
    """Return the word error rates, the task metric (None without one), and each sample's score.

    `metric` is `vqa_accuracy`, `exact_match` (of option letters) or None. `choices`, where given, lets a
    multiple-choice answer name its option by text. Raises ValueError for lists of unequal length or an unknown metric.
    """
    if not len(references) == len(hypotheses) == len(truncated):
        lengths = f"{len(references)} references, {len(hypotheses)} answers, {len(truncated)} flags"
        raise ValueError(f"{lengths}: not one each")
    judge = task_metrics.judge(metric)
    options = choices if choices is not None else [()] * len(references)
    scores = [
        _sample(refs, answer, judge, given, vqa=metric == "vqa_accuracy")
        for refs, answer, given in zip(references, hypotheses, options, strict=True)
    ]
    return _rates(scores, truncated), _task(metric, scores), scores


# --- one sample -------------------------------------------------------------------------------------------------


def _sample(
    references: Sequence[str], answer: str, judge: task_metrics.Judge | None, choices: Sequence[str], *, vqa: bool
) -> SampleScore:
    """Score one answer; references that are empty after normalising do not count."""
    plain = [text for text in (normalise.words(reference, vqa=vqa) for reference in references) if text]
    said = any(reference.strip() for reference in references)
    value = judge(references, answer, choices) if judge and said else None
    if not plain:
        return SampleScore(None, value)
    hypothesis = normalise.words(answer, vqa=vqa)
    best = min((align(text, hypothesis) for text in dict.fromkeys(plain)), key=lambda e: (e.errors / e.words, -e.words))
    raw = next(reference for reference in references if reference.strip())
    first = align(" ".join(raw.split()), " ".join(answer.split()))
    return SampleScore(best.errors / best.words, value, best, first)


def align(reference: str, hypothesis: str) -> Edits:
    """Return the word edits between two texts of single-spaced words."""
    import jiwer

    found = jiwer.process_words(reference, hypothesis)
    return Edits(found.hits, found.substitutions, found.deletions, found.insertions)


# --- all samples ------------------------------------------------------------------------------------------------


def _rates(scores: Sequence[SampleScore], truncated: Sequence[bool]) -> Wer:
    """Sum the alignments: corpus rates are sums of errors over sums of words, not means of rates."""
    best = [score.best for score in scores if score.best is not None]
    first = [score.first for score in scores if score.first is not None]
    errors, words = sum(e.errors for e in best), sum(e.words for e in best)
    return Wer(
        corpus_min=errors / words if best else None,
        corpus_first=sum(e.errors for e in first) / sum(e.words for e in first) if first else None,
        mean_clipped=float(np.mean([min(1.0, e.errors / e.words) for e in best])) if best else None,
        mer=errors / sum(e.hits + e.errors for e in best) if best else None,
        substitutions=sum(e.substitutions for e in best),
        deletions=sum(e.deletions for e in best),
        insertions=sum(e.insertions for e in best),
        reference_words=words,
        hypothesis_words=sum(e.answer_words for e in best),
        truncated_share=sum(truncated) / len(truncated) if len(truncated) else 0.0,
        unscored=len(scores) - len(best),
        ci95=Draws(len(best), RESAMPLES).ratio([e.errors for e in best], [e.words for e in best]),
    )


def _task(metric: str | None, scores: Sequence[SampleScore]) -> TaskMetric | None:
    if metric is None:
        return None
    values = [score.metric for score in scores if score.metric is not None]
    if not values:
        return TaskMetric(name=metric, value=None)
    ci95 = Draws(len(values), RESAMPLES).ratio(values, [1.0] * len(values))
    return TaskMetric(name=metric, value=float(np.mean(values)), ci95=ci95)
