"""What an optimisation that changes the decoder means for a run: when it is on, and which pass runs without it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from layerprof.errors import RunFailedError
from layerprof.measure.session import Session
from layerprof.models.compile_layers import compile_time, compiled_decoder, graphs, uncompiled
from layerprof.models.decode_graph import Follower, Steps, graphed_decoder

if TYPE_CHECKING:
    from layerprof.data.batching import Batch


@contextmanager
def optimized(session: Session) -> Iterator[None]:
    """Compile the decoder, or replay its steps, for the length of the block where the settings ask for it."""
    asked, warnings = session.asked, session.read.warnings
    if asked.settings.optimization == "compile":
        with compiled_decoder(session.subject.model, asked.layers) as session.compiled:
            yield
            late = graphs() - session.compiled.graphs
            if late > 0:
                warnings.append(f"{late} graphs were compiled inside the measured passes, whose times hold that.")
    elif asked.settings.optimization == "graph":
        with graphed_decoder(session.subject.model, asked.layers, longest(session)) as session.graphs:
            yield
    else:
        yield


def longest(session: Session) -> int:
    """Return how many positions the longest prompt and its answer have in the cache; the last token is never there."""
    asked, longest_prompt = session.asked, 0
    with session.progress.stage("lengths of prompts", len(asked.batches)) as advance:
        for batch in asked.batches.walk():
            longest_prompt = max(longest_prompt, batch.length)
            del batch  # before the next one is made
            advance()
    return longest_prompt + max(1, asked.max_new_tokens - 1)


@contextmanager
def prepared(session: Session) -> Iterator[None]:
    """Keep what the first warm-up made of the decoder, and how long that took.

    Raises RunFailedError where it made nothing: figures of an eager model must not be called otherwise.
    """
    with warming(session):
        yield
    if session.graphs is not None and not session.graphs.captures:
        raise RunFailedError(
            "Nothing was captured: no decode step of the warm-up went through the decoder with the cache it was given.",
            "Ask for --max-new-tokens 2 or more, or use --optimization sdpa.",
        )


@contextmanager
def warming(session: Session) -> Iterator[None]:
    """Keep what is compiled or captured unmeasured, and how long that took."""
    facts, compiled, made = session.read.passes, session.compiled, session.graphs
    if compiled is not None:
        with compile_time(compiled):
            yield
        facts["compile"] = {"graphs": compiled.graphs, "seconds": compiled.seconds}
        return
    if made is None:
        yield
        return
    before, already = (made.captures, made.seconds), facts.get("graph", {"graphs": 0, "seconds": 0.0})
    with unmeasured(session):
        yield
    graphs, seconds = made.captures - before[0], made.seconds - before[1]
    facts["graph"] = {"graphs": already["graphs"] + graphs, "seconds": already["seconds"] + seconds}


@contextmanager
def unmeasured(session: Session) -> Iterator[None]:
    """Take captures of the block for none that a measured walk made."""
    before = session.graphs.captures if session.graphs else 0
    yield
    if session.graphs:
        session.captured_warm += session.graphs.captures - before


@contextmanager
def none_captured_late(session: Session) -> Iterator[None]:
    """Warn where a walk that is measured had to capture a step."""

    def measured() -> int:
        return session.graphs.captures - session.captured_warm if session.graphs else 0

    before = measured()
    try:
        yield
    finally:
        late = measured() - before
        if late:
            session.read.warnings.append(
                f"{late} decode steps were captured inside the measured passes, whose times hold that."
            )


def cache(session: Session, batch: Batch) -> Any:
    """Return the emptied cache that a batch's captured steps work on; None where nothing is captured."""
    return session.graphs.cache(int(batch.tensors["input_ids"].shape[0])) if session.graphs else None


@contextmanager
def as_written(session: Session) -> Iterator[None]:
    """Run the decoder call by call for the length of the block, neither compiled nor from a graph."""
    with ExitStack() as stack:
        stack.enter_context(uncompiled())
        stack.enter_context(called(session))
        yield


def called(session: Session) -> AbstractContextManager[None]:
    """Return a context in which layers are called, compiled or not: in a graph's replay they are not."""
    return session.graphs.eager() if session.graphs else nullcontext()


def replaying(session: Session, steps: Steps) -> AbstractContextManager[None]:
    """Return a context in which the decoder's steps are those that were captured under a hook, or now are."""
    return session.graphs.under(steps) if session.graphs else nullcontext()


def followed_by(hook: Follower) -> Steps:
    """Return a set of steps, none captured yet, of which a hook is told."""
    return Steps(hook)
