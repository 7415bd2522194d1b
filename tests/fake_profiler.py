"""A GPU's profiler whose faults are known, and the probe of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fake_counter import FakeClock
from layerprof.hooks.probe import probe

from layerprof.trace.events import WARM_UP
from layerprof.trace.probe import Probe

LAUNCHES, WARM = 40, 64


class FakeProfiler:
    """A GPU and its profiler: session k of the process loses its first `k * per_session` kernel records.

    `slows`: by how much work takes longer once a session was recorded. `blind`: no kernel is ever recorded. `stray`:
    kernels in each trace that no launch made.
    """

    def __init__(self, *, per_session: int = 0, slows: float = 0.0, blind: bool = False, stray: int = 0) -> None:
        self.clock = FakeClock()
        self.per_session, self.slows, self.blind, self.stray = per_session, slows, blind, stray
        self.sessions = 0
        self.log: list[str] = []

    def work(self) -> None:
        """Take ten milliseconds, and more once CUPTI is attached."""
        self.clock.sleep(0.010 * (1 + (self.slows if self.sessions else 0.0)))
        self.log.append("work")

    def recorder(self, devices: Sequence[str], warm_up: bool = True) -> FakeRecording:
        """Make a recording."""
        assert list(devices) == ["cuda:0"]
        return FakeRecording(self, warm_up)


class FakeRecording:
    """One recording of the fake profiler."""

    def __init__(self, profiler: FakeProfiler, warm_up: bool) -> None:
        self.profiler, self.warm_up = profiler, warm_up

    def start(self) -> None:
        """Begin a session."""
        self.profiler.sessions += 1
        self.profiler.log.append("start")

    def stop(self) -> None:
        """End it."""
        self.profiler.log.append("stop")

    def synchronize(self) -> None:
        """Nothing to wait for."""

    def export(self, path: str | Path) -> None:
        """Write launches and kernels, less the records that the session loses."""
        ahead = WARM if self.warm_up else 0
        lost = self.profiler.sessions * self.profiler.per_session
        events: list[dict[str, Any]] = []
        if ahead:
            events.append(event("cpu_op", WARM_UP, 0, 10.0 * ahead))
        for number in range(ahead + LAUNCHES):
            at = 10.0 * number + 1
            events.append(event("cuda_runtime", "cudaLaunchKernel", at, 2, correlation=number + 1))
            if number >= lost and not self.profiler.blind:
                events.append(event("kernel", "gemm", at + 5, 3, tid=7, correlation=number + 1))
        for number in range(self.profiler.stray):
            events.append(event("kernel", "stray", 5000 + number, 1, tid=7, correlation=9000 + number))
        Path(path).write_text(json.dumps({"traceEvents": events}))


def event(category: str, name: str, ts: float, dur: float, tid: int = 1, **args: Any) -> dict[str, Any]:
    """Return a complete event."""
    return {"ph": "X", "cat": category, "name": name, "pid": 1, "tid": tid, "ts": ts, "dur": dur, "args": args}


def probed(profiler: FakeProfiler) -> Probe:
    """Probe it on its own clock."""
    found: Probe = probe("cuda:0", profiler.work, recorder=profiler.recorder, clock=profiler.clock)
    return found
