"""Profiler traces built by hand, each with the answer that its construction says. Microseconds, as in traces."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
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


def late_kernels() -> Scenario:
    """Run kernels long after their layers returned: overlap in time would say B, then none."""
    s = Scenario()
    s.layer(A[0], 0, 100)
    s.layer(B[0], 100, 100)
    s.kernel(10, 120, 70, A)
    s.kernel(110, 190, 500, B)
    s.kernel(90, 700, 30, A)
    return s


def nested_ranges() -> Scenario:
    """Put a submodule inside its layer: the innermost range gets the kernel, before, inside and after it."""
    s = Scenario()
    s.layer(A[0], 0, 100)
    s.layer(MLP[0], 30, 40)
    s.kernel(10, 200, 5, A)
    s.kernel(35, 210, 7, MLP)
    s.kernel(69.999, 220, 11, MLP)
    s.kernel(70, 240, 13, A)
    return s


def streams_and_threads() -> Scenario:
    """Two threads with layers open at the same time, kernels of one layer on two streams at once."""
    s = Scenario()
    s.layer(A[0], 0, 100, tid=1)
    s.layer(B[0], 0, 100, tid=2)
    s.kernel(10, 50, 40, A, tid=1, stream=7)
    s.kernel(12, 60, 40, A, tid=1, stream=13)
    s.kernel(14, 50, 20, B, tid=2, stream=20)
    s.kernel(20, 300, 9, OUTSIDE, tid=3)
    return s


def triton_launches() -> Scenario:
    """Driver launches without any operator around them, as Triton and inductor make them."""
    s = Scenario()
    s.layer(A[0], 0, 100)
    s.kernel(10, 50, 25, A, api="cuLaunchKernelEx", cat="cuda_driver")
    s.kernel(20, 80, 35, A, api="cuLaunchKernel", cat="cuda_driver")
    s.kernel(120, 180, 45, OUTSIDE, api="cuLaunchKernelEx", cat="cuda_driver")
    return s


def copies_and_fills() -> Scenario:
    """Copy and fill: work like kernels."""
    s = Scenario()
    s.layer(A[0], 0, 100)
    s.kernel(10, 50, 25, A, api="cudaMemcpyAsync", work="gpu_memcpy", name="Memcpy HtoD")
    s.kernel(20, 80, 3, A, api="cudaMemsetAsync", work="gpu_memset", name="Memset (Device)")
    s.kernel(150, 190, 6, OUTSIDE, api="cudaMemcpyAsync", work="gpu_memcpy", name="Memcpy DtoH")
    return s


def graph_replay() -> Scenario:
    """Forty kernels of one graph launch: one correlation id, and no way to tell their layers."""
    s = Scenario()
    s.layer(A[0], 0, 100)
    s.kernel(10, 40, 5, A)
    s.correlations += 1
    s.add("cuda_runtime", "cudaGraphLaunch", 120, 4, correlation=s.correlations)
    for node in range(40):
        s.running(200 + 10 * node, 8, GRAPH, s.correlations)
    return s


def graph_inside_a_layer() -> Scenario:
    """Launch a graph inside a layer's range: still in the bucket, and the row tells how much of it is its own."""
    s = Scenario()
    s.layer(A[0], 0, 100)
    s.kernel(5, 40, 2, A)
    s.correlations += 1
    s.add("cuda_runtime", "cudaGraphLaunch", 20, 4, correlation=s.correlations)
    for node in range(3):
        s.running(200 + 10 * node, 8, GRAPH, s.correlations)
    return s


def orphans() -> Scenario:
    """Kernels whose launch lies outside the recorded window, or that bear no correlation id at all."""
    s = Scenario()
    s.layer(A[0], 0, 100)
    s.kernel(10, 50, 5, A)
    s.running(60, 17, NO_LAUNCH, 777)
    s.running(80, 19, NO_LAUNCH, None)
    return s


def lost_records() -> Scenario:
    """Lose the records of the first launches, as CUPTI does: two of a layer, one of none, one of a graph."""
    s = Scenario(lost=4)
    s.layer(A[0], 0, 100)
    s.launch(10)
    s.launch(12, api="cuLaunchKernelEx", cat="cuda_driver")
    s.kernel(20, 60, 5, A)
    s.kernel(30, 70, 7, A)
    s.layer(B[0], 100, 100)
    s.kernel(110, 140, 90, B)
    s.launch(250, api="hipExtModuleLaunchKernel")
    s.launch(260, api="cudaGraphLaunch")
    return s


