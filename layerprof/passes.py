"""The passes of one run: each walks the same batches in the same order with one kind of instrument attached.

No instrument may disturb another, so each has a walk of its own, and the bare walk has none: it alone gives
the end-to-end figures. A pass keeps what it has finished when it is interrupted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from layerprof import other_load, registry
from layerprof.compilation import compile_time, compiled_decoder, graphs, uncompiled
from layerprof.records import KernelReading
from layerprof.session import Session, Walked

if TYPE_CHECKING:
    from layerprof.inputs import Batch

WARM_UP_TOKENS = 4
Around = Callable[[int], AbstractContextManager[Any]]


def warm_up(session: Session) -> None:
    """Answer the first batch once, unmeasured, so that no pass pays for first-use costs.

    On a GPU the whole answer, since kernels are chosen per shape; on a CPU a few tokens, since a large model is slow
    there. A compiled decoder takes one unmeasured walk over all batches, so that every shape is compiled before the
    clock runs.
    """
    if session.compiled is not None:
        with compile_time(session.compiled):
            walk(session, "compile", [])
        session.passes["compile"] = {"graphs": session.compiled.graphs, "seconds": session.compiled.seconds}
        return
    tokens = session.max_new_tokens if session.device != "cpu" else min(WARM_UP_TOKENS, session.max_new_tokens)
    with session.progress.stage("warm-up", 1) as advance:
        answer(session, session.batches[0], max_new_tokens=tokens)
        advance()


@contextmanager
def optimized(session: Session) -> Iterator[None]:
    """Compile the decoder for the length of the block where the settings ask for it; else nothing."""
    if session.settings.optimization != "compile":
        yield
        return
    with compiled_decoder(session.subject.model, session.layers) as session.compiled:
        yield
        late = graphs() - session.compiled.graphs
        if late > 0:
            session.warnings.append(f"{late} graphs were compiled inside the measured passes, whose times hold that.")


def bare_pass(session: Session) -> None:
    """Answer every batch with no hook attached: the end-to-end truth, and the peak memory."""
    memory = registry.load("memory")(session.device)
    before = time.process_time()
    try:
        with memory, other_load.watched(session.other_load, "bare"):
            walk(session, "bare", session.bare)
    finally:
        session.bare_cpu_s = time.process_time() - before
    session.peak_memory_bytes = memory.reading()
    reason = getattr(memory, "reason", None)
    if session.peak_memory_bytes is None and reason:
        session.reasons["peak_memory_bytes"] = reason


def latency_pass(session: Session) -> None:
    """Answer every batch with span hooks; the answers must be the bare pass's."""
    hook = registry.load("latency")(session.subject.model, session.layers, device=session.device)
    with attached(session, "spans", hook), other_load.watched(session.other_load, "latency"):
        walk(session, "latency", session.hooked, around=hook.batch)
    if busy := other_load.remark(session.other_load):
        session.warnings.append(busy)
    if any(a.generated.answers != b.generated.answers for a, b in zip(session.bare, session.hooked, strict=False)):
        session.warnings.append(
            "The latency pass answered otherwise than the bare pass: the model is not deterministic here, "
            "so per-layer spans and end-to-end figures are of different work."
        )


def flops_pass(session: Session) -> None:
    """Answer every batch with shape hooks; FLOPs and bytes come from the shapes of what really ran."""
    hook = registry.load("shapes")(session.subject.model, session.layers)
    batches = session.batches

    def around(index: int) -> AbstractContextManager[Any]:
        mask = batches[index].tensors.get("attention_mask")
        return hook.batch(index, attention_mask=mask)  # type: ignore[no-any-return]  # instruments are found at run time

    # Shapes are the same without the compiler, and a dispatch mode sees nothing inside a compiled graph.
    with uncompiled(), attached(session, "work", hook):
        walk(session, "flops", [], around=around)


def trace_pass(session: Session) -> None:
    """Record a few batches with torch.profiler; kernels go to the layer that launched them."""
    few = session.batches[: session.settings.trace_batches]
    hook = registry.load("kernels")(session.subject.model, session.layers, device=session.device, folder=session.folder)
    with attached(session, "kernels", hook):
        walk(session, "trace", [], batches=few, around=hook.batch)
    session.files |= {name: str(path.relative_to(session.folder)) for name, path in hook.files.items()}
    if lost := lost_remark(session.kernels):
        session.warnings.append(lost)


def lost_remark(kernels: KernelReading | None) -> str | None:
    """Return in one sentence what the profiler lost, None where it lost nothing."""
    if kernels is None or not kernels.lost.launches:
        return None
    lost = kernels.lost
    much = "for how long they ran is not known"
    if lost.may_be_s is not None:
        much = f"perhaps {lost.may_be_s * 1e3:.3g} ms"
        much += f", {100 * lost.may_be_s / kernels.total_s:.1f} % of what was recorded" if kernels.total_s else ""
    return (
        f"The profiler lost {lost.launches} of {lost.of} launches ({much}): busy times are too small by that, and the "
        "books name it. `layerprof doctor` tells whether traces can be trusted here."
    )


def cross_check(session: Session) -> None:
    """Count the first batch's prompt with every other counter, too; the table stands in the run."""
    from layerprof import crosscheck

    check = crosscheck.crosscheck(session.subject.model, session.batches[0].tensors, session.layers)
    session.passes["cross_check"] = check.model_dump(mode="json")


def user_passes(session: Session) -> None:
    """Walk once for each hook that the user named; what it reads is stored under its name."""
    for name in session.settings.hooks:
        hook = registry.load(name)(session.subject.model, session.layers)
        with hook:
            walk(session, name, [], around=hook.batch)
        session.passes[name] = hook.reading()


def walk(
    session: Session,
    title: str,
    walked: list[Walked],
    *,
    batches: tuple[Batch, ...] | None = None,
    around: Around | None = None,
) -> None:
    """Answer the batches in order, each inside `around(index)`, appending to `walked` as they finish."""
    batches = session.batches if batches is None else batches
    with session.progress.stage(title, len(batches)) as advance:
        for batch in batches:
            with around(batch.index) if around else nullcontext():
                walked.append(answer(session, batch))
            advance()


def answer(session: Session, batch: Batch, *, max_new_tokens: int | None = None) -> Walked:
    """Run one `generate()`; the device is idle before the clock starts and after it stops."""
    from layerprof import generation

    settings = session.settings
    tokens = max_new_tokens or session.max_new_tokens
    synchronize(session.device)
    start = time.perf_counter()
    generated = generation.generate(session.subject, batch, max_new_tokens=tokens, fixed=settings.fixed_tokens)
    synchronize(session.device)
    return Walked(len(batch.examples), time.perf_counter() - start, generated)


def synchronize(device: str) -> None:
    """Wait until the device has done all that was asked of it; a CPU always has."""
    if device != "cpu":
        import torch

        torch.cuda.synchronize(device)


@contextmanager
def attached(session: Session, field: str, hook: Any) -> Iterator[None]:
    """Attach the hook, and store what it read in the session's `field`, also when the user interrupts half-way."""
    try:
        with hook:
            yield
    except KeyboardInterrupt:
        setattr(session, field, hook.reading())
        raise
    setattr(session, field, hook.reading())
