"""What the trace pass gives: busy seconds by layer, what is no layer's, and what the profiler lost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from layerprof.records import Phase


@dataclass(frozen=True, slots=True)
class Lost:
    """Launches whose work the profiler did not record: how many `of` all, and where they were made.

    What they ran is in no figure. `may_be_s` is what it comes to at the mean of the recorded launches of the same
    layer, None where nothing like them was recorded. `places[(name, phase)]` counts those inside a layer.
    """

    launches: int = 0
    of: int = 0
    may_be_s: float | None = 0.0
    places: dict[tuple[str, Phase], int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KernelReading:
    """What the trace pass gives: busy seconds by innermost layer range, and the buckets that are no layer's.

    On a CPU `busy` is the time inside operators instead of GPU kernels; `device` says which. `buckets` holds
    `outside layers`, `no launch seen` and `graph launch`; together with `busy` they add up to `total_s`. `top`
    names the heaviest kernels of each layer. `whole_s` and `host_whole_s` are `busy_s` and `host_s` with everything
    that was launched inside the layer's calls. `calls[(name, phase)]` is how many calls the busy seconds belong to: the
    trace covers the first `batches` batches only. `host_s` is the time on the launching thread with that range
    innermost, so on a CPU `busy_s <= host_s`. `graph_s` is the work of CUDA graphs launched inside the range, which is
    in the bucket `graph launch` and not in `busy_s`. `lost` is what the profiler did not record.
    """

    busy_s: dict[tuple[str, Phase], float]
    calls: dict[tuple[str, Phase], int]
    buckets_s: dict[str, float]
    total_s: float
    top: dict[tuple[str, Phase], tuple[tuple[str, float], ...]]
    device: Literal["cuda", "cpu"]
    batches: int
    host_s: dict[tuple[str, Phase], float] = field(default_factory=dict)
    graph_s: dict[tuple[str, Phase], float] = field(default_factory=dict)
    lost: Lost = field(default_factory=Lost)
    whole_s: dict[tuple[str, Phase], float] = field(default_factory=dict)
    host_whole_s: dict[tuple[str, Phase], float] = field(default_factory=dict)
