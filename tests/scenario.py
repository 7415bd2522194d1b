"""A profiler trace built by hand: its events, and where their time belongs. Microseconds, as in traces."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Event = dict[str, Any]
Label = tuple[str, str | None]

OUTSIDE, NO_LAUNCH, GRAPH = "outside layers", "no launch seen", "graph launch"


@dataclass
class Scenario:
    """Events, and where their GPU time (on a CPU: operator time) belongs."""

    events: list[Event] = field(default_factory=list)
    self_us: dict[Label, float] = field(default_factory=dict)
    buckets_us: dict[str, float] = field(default_factory=lambda: {OUTSIDE: 0, NO_LAUNCH: 0, GRAPH: 0})
    correlations: int = 0
    lost: int = 0
    captured: int = 0
    warm_up: tuple[int, int] = (0, 0)

    @property
    def total_us(self) -> float:
        """Everything."""
        return sum(self.self_us.values()) + sum(self.buckets_us.values())

    def add(self, cat: str, name: str, ts: float, dur: float, *, tid: Any = 1, pid: Any = 100, **args: Any) -> Event:
        """Append one complete event."""
        event: Event = {"ph": "X", "cat": cat, "name": name, "pid": pid, "tid": tid, "ts": ts, "dur": dur, "args": args}
        self.events.append(event)
        return event

    def layer(self, name: str, ts: float, dur: float, call: int = 0, phase: str = "decode", **where: Any) -> None:
        """Append a range as our hooks make it."""
        self.add("cpu_op", f"lp:{name}#{call}|{phase}", ts, dur, **where, **{"External id": 900000 + len(self.events)})

    def kernel(self, launched: float, starts: float, dur: float, belongs: Label | str, **more: Any) -> None:
        """Append a launch and its kernel, which belongs to a label or a bucket.

        `more`: `api` and `cat` of the launch, `work` (category of what runs), `name`, `stream`, `tid`, `pid`.
        """
        self.correlations += 1
        where = {"tid": more.get("tid", 1), "pid": more.get("pid", 100)}
        api = more.get("api", "cudaLaunchKernel")
        self.add(more.get("cat", "cuda_runtime"), api, launched, 1, **where, correlation=self.correlations)
        self.running(starts, dur, belongs, self.correlations, **more)

    def launch(self, at: float, *, api: str = "cudaLaunchKernel", dur: float = 1, **where: Any) -> None:
        """Append a launch that has nothing to show for it."""
        self.correlations += 1
        self.add(where.pop("cat", "cuda_runtime"), api, at, dur, correlation=self.correlations, **where)

    def running(self, starts: float, dur: float, belongs: Label | str, correlation: int | None, **more: Any) -> None:
        """Append a kernel alone; `correlation` None leaves the id out."""
        stream = more.get("stream", 7)
        args = {"device": 0, "stream": stream} | ({} if correlation is None else {"correlation": correlation})
        self.add(more.get("work", "kernel"), more.get("name", "gemm"), starts, dur, pid=0, tid=stream, **args)
        if isinstance(belongs, str):
            self.buckets_us[belongs] += dur
        else:
            self.self_us[belongs] = self.self_us.get(belongs, 0) + dur


A: Label = ("model.layers.0", "decode")
B: Label = ("model.layers.1", "decode")
MLP: Label = ("model.layers.0.mlp", "decode")
HEAD: Label = ("lm_head", "decode")
