"""Answers a prompt on ghost tensors and works out the whole of `generate()` from its first steps.

A decode step costs what the step before it cost plus one cached position: its work is affine in the step. Under a
sliding window that holds until the window is full, so the last steps are rehearsed as well, behind a longer prompt, and
the lower of the two lines holds at every step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

from layerprof import registry
from layerprof.estimate import blueprint
from layerprof.estimate.ghost import Ghosts
from layerprof.readings import Chain, Key, Layer, Uncounted, Work, WorkReading
from layerprof.records import Phase

Place = TypeVar("Place", Key, Chain)
FIRST_STEPS = 3
"""Tokens rehearsed: one from the prefill, two decode steps."""


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """Work of a whole answer as the flops pass would read it, and what it needs beside the weights, in bytes."""

    work: WorkReading
    kv_bytes: int
    widest_bytes: int
    image_tokens: int
    prompt_tokens: int
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Steps:
    """Cumulative readings after each written token, and what the cache holds after the last."""

    readings: tuple[WorkReading, ...]
    cache: Any
    made: blueprint.PromptInputs


def rehearse(
    model: Any,
    layers: Sequence[Layer],
    ghosts: Ghosts,
    *,
    rows: int,
    image_size: int,
    text_tokens: int,
    new_tokens: int,
) -> Rehearsal:
    """Answer `rows` prompts of one image and `text_tokens` of text with `new_tokens` each.

    `model` was built inside `ghosts`. Encoders without `generate` are called once. Raises RequestError when the model
    does not run on inputs made from its configuration.
    """
    import torch

    ghosts.widest_bytes = 0

    def steps(text: int, tokens: int) -> _Steps:
        with torch.inference_mode(), ghosts, blueprint.understood(type(model).__name__):
            made = blueprint.inputs(model, rows, image_size, text)
            return _steps(model, layers, made, tokens)

    first = steps(text_tokens, min(new_tokens, FIRST_STEPS))
    last, widest = None, ghosts.widest_bytes
    decode_steps = new_tokens - 1 if len(first.readings) > 1 else 0
    if decode_steps > 2 and slides(model.config):
        last = steps(text_tokens + decode_steps - 2, FIRST_STEPS)
    return Rehearsal(
        work=WorkReading(
            layers=_whole(first, last, decode_steps, lambda reading: reading.layers),
            outside=_whole(first, last, decode_steps, lambda reading: reading.outside),
            nested=_whole(first, last, decode_steps, lambda reading: reading.nested),
            total_flops=_whole(first, last, decode_steps, _total)["", Phase.DECODE].flops,
            uncounted=_whole_uncounted([reading.uncounted for reading in first.readings], decode_steps),
            uncounted_inside=_whole_uncounted([reading.uncounted_inside for reading in first.readings], decode_steps),
        ),
        kv_bytes=_cache_bytes(first, decode_steps),
        widest_bytes=widest,
        image_tokens=first.made.image_tokens,
        prompt_tokens=first.made.prompt_tokens,
        notes=tuple(first.made.notes),
    )


def _steps(model: Any, layers: Sequence[Layer], made: blueprint.PromptInputs, tokens: int) -> _Steps:
    hook = registry.load(registry.SHAPES)(model, layers)
    readings: list[WorkReading] = []
    with hook, hook.batch(0, attention_mask=made.tensors.get("attention_mask")):
        cache = answer(model, made, tokens, lambda: readings.append(hook.reading()))
    return _Steps(tuple(readings), cache, made)


def answer(model: Any, made: blueprint.PromptInputs, new_tokens: int, after_token: Callable[[], None]) -> Any:
    """Generate greedily, `after_token` after each; return the cache. An encoder is called once."""
    import torch
    from transformers import StoppingCriteria

    if not hasattr(model, "generate") or not model.can_generate() or "input_ids" not in made.tensors:
        model(**made.tensors)
        after_token()
        return None

    class EachToken(StoppingCriteria):
        def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
            after_token()
            return torch.zeros(len(input_ids), dtype=torch.bool)

    given = model.generation_config
    given.eos_token_id, given.pad_token_id = None, 0
    if given.decoder_start_token_id is None:
        given.decoder_start_token_id = 0
    answer = model.generate(
        **made.tensors,
        max_new_tokens=new_tokens,
        do_sample=False,
        num_beams=1,
        use_cache=True,
        disable_compile=True,
        return_dict_in_generate=True,
        stopping_criteria=[EachToken()],
    )
    return getattr(answer, "past_key_values", None)


def _whole(
    first: _Steps, last: _Steps | None, steps: int, part: Callable[[WorkReading], Mapping[Place, Work]]
) -> dict[Place, Work]:
    """Add up prefill and all decode steps, field by field."""
    prefill = part(first.readings[0])
    whole = dict(prefill)
    if not steps:
        return whole
    early = _decode_steps(first, part)
    late = _decode_steps(last, part) if last else None
    for key in early[-1]:
        lines = [_line(early, key, 1)]
        if late is not None:
            lines.append(_line(late, key, steps - 1))
        sums = [sum_of_lower(field[0], field[-1], steps) for field in zip(*lines, strict=True)]
        whole[key] = whole.get(key, Work()) + Work(*sums)
    return whole


def _whole_uncounted(
    readings: Sequence[Mapping[tuple[str, Phase, str], Uncounted]], steps: int
) -> dict[tuple[str, Phase, str], Uncounted]:
    """Add up calls of operators without a formula; every decode step makes as many as the first."""
    prefill = {key: missed.calls for key, missed in readings[0].items()}
    after = readings[1] if steps else readings[0]
    each = {key: missed.calls - prefill.get(key, 0) for key, missed in after.items()}
    return {key: Uncounted(prefill.get(key, 0) + steps * calls, None) for key, calls in each.items()}


def sum_of_lower(one: tuple[int, int], other: tuple[int, int], steps: int) -> int:
    """Return the sum over steps 1 to `steps` of the lower of two lines (value at step 0, slope), in whole numbers.

    `sum(a + b s) = a n + b n (n + 1) / 2`; the steeper line is the lower one up to where they cross,
    `s <= (a2 - a1) / (b1 - b2)`, and the flatter one from there on.
    """
    (first, steep), (second, flat) = sorted((one, other), key=lambda line: -line[1])
    if steep == flat:
        return min(first, second) * steps + flat * steps * (steps + 1) // 2
    cross = min(max((second - first) // (steep - flat), 0), steps)
    below = first * cross + steep * cross * (cross + 1) // 2
    after = second * (steps - cross) + flat * (steps * (steps + 1) - cross * (cross + 1)) // 2
    return below + after


def _decode_steps(
    steps: _Steps, part: Callable[[WorkReading], Mapping[Place, Work]]
) -> list[dict[Place, tuple[int, ...]]]:
    """Work of each decode step on its own, as the difference of the readings around it."""
    cumulative = [part(reading) for reading in steps.readings]
    return [
        {
            key: tuple(b - a for a, b in zip(before.get(key, Work()).astuple(), work.astuple(), strict=True))
            for key, work in after.items()
        }
        for before, after in pairwise(cumulative)
    ]


def _line(steps: Sequence[Mapping[Place, tuple[int, ...]]], key: Place, at: int) -> list[tuple[int, int]]:
    """Return (value at step 0, slope) of each field, from two steps of which the first is step `at`."""
    one = steps[0].get(key, Work().astuple())
    two = steps[1].get(key, one) if len(steps) > 1 else one
    return [(a - (b - a) * at, b - a) for a, b in zip(one, two, strict=True)]


def _total(reading: WorkReading) -> dict[Key, Work]:
    return {("", Phase.DECODE): Work(flops=reading.total_flops)}


def slides(config: Any) -> bool:
    """Tell whether any part of a configuration limits attention to a window."""
    parts = [config, *(getattr(config, name, None) for name in ("text_config", "decoder", "language_config"))]
    return any(
        getattr(part, "sliding_window", None) and getattr(part, "use_sliding_window", True)
        for part in parts
        if part is not None
    )


def _cache_bytes(steps: _Steps, decode_steps: int) -> int:
    """Bytes of the KV cache when the last token is written: every layer grown to its final length."""
    parts = [getattr(steps.cache, name, None) for name in ("self_attention_cache", "cross_attention_cache")]
    caches = [part for part in parts if part is not None] or [steps.cache]
    now = steps.made.prompt_tokens + len(steps.readings) - 1
    grown = decode_steps - (len(steps.readings) - 1)
    total = 0
    for layer in (layer for cache in caches for layer in getattr(cache, "layers", None) or ()):
        for name in ("keys", "values"):
            tensor = getattr(layer, name, None)
            if tensor is None or tensor.ndim < 3 or not tensor.numel():
                continue
            length = tensor.shape[-2]
            more = grown if length == now or length == len(steps.readings) else 0
            window = getattr(layer, "sliding_window", None)
            final = min(length + more, max(window, length)) if window else length + more
            total += tensor.numel() // length * final * tensor.element_size()
    return total
