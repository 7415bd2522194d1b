"""What a run is made of: what was asked, and what the passes have read. `records.Run` is the finished one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from layerprof.energy.measured import EnergyData
from layerprof.readings import KernelReading, Layer, MemoryReading, SpanReading, Walked, WorkReading

if TYPE_CHECKING:
    from layerprof.data.batching import Batch
    from layerprof.data.spec import Dataset
    from layerprof.settings import Settings


OWN_FACTS = frozenset(
    {
        *("bare_s", "latency_s", "spans_dropped", "decode_by_step", "reasons", "energy", "other_load"),
        *("compile", "graph", "not_finite_batches", "cross_check", "quality_s", "memory"),
    }
)
"""Names under `Run.passes` that are the run's own; a hook's reading stands there under the hook's name."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked of a run, as it took effect; the same from its first pass to its last.

    `model` is where the model came from (`provenance`), `layers` are all that carry hooks, `selected` those that get
    rows, `device` is the one the model lies on, 'cpu' or 'cuda:N'.
    """

    settings: Settings
    model: Mapping[str, Any]
    device: str
    dataset: Dataset
    batches: tuple[Batch, ...]
    layers: tuple[Layer, ...]
    selected: tuple[Layer, ...]
    max_new_tokens: int
    output: str


@dataclass
class Read:
    """What was read. Each pass fills its own fields; an interrupt leaves the later ones empty.

    `reasons` says why something was not read, `warnings` what a reader of the run must know.
    """

    bare: list[Walked] = field(default_factory=list)
    hooked: list[Walked] = field(default_factory=list)
    bare_cpu_s: float = 0.0
    other_load: dict[str, float] = field(default_factory=dict)
    peak_memory_bytes: int | None = None
    spans: SpanReading | None = None
    work: WorkReading | None = None
    kernels: KernelReading | None = None
    energy: EnergyData | None = None
    memory: MemoryReading | None = None
    passes: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    interrupted: bool = False

    @property
    def rows(self) -> int:
        """Samples that the bare pass answered."""
        return sum(walked.rows for walked in self.bare)

    @property
    def wall_s(self) -> float:
        """Seconds that the bare pass took, all batches together."""
        return sum(walked.latency_s for walked in self.bare)
