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
from layerprof.measure.session import Session
from layerprof.models.compile_layers import compile_time, compiled_decoder, graphs, uncompiled
from layerprof.readings import KernelReading, Walked

if TYPE_CHECKING:
    from layerprof.data.batching import Batch

WARM_UP_TOKENS = 4
SHAPE_TOKENS = 2
"""A prompt and one step: what a shape loads for the first time."""
Around = Callable[[int], AbstractContextManager[Any]]


def remark_on_earlier_traces(session: Session) -> None:
    """Warn where times and joules would hold what an earlier trace left behind."""
    if session.device != "cpu" and registry.load("kernels").recorded_before():
        session.warnings.append(
            "This process recorded a trace before, and the profiler stays attached to the GPU: times and joules may be "
            "larger by some per cent (`layerprof doctor` tells by how much); measure again in a new process."
        )


def warm_up(session: Session) -> None:
    """Answer unmeasured, so that no pass pays for first-use costs.

    The first batch: on a GPU the whole answer, on a CPU a few tokens, since a large model is slow there. On a GPU then
    a batch of every other shape with two tokens, since kernels are chosen, and loaded, per shape. A compiled decoder
    takes one unmeasured walk over all batches, so that every shape is compiled before the clock runs.
    """
    if session.compiled is not None:
        with compile_time(session.compiled):
            walk(session, "compile", [])
        session.passes["compile"] = {"graphs": session.compiled.graphs, "seconds": session.compiled.seconds}
        return
    on_gpu = session.device != "cpu"
    first, *others = one_of_each_shape(session.batches) if on_gpu else session.batches[:1]
    tokens = session.max_new_tokens if on_gpu else min(WARM_UP_TOKENS, session.max_new_tokens)
    with session.progress.stage("warm-up", 1 + len(others)) as advance:
        answer(session, first, max_new_tokens=tokens)
        advance()
        for batch in others:
            answer(session, batch, max_new_tokens=min(SHAPE_TOKENS, session.max_new_tokens))
            advance()


def one_of_each_shape(batches: Sequence[Batch]) -> list[Batch]:
    """Return the first batch of every shape of inputs, in their order."""
    found: dict[tuple[Any, ...], Batch] = {}
    for batch in batches:
        shapes = ((name, tuple(value.shape)) for name, value in batch.tensors.items() if hasattr(value, "shape"))
        found.setdefault(tuple(sorted(shapes)), batch)
    return list(found.values())


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


def bare_and_latency(session: Session) -> None:
    """Answer every batch with no hook attached and with span hooks, one after the other, in turns who is first.

    Bare gives the end-to-end truth and the peak memory, hooked the spans; their answers must be the same. Since a
    batch's two walks follow each other, a machine whose speed drifts changes both alike, and their ratio is what
    measuring costs. Ends by an interrupt or a failure with what is finished.
    """
    hook = registry.load("latency")(session.subject.model, session.layers, device=session.device)
    memory = registry.load("memory")(session.device)
    turns = [(batch, hooked) for batch in session.batches for hooked in ((False, True), (True, False))[batch.index % 2]]
    try:
        with (
            session.progress.stage("bare and latency", len(turns)) as advance,
            other_load.watched(session.other_load, "bare and latency"),
        ):
            for batch, hooked in turns:
                if hooked:
                    _hooked(session, batch, hook)
                else:
                    _bare(session, batch, memory)
                advance()
    finally:
        # Spans are of batches that were answered both ways, or totals and layers would be of different work.
        del session.hooked[len(session.bare) :]
        if session.hooked:
            session.spans = hook.reading(len(session.hooked))
    if busy := other_load.remark(session.other_load):
        session.warnings.append(busy)
    if any(a.generated.answers != b.generated.answers for a, b in zip(session.bare, session.hooked, strict=True)):
        session.warnings.append(
            "The latency pass answered otherwise than the bare pass: the model is not deterministic here, "
            "so per-layer spans and end-to-end figures are of different work."
        )


def _bare(session: Session, batch: Batch, memory: Any) -> None:
    before = time.process_time()
    with memory:
        walked = answer(session, batch)
    session.bare_cpu_s += time.process_time() - before
    session.bare.append(walked)
    peak, reason = memory.reading(), getattr(memory, "reason", None)
    if peak is not None:
        session.peak_memory_bytes = max(peak, session.peak_memory_bytes or 0)
    elif reason:
        session.reasons["peak_memory_bytes"] = reason


def _hooked(session: Session, batch: Batch, hook: Any) -> None:
    with hook, hook.batch(batch.index):
        walked = answer(session, batch)
    session.hooked.append(walked)


