"""The walks that no plain run has.

They are answers to their end with their logits checked, samples answered alone, padding on the wrong side.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from layerprof.readings import Questions, Walked
from layerprof.sweep.cells import Guards
from layerprof.sweep.guards import judge

if TYPE_CHECKING:
    from layerprof.data.batching import Batch
    from layerprof.measure.session import Session
    from layerprof.records import Run

ALONE = 16
"""How many samples are answered alone too, to see whether answers depend on the batch."""


@dataclass
class Answers:
    """The answers of a walk, what was asked, and in how many batches logits were not finite."""

    questions: list[Questions] = field(default_factory=list)
    walked: list[Walked] = field(default_factory=list)
    not_finite: int = 0


def quality_walk(session: Session) -> Answers:
    """Answer every batch to the end of its answers."""
    batches = session.asked.batches
    return _walk(session, "quality", batches.walk(), len(batches))


def of_bare_walk(session: Session) -> Answers:
    """Return the answers of the bare walk, where it writes them to their end; logits are those that were looked at."""
    read = session.read
    return Answers(read.questions, read.bare, len(read.passes.get("not_finite_batches", ())))


def guards(session: Session, run: Run, answered: Answers) -> Guards:
    """Return whether the answers can be believed; answers some samples alone, those with the most padding first."""
    asked = session.asked
    not_finite = answered.not_finite
    tokens = [row for walked in answered.walked for row in walked.generated.answer_tokens]
    if asked.settings.batch_size == 1 or len(tokens) < 2:
        return judge(run, None, 0, not_finite, "each sample is answered alone")
    if asked.settings.optimization == "compile":
        return judge(run, None, 0, not_finite, "another batch size would compile the model again")
    padding = [pad for questions in answered.questions for pad in questions.pad_tokens]
    chosen = sorted(sorted(range(len(tokens)), key=lambda row: -padding[row])[:ALONE])
    alone = _walk(session, "alone", asked.batches.of(chosen), len(chosen))
    pairs = zip(alone.walked, chosen, strict=True)
    same = sum(walked.generated.answer_tokens[0] == tokens[row] for walked, row in pairs)
    return judge(run, same / len(chosen), len(chosen), not_finite + alone.not_finite)


def _walk(session: Session, title: str, batches: Iterator[Batch], count: int) -> Answers:
    from layerprof.measure import answering, generation

    asked, found = session.asked, Answers()
    with session.progress.stage(title, count) as advance:
        for batch in batches:
            answering.synchronize(asked.device)
            start = time.perf_counter()
            recorder = generation.Recorder(probe=True)
            answer = generation.generate(session.subject, batch, max_new_tokens=asked.max_new_tokens, recorder=recorder)
            found.walked.append(Walked(batch.rows, time.perf_counter() - start, answer))
            found.questions.append(batch.questions())
            found.not_finite += bool(answer.bad_logits)
            del batch  # before the next one is made
            advance()
    return found


def padded_right(batch: Batch) -> Batch:
    """Return the batch with the padding of every row moved from its left to its right.

    So does a tokenizer that is not told otherwise, and a decoder then writes on from padding in all rows but the
    longest.
    """
    width = batch.tensors["attention_mask"].shape[1]
    moved = {
        name: _moved(value, batch.pad_tokens) if tuple(value.shape[:2]) == (len(batch.pad_tokens), width) else value
        for name, value in batch.tensors.items()
    }
    return dataclasses.replace(batch, tensors=moved)


def _moved(value: Any, padding: tuple[int, ...]) -> Any:
    rows = value.clone()
    for row, pad in enumerate(padding):
        rows[row] = value[row].roll(-pad, 0)
    return rows
