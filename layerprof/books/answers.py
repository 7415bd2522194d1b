"""What was answered, scored: the rates of a run, and one record for each sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from layerprof.books.evidence import Asked
from layerprof.quality import wer as rates
from layerprof.readings import Walked
from layerprof.records import Sample, TaskMetric, Wer


@dataclass(frozen=True, slots=True)
class Scored:
    """The answers of a walk with their rates, and one record per answered sample, in the order of the walk."""

    wer: Wer | None
    task_metric: TaskMetric | None
    samples: tuple[Sample, ...]


def score(asked: Asked, walked: Sequence[Walked]) -> Scored:
    """Return the rates of a walk's answers; a walk that ended early is scored for the batches that it answered."""
    done = list(zip(walked, asked.batches, strict=False))
    examples = [example for _, batch in done for example in batch.examples]
    if not examples:
        return Scored(None, None, ())
    found, metric, scores = rates.score(
        [example.references for example in examples],
        [answer for one, _ in done for answer in one.generated.answers],
        [cut for one, _ in done for cut in one.generated.truncated],
        metric=asked.dataset.metric,
        choices=[example.choices for example in examples],
    )
    places = [(one.generated, batch, row) for one, batch in done for row in range(len(batch.examples))]
    samples = (
        Sample(
            id=batch.examples[row].id,
            batch=batch.index,
            prompt=batch.prompts[row],
            references=batch.examples[row].references,
            answer=generated.answers[row],
            answer_tokens=generated.answer_tokens[row],
            truncated=generated.truncated[row],
            prompt_tokens=batch.prompt_tokens[row],
            image_tokens=batch.image_tokens[row],
            pad_tokens=batch.pad_tokens[row],
            question_cut=batch.question_cut[row],
            wer=scored.wer,
            metric=scored.metric,
        )
        for (generated, batch, row), scored in zip(places, scores, strict=True)
    )
    return Scored(found, metric, tuple(samples))
