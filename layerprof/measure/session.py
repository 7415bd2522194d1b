"""A run in flight: what is loaded, and what each pass has given so far. `Run` is the finished one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from layerprof.readings import KernelReading, Layer, SpanReading, Walked, WorkReading

if TYPE_CHECKING:
    from pathlib import Path

    from layerprof.data.batching import Batch
    from layerprof.data.spec import Dataset
    from layerprof.measure.progress import Progress
    from layerprof.models.compile_layers import Compiled
    from layerprof.models.subject import Subject
    from layerprof.settings import Settings


@dataclass
class Session:
    """Everything the passes share. Each pass fills its own field; an interrupt leaves the later ones empty."""

    settings: Settings
    subject: Subject
    dataset: Dataset
    layers: tuple[Layer, ...]
    selected: tuple[Layer, ...]
    batches: tuple[Batch, ...]
    folder: Path
    progress: Progress
    max_new_tokens: int
    bare: list[Walked] = field(default_factory=list)
    hooked: list[Walked] = field(default_factory=list)
    bare_cpu_s: float = 0.0
    other_load: dict[str, float] = field(default_factory=dict)
    peak_memory_bytes: int | None = None
    spans: SpanReading | None = None
    work: WorkReading | None = None
    kernels: KernelReading | None = None
    energy: Any = None
    reasons: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    passes: dict[str, Any] = field(default_factory=dict)
    compiled: Compiled | None = None
    interrupted: bool = False

    @property
    def device(self) -> str:
        """The device the model lies on: 'cpu' or 'cuda:N'."""
        return str(self.subject.device)
