"""What is run unmeasured, so that no pass pays for first-use costs: the first batch, then each shape when it is met."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from layerprof.measure import answering, optimize
from layerprof.measure.session import Session

if TYPE_CHECKING:
    from layerprof.data.batching import Batch
    from layerprof.models.decode_graph import Steps
    from layerprof.registry import SpanHook

WARM_UP_TOKENS = 4
SHAPE_TOKENS = 2
"""A prompt and one step: what a shape loads for the first time."""


def warm_up(session: Session) -> None:
    """Answer the first batch: on a GPU the whole answer, on a CPU a few tokens, since a large model is slow there.

    A compiled decoder writes the whole answer. Steps that are to be replayed are captured here: answers are as long as
    they may be, since an end mark would come before a step.
    """
    asked = session.asked
    whole = asked.device != "cpu" or session.compiled is not None or session.graphs is not None
    tokens = asked.max_new_tokens if whole else min(WARM_UP_TOKENS, asked.max_new_tokens)
    title = "compile" if session.compiled is not None else "warm-up"
    with optimize.prepared(session), session.progress.stage(title, 1) as advance:
        for batch in asked.batches.some((0,)):
            answering.answer(session, batch, max_new_tokens=tokens, fixed=session.graphs is not None)
            session.warmed.add(shape_of(batch))
        advance()


def ready(session: Session, batch: Batch, hook: SpanHook, steps: Steps, hooked: int) -> None:
    """Answer a batch of a new shape before it is measured; a CPU needs that only where something is compiled.

    On a GPU two tokens, since kernels are chosen, and loaded, per shape; all of them where they are compiled. Where
    steps are replayed they are captured, and captured anew with the hook's marks; spans of that are forgotten, those
    of the `hooked` batches before it are not.
    """
    asked, shape, graphs = session.asked, shape_of(batch), session.graphs is not None
    if asked.device == "cpu" and session.compiled is None and not graphs:
        return
    tokens = min(SHAPE_TOKENS, asked.max_new_tokens) if session.compiled is None else asked.max_new_tokens
    if shape not in session.warmed:
        session.warmed.add(shape)
        with optimize.warming(session):
            answering.answer(session, batch, max_new_tokens=tokens, fixed=graphs)
    if graphs and shape not in session.rehearsed and batch.index in asked.part:
        session.rehearsed.add(shape)
        with optimize.unmeasured(session), hook, hook.batch(batch.index), optimize.replaying(session, steps):
            answering.answer(session, batch, max_new_tokens=tokens, fixed=True)
        hook.forget(hooked)


def shape_of(batch: Batch) -> tuple[Any, ...]:
    """Return the shapes of a batch's tensors, whatever padding they hold."""
    shapes = ((name, tuple(value.shape)) for name, value in batch.tensors.items() if hasattr(value, "shape"))
    return tuple(sorted(shapes))
