"""The passes of one run: each walks the same batches in the same order with one kind of instrument attached.

No instrument may disturb another, so each has a walk of its own, and the bare walk has none: it alone gives
the end-to-end figures. A pass keeps what it has finished when it is interrupted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from layerprof import registry
from layerprof.machine import other_load, streams
from layerprof.measure import optimize, remarks
from layerprof.measure.session import Session
from layerprof.readings import Walked
from layerprof.registry import MemoryHook, SpanHook

if TYPE_CHECKING:
    from layerprof.data.batching import Batch
    from layerprof.models.decode_graph import Steps

WARM_UP_TOKENS = 4
SHAPE_TOKENS = 2
"""A prompt and one step: what a shape loads for the first time."""
Around = Callable[[int], AbstractContextManager[Any]]


def warm_up(session: Session) -> None:
    """Answer unmeasured, so that no pass pays for first-use costs.

    The first batch: on a GPU the whole answer, on a CPU a few tokens, since a large model is slow there. On a GPU then
    a batch of every other shape with two tokens, since kernels are chosen, and loaded, per shape. A compiled decoder
    takes one unmeasured walk over all batches, so that every shape is compiled before the clock runs. Steps that are to
    be replayed are captured here: answers are as long as they may be, since an end mark would come before a step.
    """
    asked = session.asked
    with optimize.prepared(session):
        if session.compiled is not None:
            walk(session, "compile", [])
            return
        every = asked.device != "cpu" or session.graphs is not None
        first, *others = one_of_each_shape(asked.batches) if every else asked.batches[:1]
        tokens = asked.max_new_tokens if every else min(WARM_UP_TOKENS, asked.max_new_tokens)
        fixed = session.graphs is not None
        with session.progress.stage("warm-up", 1 + len(others)) as advance:
            answer(session, first, max_new_tokens=tokens, fixed=fixed)
            advance()
            for batch in others:
                answer(session, batch, max_new_tokens=min(SHAPE_TOKENS, asked.max_new_tokens), fixed=fixed)
                advance()


def one_of_each_shape(batches: Sequence[Batch]) -> list[Batch]:
    """Return the first batch of every shape of inputs, in their order."""
    found: dict[tuple[Any, ...], Batch] = {}
    for batch in batches:
        shapes = ((name, tuple(value.shape)) for name, value in batch.tensors.items() if hasattr(value, "shape"))
        found.setdefault(tuple(sorted(shapes)), batch)
    return list(found.values())


def bare_and_latency(session: Session) -> None:
    """Answer every batch with no hook attached and with span hooks, one after the other, in turns who is first.

    Bare gives the end-to-end truth and the peak memory, hooked the spans; their answers must be the same. Since a
    batch's two walks follow each other, a machine whose speed drifts changes both alike, and their ratio is what
    measuring costs. Ends by an interrupt or a failure with what is finished.
    """
    asked, read = session.asked, session.read
    hook = registry.load(registry.LATENCY)(session.subject.model, asked.layers, device=asked.device)
    memory = registry.load(registry.MEMORY)(asked.device)
    turns = [(batch, hooked) for batch in asked.batches for hooked in ((False, True), (True, False))[batch.index % 2]]
    steps = optimize.followed_by(hook)
    try:
        rehearse(session, hook, steps)
        with (
            optimize.none_captured_late(session),
            session.progress.stage("bare and latency", len(turns)) as advance,
            other_load.watched(read.other_load, "bare and latency"),
        ):
            for batch, hooked in turns:
                if hooked:
                    _hooked(session, batch, hook, steps)
                else:
                    _bare(session, batch, memory)
                advance()
    finally:
        # Spans are of batches that were answered both ways, or totals and layers would be of different work.
        del read.hooked[len(read.bare) :]
        if read.hooked:
            read.spans = hook.reading(len(read.hooked))
    if busy := other_load.remark(read.other_load):
        read.warnings.append(busy)
    if any(a.generated.answers != b.generated.answers for a, b in zip(read.bare, read.hooked, strict=True)):
        read.warnings.append(
            "The latency pass answered otherwise than the bare pass: the model is not deterministic here, "
            "so per-layer spans and end-to-end figures are of different work."
        )


def _bare(session: Session, batch: Batch, memory: MemoryHook) -> None:
    read = session.read
    before = time.process_time()
    with memory:
        walked = answer(session, batch)
    read.bare_cpu_s += time.process_time() - before
    read.bare.append(walked)
    peak, reason = memory.reading(), memory.reason
    if peak is not None:
        read.peak_memory_bytes = max(peak, read.peak_memory_bytes or 0)
    elif reason:
        read.reasons["peak_memory_bytes"] = reason


def _hooked(session: Session, batch: Batch, hook: SpanHook, steps: Steps) -> None:
    with hook, hook.batch(batch.index), optimize.replaying(session, steps):
        walked = answer(session, batch)
    session.read.hooked.append(walked)


def rehearse(session: Session, hook: SpanHook, steps: Steps) -> None:
    """Where steps are replayed, capture each anew with the hook's marks in it; what is timed then is forgotten."""
    if session.graphs is None:
        return
    tokens = min(SHAPE_TOKENS, session.asked.max_new_tokens)
    for batch in one_of_each_shape(session.asked.batches):
        with hook, hook.batch(batch.index), optimize.replaying(session, steps):
            answer(session, batch, max_new_tokens=tokens, fixed=True)
    hook.forget()


