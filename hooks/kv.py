"""KV-cache traffic of one call of a layer, read off the cache object before and after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from layerprof.machine.internals import times_written
from layerprof.machine.modules import told
from layerprof.models.packed import Packed

STATES = ("conv_states", "recurrent_states")


@dataclass(frozen=True, slots=True)
class Before:
    """A cache layer as the call found it: the tensors themselves tell afterwards whether they were written."""

    layer: Any
    keys: Tensor | None
    written: int | None
    length: int
    read: int


def layer_index(module: nn.Module) -> int | None:
    """Which layer of the cache a block owns: `layer_idx` of the block or of its attention; None for several blocks."""
    found = [told(part, "layer_idx") for part in module.modules()]
    indices = {index for index in found if isinstance(index, int)}
    return indices.pop() if len(indices) == 1 else None


def before_call(index: int | None, inputs: dict[Any, Any]) -> tuple[Before, ...]:
    """Note what is cached when a block is called: this block's keys and values, and an encoder's beside them."""
    return () if index is None else tuple(_note(layer) for layer in layers_of(cache_in(inputs), index))


def cache_in(inputs: dict[Any, Any]) -> Any:
    """Return the cache among a block's inputs; None without one."""
    return next((value for value in inputs.values() if hasattr(value, "get_seq_length")), None)


def layers_of(cache: Any, index: int) -> list[Any]:
    """Return what a cache has for a block: one layer, or two where it holds an encoder's beside the decoder's."""
    parts = [getattr(cache, name, None) for name in ("self_attention_cache", "cross_attention_cache")]
    caches = [part for part in parts if part is not None] or [cache]
    return [layer[index] for c in caches if len(layer := getattr(c, "layers", None) or ()) > index]


def tensors_of(layer: Any) -> list[Tensor]:
    """Return all that a layer of a cache keeps: keys and values in any form, recurrent states."""
    held = list(vars(layer).values())
    inner = [part for value in held if isinstance(value, dict) for part in value.values()]
    inner += [part for value in held if isinstance(value, (list, tuple)) for part in value]
    return [value for value in (*held, *inner) if isinstance(value, Tensor)]


def _note(layer: Any) -> Before:
    keys = _tensor(layer, "keys")
    if keys is None or not keys.numel():
        return Before(layer, None, None, 0, _state_bytes(layer))
    length = _filled(layer, keys)
    return Before(layer, keys, times_written(keys), length, _per_position(layer, keys) * length + _state_bytes(layer))


def after_call(found: tuple[Before, ...], queries: int) -> int:
    """Bytes read from and written to the cache: all positions that were cached before, and the new ones."""
    return sum(before.read + _written(before, queries) for before in found)


def paged(index: int | None, inputs: dict[Any, Any], packed: Packed | None) -> int:
    """Bytes read from and written to the pages of continuous batching, which hold the positions of all requests."""
    cache = inputs.get("cache")
    if packed is None or cache is None or index is None:
        return 0
    allocator = (told(cache, "layer_to_allocator") or {}).get(index)
    if allocator is not None:
        positions = sum(allocator.get_seqlen_k(before, new) for new, before in packed.sequences)
        return int(positions * allocator.bytes_per_page // allocator.tokens_per_page)
    return _in_older_pages(cache, index, packed)


def _in_older_pages(cache: Any, index: int, packed: Packed) -> int:
    """Return the bytes where layers share tables, as in transformers 5.17; a window of one stands for none there."""
    place = (told(cache, "layer_index_to_group_indices") or {}).get(index)
    if place is None:
        return 0
    window = cache.sliding_windows[index]
    positions = sum(new + (before if window == 1 else min(before, window - 1)) for new, before in packed.sequences)
    tables = cache.key_cache[place[1]], cache.value_cache[place[1]]  # (positions, heads, width)
    return int(positions * sum(one[0].numel() * one.element_size() for one in tables))


def _written(before: Before, queries: int) -> int:
    layer = before.layer
    keys = _tensor(layer, "keys")
    states = _state_bytes(layer)
    if keys is None or not keys.numel():
        return states
    untouched = keys is before.keys and times_written(keys) == before.written
    if untouched and (before.written is not None or not is_static(layer)):
        return states  # cross-attention in a decode step only reads
    growth = keys.shape[-2] - before.length
    fixed = is_static(layer) or getattr(layer, "is_sliding", False)
    positions = min(queries, keys.shape[-2]) if fixed or growth <= 0 else growth
    return positions * _per_position(layer, keys) + states


def is_static(layer: Any) -> bool:
    """Whether a cache layer is allocated at its full length from the start."""
    return getattr(layer, "max_cache_len", None) is not None


def _per_position(layer: Any, keys: Tensor) -> int:
    values = _tensor(layer, "values")
    both = keys.numel() * keys.element_size()
    both += values.numel() * values.element_size() if values is not None else 0
    return both // max(keys.shape[-2], 1)


def _filled(layer: Any, keys: Tensor) -> int:
    length = int(keys.shape[-2])
    return min(int(layer.get_seq_length()), length) if is_static(layer) else length


def _state_bytes(layer: Any) -> int:
    """Bytes of the recurrent state of a linear-attention layer: read and written whole."""
    found = [getattr(layer, name, None) for name in STATES]
    states = [state for group in found for state in (group.values() if isinstance(group, dict) else (group,))]
    return sum(t.numel() * t.element_size() for t in states if isinstance(t, Tensor))


def _tensor(layer: Any, name: str) -> Tensor | None:
    value = getattr(layer, name, None)
    return value if isinstance(value, Tensor) else None
