"""Answers a prompt on ghost tensors under the hook that reads a run's memory, and works out the whole answer's.

Storages of ghosts have the sizes and the lives of real ones. A decode step holds what the step before it held and one
position more, so that the last steps of a long answer, rehearsed behind a longer prompt, are its peak.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from layerprof import registry
from layerprof.estimate import blueprint
from layerprof.estimate.ghost import Ghosts
from layerprof.estimate.rehearsal import FIRST_STEPS, answer, slides
from layerprof.readings import Key, Layer, MemoryReading
from layerprof.records import Phase

if TYPE_CHECKING:
    from layerprof.registry import LayerMemoryHook

EACH_STEP = 64
"""Steps that are rehearsed one by one where they are no line."""


def rehearse(
    model: Any,
    layers: Sequence[Layer],
    ghosts: Ghosts,
    *,
    rows: int,
    image_size: int,
    text_tokens: int,
    new_tokens: int,
) -> MemoryReading:
    """Return what the memory pass would read of an answer as `rehearsal.rehearse` takes it, on a CPU.

    Where steps are no line (a window fills up, a decoder grows beside an encoder), answers of up to `EACH_STEP` steps
    are rehearsed whole. In longer ones what a step keeps is taken as the mean of the first and the last.
    """

    def walk(text: int, tokens: int, *, decode_alone: bool = False) -> MemoryReading:
        import torch

        with torch.no_grad(), ghosts, blueprint.understood(type(model).__name__):
            made = blueprint.inputs(model, rows, image_size, text)
            hook = registry.load(registry.LAYER_MEMORY)(model, layers)
            with hook, hook.batch(0, given=made.tensors):
                answer(model, made, tokens, _once(hook) if decode_alone else lambda: None)
        if hook.failure is not None:
            raise hook.failure
        return hook.reading()

    steps = new_tokens - 1
    bent = slides(model.config) or getattr(model.config, "is_encoder_decoder", False)
    whole = steps < FIRST_STEPS or (bent and steps <= EACH_STEP)
    first = walk(text_tokens, new_tokens if whole else min(new_tokens, FIRST_STEPS))
    if whole or not any(phase is Phase.DECODE for _, phase in first.calls):
        return first
    last = walk(text_tokens + steps - (FIRST_STEPS - 1), FIRST_STEPS, decode_alone=True)
    return _whole(first, last, steps)


def _once(hook: LayerMemoryHook) -> Callable[[], None]:
    """Return what is called after each token: after the first, the peak of the prompt is forgotten."""
    written: list[int] = []

    def after_token() -> None:
        if not written:
            hook.restart()
        written.append(1)

    return after_token


def _whole(first: MemoryReading, last: MemoryReading, steps: int) -> MemoryReading:
    """Put the prompt and first steps of an answer together with its last ones, of which only decode counts."""
    decode = [key for key in first.calls if key[1] is Phase.DECODE]
    calls = {key: first.calls[key] // (FIRST_STEPS - 1) * steps for key in decode}
    peak = {key: max(first.peak[key], last.peak.get(key, 0)) for key in decode}
    return replace(
        first if first.total >= last.total else last,
        calls=first.calls | calls,
        peak=first.peak | peak,
        kept=first.kept | _even(first, last, calls, lambda reading: reading.kept),
        kept_kv=first.kept_kv | _even(first, last, calls, lambda reading: reading.kept_kv),
    )


def _even(
    first: MemoryReading,
    last: MemoryReading,
    calls: Mapping[Key, int],
    part: Callable[[MemoryReading], Mapping[Key, int]],
) -> dict[Key, int]:
    """Return what all calls keep, at the mean of what the first and the last ones do."""
    means = {
        key: [part(reading)[key] / reading.calls[key] for reading in (first, last) if key in reading.calls]
        for key in calls
    }
    return {key: round(sum(found) / len(found) * calls[key]) for key, found in means.items()}
