"""The prompt of an outermost call: how many positions it adds to the cache before decoding begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from layerprof.models import arguments

if TYPE_CHECKING:
    from torch import nn

CACHES = ("past_key_values", "past_key_value", "layer_past", "cache_params", "cache", "state", "past")
"""Names under which models are given what they remember."""


class Cached(NamedTuple):
    """What a model remembers already: whether anything, and how many positions where it tells."""

    filled: bool
    length: int | None


def prompt_of(model: nn.Module, entrance: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int | None:
    """Return how many positions of a prompt an outermost call brings, from what its `entrance` was given.

    `generate` brings those of its ids (or embeddings) that are not in the cache it was given; `forward` all of them,
    but 0 where it is given one position and a cache that is filled: a decode step. Of an encoder-decoder it is the
    decoder's prompt, of which `generate` makes at least one position itself; of `generate_batch` the shortest of its
    prompts. None where that cannot be told; nothing raises.

    Several positions given to `forward` with a filled cache may be a chunk of a prompt or a check of drafted tokens,
    and one may be a prompt's last chunk: the arguments are the same, so the first are a prompt and the last is decode.
    """
    try:
        new = _new_positions(_decodes_apart(model), entrance, args, kwargs)
        if new is None:
            return None
        found = cached(args, kwargs)
        if found is None or not found.filled:
            return new
        if entrance != "generate":
            return 0 if new == 1 else new
        if found.length is None:
            return None
        return new - found.length if new > found.length else new
    except Exception:  # a cache, or a configuration, of the caller's own making
        return None


def _new_positions(decodes_apart: bool, entrance: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int | None:
    if entrance == "generate_batch":
        return min(map(len, kwargs["inputs"] if "inputs" in kwargs else args[0]))
    decoder = "decoder_input_ids" in kwargs or "decoder_inputs_embeds" in kwargs
    prefix = "decoder_" if decoder else ""
    if decodes_apart and not decoder:
        return 1 if entrance == "generate" else None
    given = [kwargs.get(prefix + name) for name in ("inputs_embeds", "input_ids")]
    given += [] if decoder else [kwargs.get("inputs"), *args[:1]]
    for value in given:
        found = arguments.operand(value)
        if found is None or len(found.shape) != (2 if found.integer else 3) or not found.shape[1]:
            continue
        if found.integer or value is given[0]:
            return found.shape[1]
    return None


def _decodes_apart(model: nn.Module) -> bool:
    """Whether the ids that the model is given are an encoder's."""
    config = getattr(model, "config", None)
    text = getattr(config, "get_text_config", None)
    return any(getattr(c, "is_encoder_decoder", False) is True for c in (config, text() if text else None))


def cached(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Cached | None:
    """Return how far the cache among a call's arguments is filled; None where there is none, or it cannot be told."""
    named = [kwargs[name] for name in CACHES if kwargs.get(name) is not None]
    for value in (*named, *args[1:], *kwargs.values()):
        if callable(getattr(type(value), "get_seq_length", None)):
            return _of_cache(value)
    return _of_states(named[0]) if named else None


def _of_cache(cache: Any) -> Cached | None:
    try:
        length = int(cache.get_seq_length())
    except Exception:  # one of states alone, which have no length
        try:
            return Cached(bool(cache.has_previous_state()), None)
        except Exception:
            return None
    return Cached(length > 0, length)


def _of_states(value: Any) -> Cached | None:
    """Tell of a plain tuple or list: keys and values of each layer, (..., positions, width), or recurrent states."""
    if not issubclass(type(value), tuple | list):
        return None
    found = next(arguments.operands(value), None)
    pairs = bool(value) and issubclass(type(value[0]), tuple | list)
    if found is None:
        return Cached(False, 0) if not value else None
    length = found.shape[-2] if pairs and len(found.shape) > 2 else None
    return Cached(length != 0, length)
