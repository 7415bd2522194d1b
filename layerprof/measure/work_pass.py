"""The flops pass: what batches of one signature did is counted once, as far as they turn out to do the same."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from layerprof import registry
from layerprof.measure import answering, optimize, remarks
from layerprof.measure.session import Session
from layerprof.measure.steps import same, times
from layerprof.readings import Walked, WorkReading

if TYPE_CHECKING:
    from layerprof.data.batching import Batch

Groups = Mapping[Hashable, Sequence[int]]
"""Numbers of the batches of each signature."""


def flops_pass(session: Session) -> None:
    """Answer one batch of each signature with shape hooks; FLOPs and bytes come from the shapes of what really ran.

    Those of the others that have its signature are the same again, unless values decide what a model does (experts that
    run, tokens that are dropped by content, layers that are left early). So some of them are counted all the same
    (`repeats`), and where one did something else than the first of its signature, every batch is counted.
    """
    asked, read = session.asked, session.read
    hook = registry.load(registry.SHAPES)(session.subject.model, asked.layers)
    counted: dict[int, WorkReading] = {}
    walked: dict[int, Walked] = {}

    @contextmanager
    def around(batch: Batch) -> Iterator[None]:
        with hook.batch(batch.index, attention_mask=batch.tensors.get("attention_mask")):
            yield
        counted[batch.index] = hook.take()

    def walk(numbers: Sequence[int]) -> None:
        answers = answering.walk(session, "flops", numbers=numbers, around=around, probe=True)
        walked.update(zip(numbers, answers, strict=True))

    groups = by_signature(session)
    every = sorted(number for batches in groups.values() for number in batches)
    again = repeats(groups)
    numbers = sorted([batches[0] for batches in groups.values()] + list(again))
    # Shapes are the same without the compiler, and a dispatch mode sees nothing inside a graph of either kind.
    try:
        with optimize.as_written(session), hook:
            walk(numbers)
            alike = all(same(counted[number], counted[first]) for number, first in again.items())
            if not alike:
                numbers = every
                walk([number for number in every if number not in counted])
    except KeyboardInterrupt:
        # Not what was counted by then: spans are of all batches, and work of a part would stand beside calls of all.
        read.reasons["work"] = f"interrupted after {len(counted)} of {len(numbers)} batches to count"
        raise
    read.work = total(groups, counted) if alike else sum(counted.values(), WorkReading())
    read.passes["flops_batches"] = {"walked": len(counted), "of": len(every)} | ({} if alike else {"differed": True})
    _remark(session, walked)


def by_signature(session: Session) -> dict[Hashable, list[int]]:
    """Return the batches of the instrumented part by what their work depends on: shapes, padding, and steps written."""
    groups: dict[Hashable, list[int]] = {}
    for number, questions, walked in zip(session.asked.part, session.read.questions, session.read.bare, strict=False):
        own = number if questions.shape is None else None
        signature = (questions.shape, _steps(walked), own)
        groups.setdefault(signature, []).append(number)
    return groups


def repeats(groups: Groups) -> dict[int, int]:
    """Return batches that are counted although their signature is known, each with the first of its signature.

    Of all such batches in their order it is the 1st, 2nd, 4th, 8th, ...: few, however many there are.
    """
    known = sorted((number, batches[0]) for batches in groups.values() for number in batches[1:])
    return dict(pair for place, pair in enumerate(known, 1) if place & (place - 1) == 0)


def total(groups: Groups, counted: Mapping[int, WorkReading]) -> WorkReading:
    """Return the work of all batches, each signature's by its first."""
    each = (times(counted[batches[0]], len(batches)) for batches in groups.values())
    return sum(each, WorkReading())


def _steps(walked: Walked) -> int:
    """Tokens that a batch wrote, by its longest row: so many times the model was called."""
    return max(walked.generated.new_tokens, default=0)


def _remark(session: Session, walked: Mapping[int, Walked]) -> None:
    """Say of which batches the logits were no numbers, and of how many the answer had another length this time."""
    read = session.read
    bad = {number for number, one in walked.items() if one.generated.bad_logits}
    bad |= {number for number, one in enumerate(read.bare) if one.generated.bad_logits}
    read.passes["not_finite_batches"] = sorted(bad)
    other = sum(_steps(one) != _steps(read.bare[number]) for number, one in walked.items())
    if other:
        read.warnings.append(remarks.other_lengths(other, len(walked)))
    if bad:
        read.warnings.insert(0, remarks.not_finite(session, len(bad), len(read.bare)))