def nothing_to_record() -> Scenario:
    """Call what runs nothing: fills and copies of no bytes, attributes, events. None of it is lost."""
    s = Scenario()
    s.layer(A[0], 0, 100)
    for at, api in enumerate(
        ("cudaMemsetAsync", "cudaMemcpyAsync", "cudaFuncSetAttribute", "cudaEventRecord", "INVALID")
    ):
        s.launch(10 + 2 * at, api=api)
    s.kernel(30, 60, 5, A)
    return s


def handed_on() -> Scenario:
    """Launch through another call: the driver's inside the runtime's, of which only one has a kernel, or none."""
    s = Scenario(lost=1)
    s.layer(A[0], 0, 100)
    s.kernel(10, 60, 5, A, api="cudaLaunchKernelExC")
    s.launch(10.2, api="cuLaunchKernelEx", cat="cuda_driver", dur=0.5)
    s.launch(20, api="cudaLaunchCooperativeKernel", dur=4)
    s.kernel(21, 70, 5, A, api="cuLaunchCooperativeKernel", cat="cuda_driver")
    s.launch(40, dur=4)
    s.launch(41, api="cuLaunchKernel", cat="cuda_driver", dur=2)
    return s


def captured_in_the_trace() -> Scenario:
    """Capture a graph while recording, with a helper thread's launches in it: they run at its replay."""
    s = Scenario(captured=4, lost=1)
    s.layer(A[0], 0, 100)
    s.kernel(5, 300, 2, A)
    s.launch(10, api="cudaStreamBeginCapture")
    for at in (12, 14, 16):
        s.launch(at)
    s.launch(15, tid=2)
    s.kernel(17, 310, 3, OUTSIDE, tid=3)
    s.launch(18, pid=200)
    s.launch(20, api="cudaStreamEndCapture")
    s.correlations += 1
    s.add("cuda_runtime", "cudaGraphLaunch", 120, 4, correlation=s.correlations)
    for node in range(4):
        s.running(400 + 10 * node, 8, GRAPH, s.correlations)
    return s


def capture_cut_off() -> Scenario:
    """Begin to record inside a capture, and end inside another."""
    s = Scenario(captured=2, lost=1)
    s.launch(1)
    s.launch(2, api="hipStreamEndCapture")
    s.launch(10)
    s.kernel(12, 20, 6, OUTSIDE)
    s.launch(30, api="hipStreamBeginCapture")
    s.launch(31, api="hipLaunchKernel")
    return s


def capture_that_never_ends() -> Scenario:
    """Begin a capture whose end is missing: what its thread runs at once shows that it was over."""
    s = Scenario(captured=2, lost=2)
    s.launch(10, api="cudaStreamBeginCapture")
    s.launch(12)
    s.launch(14)
    s.kernel(20, 60, 5, OUTSIDE)
    s.launch(30)
    s.launch(40, api="cudaGraphLaunch")
    return s


def work_without_ids() -> Scenario:
    """Record kernels that bear no id: their launches are not called lost, but for those that are more than these."""
    s = Scenario(lost=1)
    s.layer(A[0], 0, 100)
    for at in (10, 20, 30):
        s.launch(at)
    s.running(60, 17, NO_LAUNCH, None)
    s.running(80, 19, NO_LAUNCH, None)
    return s


def warm_up_launches() -> Scenario:
    """Open with launches that are part of nothing, two of which the profiler loses: no figure has them."""
    s = Scenario(warm_up=(5, 2))
    s.add("cpu_op", "layerprof: warm-up launches", 0, 50)
    for number in range(5):
        s.add("cpu_op", "aten::add_", 10 * number, 8)
        s.launch(10 * number + 2)
        if number >= 2:
            args = {"correlation": s.correlations, "device": 0, "stream": 7}
            s.add("kernel", "elementwise", 100 + number, 1, pid=0, tid=7, **args)
    s.kernel(2, 130, 3, OUTSIDE, tid=2)
    s.layer(A[0], 60, 100)
    s.kernel(70, 140, 25, A)
    return s


def nothing_but_launches() -> Scenario:
    """Launch on a GPU of whose work nothing was recorded: operators are read, and every launch is told as lost."""
    s = Scenario(lost=2)
    s.layer(A[0], 0, 100)
    s.add("cpu_op", "aten::mm", 10, 20)
    s.launch(15)
    s.launch(120)
    s.self_us = {A: 20}
    return s


def crossing_ranges() -> Scenario:
    """Ranges that overlap without nesting: of those open, the one that began last is innermost."""
    s = Scenario()
    s.layer(A[0], 0, 100)
    s.layer(B[0], 50, 100)
    s.kernel(10, 300, 1, A)
    s.kernel(60, 310, 2, B)
    s.kernel(120, 320, 4, B)
    s.kernel(160, 330, 8, OUTSIDE)
    return s


