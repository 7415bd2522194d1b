"""The walk over all samples, with nothing attached, and beside it the latency pass over the part that is instrumented.

It alone gives the end-to-end figures: answers, times from the image file on, peak memory.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from layerprof import registry
from layerprof.machine import other_load
from layerprof.measure import answering, optimize, remarks, warm_up
from layerprof.measure.session import Session
from layerprof.registry import MemoryHook, SpanHook

if TYPE_CHECKING:
    from layerprof.data.batching import Batch
    from layerprof.models.decode_graph import Steps


def bare_and_latency(session: Session) -> None:
    """Answer every batch with no hook attached; those of the part also with span hooks, in turns who is first.

    Bare gives the end-to-end truth and the peak memory, hooked the spans; their answers must be the same. Since a
    batch's two walks follow each other, a machine whose speed drifts changes both alike, and their ratio is what
    measuring costs. A batch is made once for both, and gone when it is over. Ends by an interrupt or a failure with
    what is finished.
    """
    asked, read = session.asked, session.read
    hook = registry.load(registry.LATENCY)(session.subject.model, asked.layers, device=asked.device)
    memory = registry.load(registry.MEMORY)(asked.device)
    steps = optimize.followed_by(hook)
    part = len(asked.part)
    try:
        with (
            optimize.none_captured_late(session),
            session.progress.stage("bare and latency", len(asked.batches) + part) as advance,
            other_load.watched(read.other_load, "bare and latency"),
        ):
            for batch in asked.batches.walk():
                warm_up.ready(session, batch, hook, steps, len(read.hooked))
                for hooked in _turns(batch.index, part):
                    if hooked:
                        _hooked(session, batch, hook, steps)
                    else:
                        _bare(session, batch, memory)
                    advance()
                del batch  # before the next one is made
    finally:
        # Spans are of batches that were answered both ways, or totals and layers would be of different work.
        for kept in (read.hooked, read.questions, read.made, read.bare_cpu_s):
            del kept[len(read.bare) :]
        if read.hooked:
            read.spans = hook.reading(len(read.hooked))
        told = remarks.left_out(asked.batches.bad), other_load.remark(read.other_load)
        read.warnings += filter(None, told)
    if any(a.generated.answers != b.generated.answers for a, b in zip(read.bare, read.hooked, strict=False)):
        read.warnings.append(
            "The latency pass answered otherwise than the bare pass: the model is not deterministic here, "
            "so per-layer spans and end-to-end figures are of different work."
        )


def _turns(index: int, part: int) -> tuple[bool, ...]:
    """Return which walks of a batch come in which order: True is the hooked one."""
    if index >= part:
        return (False,)
    return (True, False) if index % 2 else (False, True)


def _bare(session: Session, batch: Batch, memory: MemoryHook) -> None:
    read = session.read
    before = time.process_time()
    with memory:
        walked = answering.answer(session, batch)
    read.bare_cpu_s.append(time.process_time() - before)
    read.questions.append(batch.questions())
    if batch.made is not None:
        read.made.append(batch.made)
    read.bare.append(walked)
    peak, reason = memory.reading(), memory.reason
    if peak is not None:
        read.peak_memory_bytes = max(peak, read.peak_memory_bytes or 0)
    elif reason:
        read.reasons["peak_memory_bytes"] = reason


def _hooked(session: Session, batch: Batch, hook: SpanHook, steps: Steps) -> None:
    with hook, hook.batch(batch.index), optimize.replaying(session, steps):
        walked = answering.answer(session, batch)
    session.read.hooked.append(walked)
