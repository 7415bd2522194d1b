"""What a reader of a user's own run must know, in sentences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from layerprof.errors import described
from layerprof.measure import steps


@dataclass(frozen=True, slots=True)
class Facts:
    """How the block went: `error` ended it, `failed` calls were caught, `troubles` and `failure` are our own.

    `untimed` says of each call that was not measured why, `later` counts those whose answer works after the call,
    `graphs` the passes that were captured into CUDA graphs.
    `steps` counts passes through the model, where they could be watched; `differed` says that equal ones did unequal
    work, `blind` why some could not be watched. `slowdown` is how many times as long watched passes took as the same
    ones unwatched, `spent_s` the least that watching cost.
    """

    error: BaseException | None
    failed: tuple[str, ...]
    graphs: int
    overlapped: int
    troubles: tuple[BaseException, ...]
    untimed: tuple[str, ...]
    later: int
    steps: steps.Facts | None
    differed: bool
    blind: str
    slowdown: float | None
    spent_s: float
    failure: Exception | None


def remarks(facts: Facts) -> Iterator[str]:
    """Yield the sentences."""
    if facts.error is not None:
        yield f"The block ended with {described(facts.error)}"
    caught = len(facts.failed) - (facts.error is not None and bool(facts.failed))
    if caught > 0:
        yield f"{caught} of the calls failed ({facts.failed[0]}): what they did is in no figure."
    if facts.untimed:
        yield f"{len(facts.untimed)} of the calls are in no figure: {facts.untimed[0]}."
    if facts.later:
        yield (
            f"{facts.later} of the calls gave a generator, a coroutine or a function: what that does after the call is "
            "in no figure."
        )
    if facts.graphs:
        yield (
            f"{facts.graphs} passes through the model were captured into CUDA graphs: where these are replayed no "
            "layer is called, and what they did is in no layer's figures. Continuous batching makes none with "
            "ContinuousBatchingConfig(use_cuda_graph=False)."
        )
    if facts.overlapped:
        yield (
            f"Calls from several threads overlapped: spans hold work of other calls ({facts.overlapped}), which are no "
            "batches and no samples here, and whose operators were not watched."
        )
    if facts.steps is not None:
        yield from _of_steps(facts, facts.steps)
    if facts.failure is not None:
        told = described(facts.failure)
        yield f"Counting met what it does not know ({told}); FLOPs may be short."
    if facts.troubles:
        first = facts.troubles[0]
        yield f"Measuring failed {len(facts.troubles)} times ({described(first)}); figures may be short."


def _of_steps(facts: Facts, counted: steps.Facts) -> Iterator[str]:
    if counted.watched:
        others = f" The FLOPs of the other {counted.known} are those of watched ones that were given the same."
        yield (
            f"Operators were watched in {counted.watched} of {counted.steps} passes through the model{_cost(facts)}."
            f"{others if counted.known else ''}"
        )
    if facts.differed and counted.steps > counted.watched:
        yield (
            "Passes that were given the same were not seen to do the same, so each was watched from then on"
            + (f"; of {counted.missed} before that the FLOPs are not known." if counted.missed else ".")
        )
    elif counted.missed:
        why = f": {facts.blind}" if facts.blind else ""
        yield f"Of {counted.missed} of {counted.steps} passes through the model the FLOPs are not known{why}."


def _cost(facts: Facts) -> str:
    if facts.slowdown is not None:
        return f", which their spans hold: they took {facts.slowdown:.2g} times as long as the same passes unwatched"
    return (
        f", which their spans hold: at least {facts.spent_s:.3g} s of them. "
        "LayerProfiler(model, flops='off') takes the times alone"
    )
