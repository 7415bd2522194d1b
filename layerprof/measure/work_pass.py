"""The flops pass: what batches of one signature did is counted once."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from layerprof import registry
from layerprof.measure import answering, optimize, remarks
from layerprof.measure.session import Session
from layerprof.measure.steps import times
from layerprof.readings import WorkReading

if TYPE_CHECKING:
    from layerprof.data.batching import Batch


def flops_pass(session: Session) -> None:
    """Answer one batch of each signature with shape hooks; FLOPs and bytes come from the shapes of what really ran.

    Those of the others that have its signature are the same again.
    """
    asked, read = session.asked, session.read
    hook = registry.load(registry.SHAPES)(session.subject.model, asked.layers)
    groups, readings = by_signature(session), list[WorkReading]()

    @contextmanager
    def around(batch: Batch) -> Iterator[None]:
        with hook.batch(batch.index, attention_mask=batch.tensors.get("attention_mask")):
            yield
        readings.append(hook.take())

    numbers = [batches[0] for batches in groups.values()]
    # Shapes are the same without the compiler, and a dispatch mode sees nothing inside a graph of either kind.
    try:
        with optimize.as_written(session), hook:
            walked = answering.walk(session, "flops", numbers=numbers, around=around, probe=True)
    except KeyboardInterrupt:
        # Not what was counted by then: spans are of all batches, and work of a part would stand beside calls of all.
        read.reasons["work"] = f"interrupted after {len(readings)} of {len(numbers)} kinds of batches"
        raise
    counts = [len(batches) for batches in groups.values()]
    read.work = sum((times(one, count) for one, count in zip(readings, counts, strict=True)), WorkReading())
    read.passes["flops_batches"] = {"walked": len(numbers), "of": sum(counts)}
    bad = {number for number, one in zip(numbers, walked, strict=True) if one.generated.bad_logits}
    bad |= {number for number, one in enumerate(read.bare) if one.generated.bad_logits}
    read.passes["not_finite_batches"] = sorted(bad)
    if bad:
        read.warnings.insert(0, remarks.not_finite(session, len(bad), len(read.bare)))


def by_signature(session: Session) -> dict[Hashable, list[int]]:
    """Return the batches of the instrumented part by what their work depends on: shapes, padding, and steps written."""
    groups: dict[Hashable, list[int]] = {}
    for number, questions, walked in zip(session.asked.part, session.read.questions, session.read.bare, strict=False):
        own = number if questions.shape is None else None
        signature = (questions.shape, max(walked.generated.new_tokens, default=0), own)
        groups.setdefault(signature, []).append(number)
    return groups
