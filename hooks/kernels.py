"""Kernels: which layer launched the work that ran, by torch.profiler with one range for each layer call."""

from __future__ import annotations

import gzip
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from layerprof.hooks.base import LayerHook
from layerprof.hooks.recording import Recording, sessions

from layerprof.errors import RunFailedError
from layerprof.machine.internals import range_class
from layerprof.readings import KernelReading, Layer
from layerprof.records import Phase
from layerprof.trace.attribute import attribute
from layerprof.trace.events import PREFIX
from layerprof.trace.for_tensorboard import rewrite_for_tensorboard
from layerprof.trace.sums import total

if TYPE_CHECKING:
    import torch
    from torch import nn

FOLDER = "trace"
"""Folder of the traces inside the given one."""

WORKER = "layers"
"""Name under which torch-tb-profiler lists the traces."""


class KernelsHook(LayerHook):
    """Records every batch with torch.profiler; each layer call opens a range `lp:<layer>#<call>|<phase>`.

    Use it for a few batches: recording costs time and space. For each batch, `folder/trace` gets
    `batch<index>.json.gz`, which Perfetto opens, and the same rewritten so that torch-tb-profiler shows the layers.
    `files` has the paths by name. A batch that raises leaves no file. Decode steps that are replayed from a CUDA graph
    have their kernels by layer where the graph was captured inside the same batch.
    """

    def __init__(
        self, model: nn.Module, layers: Sequence[Layer], device: str | torch.device = "cpu", folder: str | Path = "."
    ) -> None:
        super().__init__(model, layers)
        self.folder = Path(folder) / FOLDER
        self.files: dict[str, Path] = {}
        self._cuda = str(device).startswith("cuda")
        self._devices = _devices(model, str(device)) if self._cuda else ()
        self._prefixes = [f"{PREFIX}{layer.name}#" for layer in self.layers]
        self._calls = [0] * len(self.layers)
        self._open: list[tuple[int, Any]] = []
        self._recording = False
        self._traces: list[Path] = []
        self._range = range_class()

    @staticmethod
    def recorded_before() -> bool:
        """Whether this process has recorded a GPU already: CUPTI stays attached and slows what is timed after it."""
        return sessions() > 0

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            if self._cuda:
                self._warm_up()
        except BaseException:
            self.detach()
            raise
        return self

    def _warm_up(self) -> None:
        """Record nothing much once: CUPTI instruments the loaded modules at its first use, which would fill a trace.

        Not nothing at all: a first session without work can leave CUPTI dead for the rest of the process.
        """
        recording = Recording(self._devices)
        recording.start()
        recording.stop()

    @contextmanager
    def batch(self, index: int, prompt: int | None = None) -> Iterator[None]:
        """Wrap one batch's `generate()`; its trace is complete, since the device is idle before recording stops."""
        recording = Recording(self._devices)
        with super().batch(index, prompt):
            recording.start()
            self._recording = True
            try:
                yield
                recording.synchronize()
            finally:
                self._recording = False
                while self._open:
                    self._close()
                recording.stop()
        self._save(recording, index)

    def _save(self, recording: Recording, index: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        raw, packed = self.folder / f"batch{index}.json", self.folder / f"batch{index}.json.gz"
        try:
            recording.export(raw)
            with raw.open("rb") as source, gzip.open(packed, "wb", compresslevel=2) as target:
                shutil.copyfileobj(source, target, 1 << 20)
        finally:
            raw.unlink(missing_ok=True)
        self._traces.append(packed)
        self.files[f"trace_{index}"] = packed
        self.files[f"tensorboard_{index}"] = rewrite_for_tensorboard(packed, self.folder, f"{WORKER}.{time.time_ns()}")

    def started(self, slot: int, phase: Phase) -> None:
        """Open the call's range."""
        if self._recording:
            call = self._calls[slot]
            self._calls[slot] = call + 1
            opened = self._range(f"{self._prefixes[slot]}{call}|{phase.value}")
            opened.__enter__()
            self._open.append((slot, opened))

    def ended(self, slot: int) -> None:
        """Close the call's range, and those inside it that were left open."""
        if any(opened == slot for opened, _ in self._open):
            while self._open[-1][0] != slot:
                self._close()
            self._close()

    def _close(self) -> None:
        self._open.pop()[1].__exit__(None, None, None)

    def reading(self) -> KernelReading:
        """Attribute the traces of all finished batches and add them up."""
        # Every layer has its range, also where it was captured: what has none is not to be guessed at.
        reading = total([attribute(trace, infer=False) for trace in self._traces])
        if self._cuda and self._traces and reading.device == "cpu":
            raise RunFailedError(
                "The profiler recorded no GPU work although the model ran on a GPU.",
                "CUPTI may be in use by another profiler or not permitted here; run without a trace (--no-trace).",
            )
        return reading


def _devices(model: nn.Module, device: str) -> tuple[str, ...]:
    """Return every GPU that holds a part of the model, and the one that it is said to be on."""
    return tuple(sorted({device} | {str(p.device) for p in model.parameters() if p.device.type == "cuda"}))
