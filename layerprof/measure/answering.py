"""One batch answered, and a walk over batches: what every pass is made of."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from layerprof.measure import optimize
from layerprof.measure.session import Session
from layerprof.readings import Walked

if TYPE_CHECKING:
    from layerprof.data.batching import Batch

Around = Callable[["Batch"], AbstractContextManager[Any]]


def walk(
    session: Session,
    title: str,
    *,
    numbers: Sequence[int] | None = None,
    around: Around | None = None,
    probe: bool = False,
) -> list[Walked]:
    """Answer batches in order, each made when its turn comes and inside `around(batch)`; return the answers.

    `numbers` are theirs in the walk, by default those of the part that the instruments walk.
    """
    asked, walked = session.asked, list[Walked]()
    numbers = asked.part if numbers is None else numbers
    with session.progress.stage(title, len(numbers)) as advance:
        for batch in asked.batches.some(numbers):
            with around(batch) if around else nullcontext():
                walked.append(answer(session, batch, probe=probe))
            del batch  # before the next one is made
            advance()
    return walked


def answer(
    session: Session, batch: Batch, *, max_new_tokens: int | None = None, probe: bool = False, fixed: bool = False
) -> Walked:
    """Run one `generate()`; the device is idle before the clock starts and after it stops.

    With `probe`, logits of every token are looked at, which costs a little; else those of the last, when no clock runs.
    With `fixed`, or where the settings ask for it, every row writes exactly `max_new_tokens`.
    """
    from layerprof.measure import generation

    asked = session.asked
    settings = asked.settings
    begin = time.perf_counter()
    tokens = max_new_tokens or asked.max_new_tokens
    cache = optimize.cache(session, batch)
    synchronize(asked.device)
    start = time.perf_counter()
    recorder = generation.Recorder(probe=probe)
    generated = generation.generate(
        session.subject,
        batch,
        max_new_tokens=tokens,
        fixed=fixed or settings.fixed_tokens,
        recorder=recorder,
        cache=cache,
    )
    synchronize(asked.device)
    end = time.perf_counter()
    if not probe:
        generated = replace(generated, bad_logits=recorder.ended_badly())
    return Walked(batch.rows, end - start, generated, end - begin)


def synchronize(device: str) -> None:
    """Wait until the device has done all that was asked of it; a CPU always has."""
    if device != "cpu":
        import torch

        torch.cuda.synchronize(device)
