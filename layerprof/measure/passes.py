"""Further passes over the instrumented part: the trace, other counters, and hooks that the user named.

No instrument may disturb another, so each has a walk of its own. A pass keeps what it has finished when it is
interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from layerprof import registry
from layerprof.machine import streams
from layerprof.measure import answering, optimize, remarks
from layerprof.measure.session import Session
from layerprof.registry import Hook

if TYPE_CHECKING:
    from layerprof.data.batching import Batch


def trace_pass(session: Session) -> None:
    """Record a few batches with torch.profiler; kernels go to the layer that launched them."""
    asked, read = session.asked, session.read
    few = asked.part[: asked.settings.trace_batches]
    hook = registry.load(registry.KERNELS)(
        session.subject.model, asked.layers, device=asked.device, folder=session.folder
    )

    @contextmanager
    def around(batch: Batch) -> Iterator[None]:
        # Each recording has a capture of its own, which tells whose kernels its replays run.
        with hook.batch(batch.index), optimize.replaying(session, optimize.followed_by(hook)):
            yield

    try:
        with hook:
            answering.walk(session, "trace", numbers=few, around=around)
    except KeyboardInterrupt:
        with streams.uninterrupted():  # reading traces takes seconds, and a second Ctrl-C must not throw them away
            reading = hook.reading()
        if reading.batches:
            read.kernels = reading
        else:
            read.reasons["kernels"] = "interrupted before the first batch was recorded"
        raise
    finally:
        read.files |= {name: str(path.relative_to(session.folder)) for name, path in hook.files.items()}
    read.kernels = hook.reading()
    if lost := remarks.lost(read.kernels):
        read.warnings.append(lost)


def cross_check(session: Session) -> None:
    """Count the first batch's prompt with every other counter, too; the table stands in the run."""
    from layerprof.flops import crosscheck

    asked = session.asked
    for batch in asked.batches.some((0,)):
        check = crosscheck.crosscheck(session.subject.model, batch.tensors, asked.layers)
        session.read.passes["cross_check"] = check.model_dump(mode="json")


def user_passes(session: Session) -> None:
    """Walk once for each hook that the user named; what it reads is stored under its name."""
    asked = session.asked
    for name in asked.settings.hooks:
        hook = registry.load_own(name)(session.subject.model, asked.layers)
        with optimize.called(session), hook:
            answering.walk(session, name, around=_around(hook))
        session.read.passes[name] = hook.reading()


def _around(hook: Hook) -> answering.Around:
    return lambda batch: hook.batch(batch.index)
