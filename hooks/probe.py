"""The probe of a profiler: the same short work recorded a few times, after idling, and timed before and after."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Protocol

from layerprof.hooks.energy.clock import HostClock
from layerprof.hooks.recording import Recording

from layerprof.energy.instruments import Clock
from layerprof.trace.attribute import attribute
from layerprof.trace.probe import Probe, ProbeSession

SESSIONS = (False, False, False, True, True)
"""Three recordings as torch makes them, then two as layerprof does: what these prevent shows only beside those."""

IDLE_S = 1.2
"""Rest before each recording: records are lost after the GPU was idle. With `TIMES`, some 10 s in all."""

TIMES = 15


class AnyRecording(Protocol):
    """What makes one recording (`recording.Recording`)."""

    def start(self) -> None:
        """Begin."""

    def stop(self) -> None:
        """End."""

    def export(self, path: str | Path) -> None:
        """Write it as a Chrome trace."""

    def synchronize(self) -> None:
        """Wait for the device."""


def probe(
    device: str,
    work: Callable[[], Any],
    *,
    sessions: Sequence[bool] = SESSIONS,
    idle_s: float = IDLE_S,
    recorder: Callable[..., AnyRecording] = Recording,
    clock: Clock | None = None,
    ended: Callable[[ProbeSession], None] = lambda _: None,
) -> Probe:
    """Record `work` once a session, and return what was seen of its launches and of its time before and after.

    `sessions` says of each whether it is opened as layerprof opens its own. `work` need not wait for the device.
    `ended` is told each session as it ends: a profiler may take the process with it.
    """
    clock = clock or HostClock()
    devices = [device] if device != "cpu" else []
    waiting = recorder(devices)

    def seconds() -> float:
        times = []
        for _ in range(TIMES):
            waiting.synchronize()
            start = clock.now()
            work()
            waiting.synchronize()
            times.append(clock.now() - start)
        return median(times)

    seconds()  # what the first run loads is nobody's time
    bare = seconds(), seconds()
    found = []
    for ours in sessions:
        clock.sleep(idle_s)
        recording = recorder(devices, warm_up=ours)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "trace.json"
            recording.start()
            try:
                work()
                recording.synchronize()
            finally:
                recording.stop()
            recording.export(path)
            trace = attribute(path)
        found.append(ProbeSession.of(ours, trace, seconds()))
        ended(found[-1])
    return Probe(device, os.environ.get("TEARDOWN_CUPTI"), bare, tuple(found))


def cuda_probe(device: str) -> Probe:
    """Probe the profiler of a CUDA device with a few hundred short kernels, which takes some 10 s."""
    return probe(device, short_kernels(device))


def short_kernels(device: str) -> Callable[[], None]:
    """Return work of 400 launches that a GPU does faster than the host launches it, as most decoding is."""
    import torch

    x, y = torch.zeros(2, 256, 256, device=device)

    def work() -> None:
        for _ in range(200):
            torch.mm(x, x, out=y)
            y.add_(1)

    return work
