"""The walks that no plain run has.

They are answers to their end with their logits checked, samples answered alone, padding on the wrong side.
"""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any

from layerprof.readings import Walked
from layerprof.sweep.cells import Guards
from layerprof.sweep.guards import judge

if TYPE_CHECKING:
    from layerprof.data.batching import Batch
    from layerprof.measure.session import Session
    from layerprof.records import Run

ALONE = 16
"""How many samples are answered alone too, to see whether answers depend on the batch."""


def quality_walk(session: Session) -> tuple[list[Walked], int]:
    """Answer every batch to the end of its answers.

    Return the answers, and in how many batches logits were not finite.
    """
    walked, bad = _walk(session, "quality", session.asked.batches)
    return walked, bad


def guards(session: Session, run: Run, answered: list[Walked], not_finite: int) -> Guards:
    """Return whether the answers can be believed; answers some samples alone, those with the most padding first."""
    asked = session.asked
    tokens = [row for walked in answered for row in walked.generated.answer_tokens]
    if asked.settings.batch_size == 1 or len(tokens) < 2:
        return judge(run, None, 0, not_finite, "each sample is answered alone")
    if asked.settings.optimization == "compile":
        return judge(run, None, 0, not_finite, "another batch size would compile the model again")
    padding = [pad for batch in asked.batches for pad in batch.pad_tokens]
    chosen = sorted(sorted(range(len(tokens)), key=lambda row: -padding[row])[:ALONE])
    alone, bad = _walk(session, "alone", _one_by_one(session, chosen))
    same = sum(walked.generated.answer_tokens[0] == tokens[row] for walked, row in zip(alone, chosen, strict=True))
    return judge(run, same / len(chosen), len(chosen), not_finite + bad)


def _walk(session: Session, title: str, batches: tuple[Batch, ...]) -> tuple[list[Walked], int]:
    from layerprof.measure import generation, passes

    asked = session.asked
    walked, bad = [], 0
    with session.progress.stage(title, len(batches)) as advance:
        for batch in batches:
            passes.synchronize(asked.device)
            start = time.perf_counter()
            recorder = generation.Recorder(probe=True)
            answer = generation.generate(session.subject, batch, max_new_tokens=asked.max_new_tokens, recorder=recorder)
            walked.append(Walked(batch.rows, time.perf_counter() - start, answer))
            bad += bool(answer.bad_logits)
            advance()
    return walked, bad


def _one_by_one(session: Session, rows: list[int]) -> tuple[Batch, ...]:
    from layerprof.data import batching

    asked = session.asked.settings
    data = session.asked.dataset
    few = dataclasses.replace(data, examples=tuple(data.examples[row] for row in rows))
    made = batching.batches(
        session.subject, few, batch_size=1, image_size=asked.image_size, max_input_len=asked.max_input_len
    )
    return tuple(made)


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