def flops_pass(session: Session) -> None:
    """Answer every batch with shape hooks; FLOPs and bytes come from the shapes of what really ran."""
    asked, read = session.asked, session.read
    hook = registry.load(registry.SHAPES)(session.subject.model, asked.layers)
    batches = asked.batches

    def around(index: int) -> AbstractContextManager[Any]:
        mask = batches[index].tensors.get("attention_mask")
        return hook.batch(index, attention_mask=mask)

    # Shapes are the same without the compiler, and a dispatch mode sees nothing inside a graph of either kind.
    walked: list[Walked] = []
    try:
        with optimize.as_written(session), hook:
            walk(session, "flops", walked, around=around, probe=True)
    except KeyboardInterrupt:
        # Not what was counted by then: spans are of all batches, and work of a part would stand beside calls of all.
        read.reasons["work"] = f"interrupted after {len(walked)} of {len(batches)} batches"
        raise
    read.work = hook.reading()
    bad = [number for number, one in enumerate(walked) if one.generated.bad_logits]
    read.passes["not_finite_batches"] = bad
    if bad:
        read.warnings.insert(0, remarks.not_finite(session, len(bad), len(walked)))


def trace_pass(session: Session) -> None:
    """Record a few batches with torch.profiler; kernels go to the layer that launched them."""
    asked, read = session.asked, session.read
    few = asked.batches[: asked.settings.trace_batches]
    hook = registry.load(registry.KERNELS)(
        session.subject.model, asked.layers, device=asked.device, folder=session.folder
    )

    @contextmanager
    def around(index: int) -> Iterator[None]:
        # Each recording has a capture of its own, which tells whose kernels its replays run.
        with hook.batch(index), optimize.replaying(session, optimize.followed_by(hook)):
            yield

    try:
        with hook:
            walk(session, "trace", [], batches=few, around=around)
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
    check = crosscheck.crosscheck(session.subject.model, asked.batches[0].tensors, asked.layers)
    session.read.passes["cross_check"] = check.model_dump(mode="json")


def user_passes(session: Session) -> None:
    """Walk once for each hook that the user named; what it reads is stored under its name."""
    asked = session.asked
    for name in asked.settings.hooks:
        hook = registry.load_own(name)(session.subject.model, asked.layers)
        with optimize.called(session), hook:
            walk(session, name, [], around=hook.batch)
        session.read.passes[name] = hook.reading()


def walk(
    session: Session,
    title: str,
    walked: list[Walked],
    *,
    batches: tuple[Batch, ...] | None = None,
    around: Around | None = None,
    probe: bool = False,
) -> None:
    """Answer the batches in order, each inside `around(index)`, appending to `walked` as they finish."""
    batches = session.asked.batches if batches is None else batches
    with session.progress.stage(title, len(batches)) as advance:
        for batch in batches:
            with around(batch.index) if around else nullcontext():
                walked.append(answer(session, batch, probe=probe))
            advance()


def answer(
    session: Session, batch: Batch, *, max_new_tokens: int | None = None, probe: bool = False, fixed: bool = False
) -> Walked:
    """Run one `generate()`; the device is idle before the clock starts and after it stops.

    With `probe`, logits are looked at, too, which costs a little at every token. With `fixed`, or where the settings
    ask for it, every row writes exactly `max_new_tokens`.
    """
    from layerprof.measure import generation

    asked = session.asked
    settings = asked.settings
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
    return Walked(batch.rows, time.perf_counter() - start, generated)


def synchronize(device: str) -> None:
    """Wait until the device has done all that was asked of it; a CPU always has."""
    if device != "cpu":
        import torch

        torch.cuda.synchronize(device)
