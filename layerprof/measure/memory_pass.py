"""The memory pass: what each layer's calls hold at their peak and keep, and who holds what at the walk's peak."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from layerprof import registry
from layerprof.measure import answering, optimize, work_pass
from layerprof.measure.session import Session

if TYPE_CHECKING:
    from layerprof.data.batching import Batch


def run(session: Session) -> None:
    """Answer one batch of each signature, call by call, with the memory of layers followed.

    What its calls keep counts as often as the signature comes, so that means are over the calls of all batches.
    Raises what went wrong in following: figures that miss an allocation would be wrong, not incomplete.
    """
    asked = session.asked
    hook = registry.load(registry.LAYER_MEMORY)(session.subject.model, asked.layers, device=asked.device)
    times = {batches[0]: len(batches) for batches in work_pass.by_signature(session).values()}
    numbers = list(times)

    def around(batch: Batch) -> AbstractContextManager[Any]:
        return hook.batch(batch.index, given=batch.tensors, times=times[batch.index])

    # What a compiled region holds inside is seen by nobody, and a graph's memory is a pool of its own.
    with optimize.as_written(session), hook:
        answering.walk(session, "memory", numbers=numbers, around=around)
    if hook.failure is not None:
        raise hook.failure
    session.read.memory = hook.reading()
    session.read.passes["memory_batches"] = {"walked": len(numbers), "of": len(asked.part)}
