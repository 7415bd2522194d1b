"""The memory pass: what each layer's calls hold at their peak and keep, and who holds what at the walk's peak."""

from __future__ import annotations

from collections.abc import Hashable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from layerprof import registry
from layerprof.measure import optimize, passes
from layerprof.measure.session import Session

if TYPE_CHECKING:
    from layerprof.data.batching import Batch


def run(session: Session) -> None:
    """Answer one batch of each signature, call by call, with the memory of layers followed.

    Raises what went wrong in following: figures that miss an allocation would be wrong, not incomplete.
    """
    asked = session.asked
    hook = registry.load(registry.LAYER_MEMORY)(session.subject.model, asked.layers, device=asked.device)
    batches = _one_of_each(session)
    tensors = {batch.index: batch.tensors for batch in batches}

    def around(index: int) -> AbstractContextManager[Any]:
        return hook.batch(index, given=tensors[index])

    # What a compiled region holds inside is seen by nobody, and a graph's memory is a pool of its own.
    with optimize.as_written(session), hook:
        passes.walk(session, "memory", [], batches=batches, around=around)
    if hook.failure is not None:
        raise hook.failure
    session.read.memory = hook.reading()


def _one_of_each(session: Session) -> tuple[Batch, ...]:
    """Return the first batch of each signature: shapes, padding, and tokens written."""
    found: dict[Hashable, Batch] = {}
    for batch, walked in zip(session.asked.batches, session.read.bare, strict=False):
        found.setdefault((batch.shape, max(walked.generated.new_tokens, default=0)), batch)
    return tuple(found.values())
