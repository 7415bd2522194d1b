"""The memory pass's reading to columns of rows and to its books: who holds what at the moment of the walk's peak."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from layerprof.layers.nesting import LAYERS, accounts, enclosing, short_names
from layerprof.readings import Key, Layer, MemoryReading
from layerprof.records import LedgerColumn

OUTSIDE = "outside layers: "
KV_CACHE, INPUTS, BEFORE, WEIGHTS_ELSEWHERE = "KV cache", "inputs", "there before", "weights elsewhere"
"""Lines of the books that are no layer's."""


def row_fields(reading: MemoryReading | None, weights: Mapping[str, int], key: Key) -> dict[str, Any]:
    """Return the memory columns of a row; `weights` are those of each layer with all inside it.

    Of a layer that was not called in this phase of the memory pass there are weights only.
    """
    calls = reading.calls.get(key) if reading else None
    if reading is None or not calls:
        return {"weights_bytes": weights.get(key[0])}
    return {
        "memory_peak_bytes": reading.peak[key],
        "memory_kept_bytes": round(reading.kept[key] / calls),
        "memory_kept_kv_bytes": round(reading.kept_kv[key] / calls),
        "weights_bytes": weights.get(key[0]),
    }


def weights_inside(layers: Sequence[Layer], reading: MemoryReading | None) -> dict[str, int]:
    """Return the weights of each layer, those of located layers inside it included; empty without a reading."""
    if reading is None:
        return {}
    whole = {layer.name: reading.weights.get(layer.name, 0) for layer in layers}
    for name, around in enclosing(layers).items():
        for holder in around:
            whole[holder] += reading.weights.get(name, 0)
    return whole


def column(layers: Sequence[Layer], reading: MemoryReading | None, reason: str = "") -> LedgerColumn | None:
    """Return the books of the peak: weights and what calls had allocated by layer, the rest by name, in bytes.

    They do not depend on which submodules were asked for: theirs are the found layer's around them. None where no
    memory was asked for (no reading and no `reason`).
    """
    if reading is None:
        return LedgerColumn(layers=None, rest={}, residual=None, total=None, reason=reason) if reason else None
    books: dict[str, int] = {LAYERS: 0}
    for label, size in _parts(layers, reading):
        books[label] = books.get(label, 0) + size
    inside = books.pop(LAYERS)
    rest: dict[str, float | int] = {label: size for label, size in books.items() if size}
    return LedgerColumn(
        layers=inside, rest=rest, residual=reading.total - inside - sum(rest.values()), total=reading.total
    )


def _parts(layers: Sequence[Layer], reading: MemoryReading) -> Iterator[tuple[str, int]]:
    account, named, around = accounts(layers), {layer.name: layer for layer in layers}, enclosing(layers)
    for name, size in reading.weights.items():
        owner = next((one for one in (name, *reversed(around.get(name, ()))) if named[one].found), None)
        yield (WEIGHTS_ELSEWHERE if owner is None else account[owner]), size
    for name, size in reading.at_peak.items():
        yield account.get(name, name), size
    yield WEIGHTS_ELSEWHERE, reading.weights_elsewhere
    yield KV_CACHE, reading.kv_cache
    yield INPUTS, reading.inputs
    yield BEFORE, reading.before
    short = short_names(reading.outside)
    for path, size in reading.outside.items():
        yield f"{OUTSIDE}{short[path]}", size


def facts(reading: MemoryReading) -> dict[str, Any]:
    """Return what the rows do not say: where amounts come from, whose weights are another's, and all weights' bytes."""
    weights = sum(reading.weights.values()) + reading.weights_elsewhere
    return {"source": reading.source, "tied": dict(reading.tied), "weights_bytes": weights}