def zero_length() -> Scenario:
    """Ranges and kernels without length: an empty range contains nothing, an empty kernel weighs nothing."""
    s = Scenario()
    s.layer(A[0], 0, 100)
    s.layer(B[0], 10, 0)
    s.kernel(10, 50, 5, A)
    s.kernel(20, 60, 0, A)
    return s


def several_processes() -> Scenario:
    """Two processes in one file with the same correlation ids and threads: the launch before the kernel counts."""
    s = Scenario()
    s.layer(A[0], 0, 100, pid=100)
    s.layer(B[0], 1000, 100, pid=200)
    s.kernel(10, 50, 5, A, pid=100)
    s.correlations -= 1
    s.kernel(1010, 1050, 9, B, pid=200)
    return s


def untidy() -> Scenario:
    """Write times and ids as text, leave arguments out, mix in events of other kinds and things that are no events."""
    s = Scenario()
    s.layer(A[0], 0, 100)
    s.kernel(10, 50, 5, A)
    kernel = s.events[-1]
    kernel["ts"], kernel["dur"], kernel["args"] = "50", "5", {"correlation": "1"}
    s.events += [
        {"ph": "M", "name": "process_name", "pid": 100, "args": {"name": "python"}},
        {"ph": "i", "name": "Record Window End", "ts": 1, "pid": "", "tid": "", "s": "g"},
        {"ph": "s", "id": 1, "cat": "ac2g", "name": "ac2g", "pid": 100, "tid": 1, "ts": 10},
        {"ph": "X", "name": "no category", "ts": 1, "dur": 1, "pid": 1, "tid": 1},
        {"ph": "X", "cat": "kernel", "name": "no times", "pid": 0, "tid": 7},
        {"ph": "X", "cat": "kernel", "name": "nonsense", "ts": "soon", "dur": 1, "pid": 0, "tid": 7},
        {"ph": "X", "cat": "cpu_op", "name": None, "ts": 1, "dur": 1, "pid": 1, "tid": 1},
        {"ph": "X", "cat": ["list"], "name": "x", "ts": 1, "dur": 1},
        {},
    ]
    s.add("gpu_user_annotation", "lp:model.layers.0#0|decode", 50, 500, pid=0, tid=7)
    s.add("kernel", "not a number", float("nan"), 1, pid=0, tid=7)
    s.add("kernel", "negative", 60, -5, pid=0, tid=7)
    del s.add("cuda_runtime", "cudaDeviceSynchronize", 70, 1)["args"]
    return s


def recorded_with_record_function() -> Scenario:
    """Somebody's own `record_function` ranges; the profiler's steps are no ranges, nor are annotations on the GPU."""
    s = Scenario()
    s.add("user_annotation", "ProfilerStep#3", 0, 1000)
    s.add("user_annotation", "encode", 10, 100)
    s.add("user_annotation", "decode", 200, 100)
    s.add("user_annotation", "decode", 400, 100)
    s.add("gpu_user_annotation", "encode", 500, 300, pid=0, tid=7)
    s.kernel(20, 500, 30, ("encode", None))
    s.kernel(210, 600, 40, ("decode", None))
    s.kernel(410, 700, 50, ("decode", None))
    s.kernel(150, 800, 60, OUTSIDE)
    return s


def recorded_with_stack() -> Scenario:
    """Modules of `with_stack`, between Python functions that are no modules."""
    s = Scenario()
    s.add("python_function", "generate.py(10): generate", 0, 1000, **{"Python id": 1})
    s.add("python_function", "nn.Module: Block_0", 10, 100, **{"Python id": 2, "Python module id": 0})
    s.add("python_function", "block.py(3): forward", 11, 98, **{"Python id": 3})
    s.add("python_function", "nn.Module: Linear_1", 40, 30, **{"Python id": 4, "Python module id": 1})
    s.kernel(20, 500, 30, ("Block_0", None))
    s.kernel(50, 600, 40, ("Linear_1", None))
    s.kernel(200, 700, 50, OUTSIDE)
    return s


def older_categories() -> Scenario:
    """Name launches and work as older or rewritten traces do."""
    s = Scenario()
    s.layer(A[0], 0, 100)
    s.kernel(10, 50, 5, A, cat="runtime")
    s.kernel(20, 60, 7, A, cat="Runtime", work="Kernel")
    s.kernel(30, 70, 9, A, cat="Runtime", work="Memcpy")
    return s


