"""What a run is made of: what was asked, and what the passes have read. `records.Run` is the finished one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from layerprof.energy.measured import EnergyData
from layerprof.readings import (
    KernelReading,
    Layer,
    Made,
    MemoryReading,
    Questions,
    SpanReading,
    Walked,
    WeightReading,
    WorkReading,
)

if TYPE_CHECKING:
    from layerprof.data.batching import Batches
    from layerprof.data.spec import Dataset
    from layerprof.settings import Settings


OWN_FACTS = frozenset(
    {
        *("bare_s", "latency_s", "spans_dropped", "decode_by_step", "reasons", "energy", "other_load"),
        *("compile", "graph", "not_finite_batches", "cross_check", "quality_s", "prefetch", "flops_batches"),
        *("memory", "memory_batches"),
    }
)
"""Names under `Run.passes` that are the run's own; a hook's reading stands there under the hook's name."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked of a run, as it took effect; the same from its first pass to its last.

    `model` is where the model came from (`provenance`), `layers` are all that carry hooks, `selected` those that get
    rows, `device` is the one the model lies on, 'cpu' or 'cuda:N'. Instruments walk the first `instrumented` batches.
    """

    settings: Settings
    model: Mapping[str, Any]
    device: str
    dataset: Dataset
    batches: Batches
    layers: tuple[Layer, ...]
    selected: tuple[Layer, ...]
    max_new_tokens: int
    output: str
    instrumented: int

    @property
    def part(self) -> Sequence[int]:
        """The numbers of the batches that the instruments walk."""
        return range(min(self.instrumented, len(self.batches)))


@dataclass
class Read:
    """What was read. Each pass fills its own fields; an interrupt leaves the later ones empty.

    `questions`, `made` and `bare_cpu_s` (processor seconds) are of the batches in `bare`, one each. `hooked` are those
    of the instrumented part. `reasons` says why something was not read, `warnings` what a reader of the run must know.
    """

    questions: list[Questions] = field(default_factory=list)
    made: list[Made] = field(default_factory=list)
    bare: list[Walked] = field(default_factory=list)
    hooked: list[Walked] = field(default_factory=list)
    bare_cpu_s: list[float] = field(default_factory=list)
    other_load: dict[str, float] = field(default_factory=dict)
    peak_memory_bytes: int | None = None
    spans: SpanReading | None = None
    work: WorkReading | None = None
    kernels: KernelReading | None = None
    energy: EnergyData | None = None
    memory: MemoryReading | None = None
    weights: WeightReading | None = None
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
        """Seconds that the answering of all batches took in the bare pass."""
        return sum(walked.latency_s for walked in self.bare)

    @property
    def part(self) -> list[Walked]:
        """What the bare pass answered of the instrumented batches: of those that the latency pass has walked, too."""
        return self.bare[: len(self.hooked)]

    @property
    def instrumented(self) -> int:
        """Samples that the instruments have walked."""
        return sum(walked.rows for walked in self.part)

    @property
    def part_s(self) -> float:
        """Seconds that the answering of the instrumented batches took in the bare pass."""
        return sum(walked.latency_s for walked in self.part)
