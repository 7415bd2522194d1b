"""What was answered, scored: the rates of a run, and one record for each sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from layerprof.books.evidence import Asked
from layerprof.quality import wer as rates
from layerprof.readings import Questions, Walked
from layerprof.records import Sample, TaskMetric, Wer


@dataclass(frozen=True, slots=True)
class Scored:
    """The answers of a walk with their rates, and one record per answered sample, in the order of the walk."""

    wer: Wer | None
    task_metric: TaskMetric | None
    samples: tuple[Sample, ...]


def score(asked: Asked, questions: Sequence[Questions], walked: Sequence[Walked]) -> Scored:
    """Return the rates of a walk's answers; a walk that ended early is scored for the batches that it answered."""
    done = list(zip(walked, questions, strict=False))
    if not done:
        return Scored(None, None, ())
    found, metric, scores = rates.score(
        [references for _, batch in done for references in batch.references],
        [answer for one, _ in done for answer in one.generated.answers],
        [cut for one, _ in done for cut in one.generated.truncated],
        metric=asked.dataset.metric,
        choices=[choices for _, batch in done for choices in batch.choices],
    )
    places = [(one.generated, batch, row) for one, batch in done for row in range(batch.rows)]
    samples = (
        Sample(
            id=batch.ids[row],
            key=batch.keys[row] if batch.keys else None,
            batch=batch.index,
            prompt=batch.prompts[row],
            references=batch.references[row],
            answer=generated.answers[row],
            answer_tokens=generated.answer_tokens[row],
            truncated=generated.truncated[row],
            prompt_tokens=batch.prompt_tokens[row],
            image_tokens=batch.image_tokens[row],
            pad_tokens=batch.pad_tokens[row],
            question_cut=batch.question_cut[row],
            fed=batch.fed[row] if batch.fed else (),
            wer=scored.wer,
            metric=scored.metric,
        )
        for (generated, batch, row), scored in zip(places, scores, strict=True)
    )
    return Scored(found, metric, tuple(samples))