def flops_pass(session: Session) -> None:
    """Answer every batch with shape hooks; FLOPs and bytes come from the shapes of what really ran."""
    hook = registry.load("shapes")(session.subject.model, session.layers)
    batches = session.batches

    def around(index: int) -> AbstractContextManager[Any]:
        mask = batches[index].tensors.get("attention_mask")
        return hook.batch(index, attention_mask=mask)  # type: ignore[no-any-return]  # instruments are found at run time

    # Shapes are the same without the compiler, and a dispatch mode sees nothing inside a compiled graph.
    walked: list[Walked] = []
    try:
        with uncompiled(), hook:
            walk(session, "flops", walked, around=around, probe=True)
    except KeyboardInterrupt:
        # Not what was counted by then: spans are of all batches, and work of a part would stand beside calls of all.
        session.reasons["work"] = f"interrupted after {len(walked)} of {len(batches)} batches"
        raise
    session.work = hook.reading()
    bad = [number for number, one in enumerate(walked) if one.generated.bad_logits]
    session.passes["not_finite_batches"] = bad
    if bad:
        session.warnings.insert(0, not_finite(session, len(bad), len(walked)))


def not_finite(session: Session, bad: int, of: int) -> str:
    """Return in words that logits were NaN or infinite, what of the run still holds, and what may help."""
    return (
        f"Logits were NaN or infinite in {bad} of {of} batches: the answers there, and so the rates of errors, mean "
        f"nothing; times, FLOPs and joules are of the work that was done. {_why_not_finite(session)}"
    )


def _why_not_finite(session: Session) -> str:
    facts = session.subject.provenance
    used, own = facts.get("dtype"), facts.get("checkpoint_dtype")
    broken = sum(map(_is_broken, session.subject.model.parameters()))
    if broken and used in ("fp32", own):
        return f"{broken} of the model's tensors hold such numbers themselves: get the checkpoint anew."
    if used == "fp32":
        return "Its weights are finite: run the checkpoint outside layerprof to see whether it does the same there."
    why = "fp16 cannot hold magnitudes above 65,504: try" if used == "fp16" else "Try"
    other = "bf16" if used == "fp16" and own != "fp16" else "fp32"
    return f"{why} --dtype {other}{', the format of the checkpoint' if other == own else ''}."


def _is_broken(weight: Any) -> bool:
    """Tell whether a tensor holds NaN or infinity; one of a format that cannot be looked into is taken to hold none."""
    try:
        return bool(weight.is_floating_point() and not weight.isfinite().all())
    except (RuntimeError, TypeError):  # NotImplementedError is a RuntimeError
        return False


def trace_pass(session: Session) -> None:
    """Record a few batches with torch.profiler; kernels go to the layer that launched them."""
    few = session.batches[: session.settings.trace_batches]
    hook = registry.load("kernels")(session.subject.model, session.layers, device=session.device, folder=session.folder)
    try:
        with hook:
            walk(session, "trace", [], batches=few, around=hook.batch)
    except KeyboardInterrupt:
        with streams.uninterrupted():  # reading traces takes seconds, and a second Ctrl-C must not throw them away
            reading = hook.reading()
        if reading.batches:
            session.kernels = reading
        else:
            session.reasons["kernels"] = "interrupted before the first batch was recorded"
        raise
    finally:
        session.files |= {name: str(path.relative_to(session.folder)) for name, path in hook.files.items()}
    session.kernels = hook.reading()
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
    from layerprof.flops import crosscheck

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
    probe: bool = False,
) -> None:
    """Answer the batches in order, each inside `around(index)`, appending to `walked` as they finish."""
    batches = session.batches if batches is None else batches
    with session.progress.stage(title, len(batches)) as advance:
        for batch in batches:
            with around(batch.index) if around else nullcontext():
                walked.append(answer(session, batch, probe=probe))
            advance()


def answer(session: Session, batch: Batch, *, max_new_tokens: int | None = None, probe: bool = False) -> Walked:
    """Run one `generate()`; the device is idle before the clock starts and after it stops.

    With `probe`, logits are looked at, too, which costs a little at every token.
    """
    from layerprof.measure import generation

    settings = session.settings
    tokens = max_new_tokens or session.max_new_tokens
    synchronize(session.device)
    start = time.perf_counter()
    recorder = generation.Recorder(probe=probe)
    generated = generation.generate(
        session.subject, batch, max_new_tokens=tokens, fixed=settings.fixed_tokens, recorder=recorder
    )
    synchronize(session.device)
    return Walked(len(batch.examples), time.perf_counter() - start, generated)


def synchronize(device: str) -> None:
    """Wait until the device has done all that was asked of it; a CPU always has."""
    if device != "cpu":
        import torch

        torch.cuda.synchronize(device)
