"""What the memory pass gives: what calls hold and keep, and who holds what at the walk's peak."""

from __future__ import annotations

from dataclasses import dataclass, field

from layerprof.readings.layers import Key


@dataclass(frozen=True, slots=True)
class MemoryReading:
    """What the memory pass gives, in bytes.

    By layer and phase, layers inside included: `peak` is the most that one call held beyond what was there when it
    began, its output included; `kept` what all its `calls` have left behind together: what there was more after each
    than before, less its output; below zero where they gave more back. `kept_kv` is the part of it in the KV cache.
    Calls that raised are in none.

    `weights` are those of each layer that lie in memory, each storage under one layer: the innermost that has it, the
    first of several; `tied[name]` is the layer under which another's weights stand. `weights_elsewhere` are of none.

    At the moment of the walk's peak: `at_peak` is by layer what its calls had allocated and not yet freed, each byte
    under the innermost layer; `kv_cache` what calls had left in the KV cache by then, `inputs` the batch's tensors,
    `before` what else lay there when the walk began, `outside` by module what was allocated under no layer. Together
    with the weights they are to come to `total`, the peak of the whole walk by a counter of its own, which `source`
    names.
    """

    peak: dict[Key, int]
    kept: dict[Key, int]
    kept_kv: dict[Key, int]
    calls: dict[Key, int]
    weights: dict[str, int]
    weights_elsewhere: int
    at_peak: dict[str, int]
    kv_cache: int
    inputs: int
    before: int
    outside: dict[str, int]
    total: int
    source: str
    tied: dict[str, str] = field(default_factory=dict)