def on_a_cpu() -> Scenario:
    """No GPU work: each moment in an operator goes to the innermost range open on that thread."""
    s = Scenario()
    s.layer(A[0], 0, 100)
    s.layer(MLP[0], 40, 40)
    s.add("cpu_op", "aten::linear", 10, 20)
    s.add("cpu_op", "aten::addmm", 12, 10)
    s.add("cpu_op", "aten::linear", 50, 25)
    s.add("cpu_op", "aten::silu", 90, 5)
    s.add("cpu_op", "aten::argmax", 150, 30)
    s.add("cpu_op", "aten::mm", 10, 7, tid=2)
    s.self_us = {A: 20 + 5, MLP: 25}
    s.buckets_us[OUTSIDE] = 30 + 7
    return s


def on_a_cpu_crossing() -> Scenario:
    """Hold a range in an operator, and cut one by a range's end: every moment is counted once."""
    s = Scenario()
    s.add("cpu_op", "CustomFunction", 0, 100)
    s.layer(A[0], 20, 50)
    s.add("cpu_op", "aten::mm", 30, 60)
    s.self_us = {A: 50}
    s.buckets_us[OUTSIDE] = 20 + 30
    return s


SCENARIOS: dict[str, Callable[[], Scenario]] = {
    f.__name__: f
    for f in (
        late_kernels,
        nested_ranges,
        streams_and_threads,
        triton_launches,
        copies_and_fills,
        graph_replay,
        graph_inside_a_layer,
        orphans,
        lost_records,
        nothing_to_record,
        handed_on,
        captured_in_the_trace,
        capture_cut_off,
        capture_that_never_ends,
        work_without_ids,
        warm_up_launches,
        nothing_but_launches,
        crossing_ranges,
        zero_length,
        several_processes,
        untidy,
        recorded_with_record_function,
        recorded_with_stack,
        older_categories,
        on_a_cpu,
        on_a_cpu_crossing,
    )
}

WITHOUT_GPU_WORK = ("on_a_cpu", "on_a_cpu_crossing", "nothing_but_launches")


def large(kernels: int, seed: int = 0) -> tuple[Iterator[Event], dict[Label, float]]:
    """Return events of a decode of `kernels` kernels in 36 layers, and the layers' GPU time; six events a kernel.

    As torch writes them: three operators, a launch, a kernel and the two ends of a flow for each kernel.
    """
    rng = random.Random(seed)
    answer: dict[Label, float] = {}

    def events() -> Iterator[Event]:
        gpu, per_layer = 0.0, 24
        for number in range(kernels):
            at, correlation = 12.0 * number, number + 1
            call, place = divmod(number, per_layer)
            step, layer = divmod(call, 36)
            label = (f"model.language_model.layers.{layer}", "decode")
            if place == 0:
                name = f"lp:{label[0]}#{step}|decode"
                yield _event("cpu_op", name, at - 0.5, 12.0 * per_layer - 1, {"External id": 4 * kernels + call})
            dur = round(rng.uniform(2, 9), 3)
            gpu = max(gpu, at + 8) + 1
            answer[label] = answer.get(label, 0) + dur
            for depth, name in enumerate(("aten::linear", "aten::matmul", "aten::mm")):
                ids = {"External id": 3 * number + depth + 1, "Record function id": 0, "Ev Idx": 3 * number + depth}
                yield _event("cpu_op", name, at + depth, 10 - 2 * depth, ids)
            launch = {"cbid": 211, "correlation": correlation, "External id": 3 * number + 3}
            yield _event("cuda_runtime", "cudaLaunchKernel", at + 3, 4, launch)
            grid = {"grid": [64, 1, 1], "block": [128, 1, 1], "device": 0, "stream": 7, "registers per thread": 96}
            name = f"sm90_xmma_gemm_f16f16_f16f32_f32_tn_n_tilesize{place}x128x64_warpgroupsize1x1x1_cublas"
            yield _event("kernel", name, gpu, dur, {**grid, "correlation": correlation}, pid=0, tid=7)
            gpu += dur
            flow = {"id": correlation, "cat": "ac2g", "name": "ac2g"}
            yield {"ph": "s", **flow, "pid": 100, "tid": 1, "ts": at + 3}
            yield {"ph": "f", **flow, "pid": 0, "tid": 7, "ts": gpu, "bp": "e"}

    return events(), answer


def _event(cat: str, name: str, ts: float, dur: float, args: dict[str, Any], **where: int) -> Event:
    times = {"ts": round(ts, 3), "dur": dur}
    return {"ph": "X", "cat": cat, "name": name, "pid": 100, "tid": 1, **where, **times, "args": args}
