"""Profiler traces built by hand, each with the answer that its construction says. Microseconds, as in traces."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import traces_lost
from scenario import GRAPH, HEAD, MLP, NO_LAUNCH, OUTSIDE, A, B, Event, Label, Scenario


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


def equal_starts() -> Scenario:
    """Begin a layer and its submodule at the same nanosecond: the shorter is inside, whichever is written first."""
    s = Scenario()
    s.layer(A[0], 0, 100)
    s.layer(MLP[0], 0, 40)
    s.layer(B[0], 200, 40)
    s.layer(HEAD[0], 200, 100)
    s.kernel(10, 300, 5, MLP)
    s.kernel(50, 310, 7, A)
    s.kernel(210, 320, 11, B)
    s.kernel(250, 330, 13, HEAD)
    return s


def equal_times() -> Scenario:
    """Open and close ranges at the same nanoseconds: the longer name is inside, as a submodule's is longer."""
    s = Scenario()
    s.layer(MLP[0], 0, 100)
    s.layer(A[0], 0, 100)
    s.layer(HEAD[0], 200, 100)
    s.layer("language", 200, 100)
    s.kernel(10, 300, 5, MLP)
    s.kernel(210, 310, 7, ("language", "decode"))
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


def on_a_cpu_together() -> Scenario:
    """Begin operators and ranges at the same nanosecond: of each the shorter is inside."""
    s = Scenario()
    s.layer(A[0], 0, 100)
    s.layer(MLP[0], 0, 40)
    s.add("cpu_op", "aten::linear", 0, 60)
    s.add("cpu_op", "aten::addmm", 0, 50)
    s.self_us = {MLP: 40, A: 20}
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
        crossing_ranges,
        equal_starts,
        equal_times,
        zero_length,
        several_processes,
        untidy,
        recorded_with_record_function,
        recorded_with_stack,
        older_categories,
        on_a_cpu,
        on_a_cpu_crossing,
        on_a_cpu_together,
    )
} | traces_lost.SCENARIOS

WITHOUT_GPU_WORK = ("on_a_cpu", "on_a_cpu_crossing", "on_a_cpu_together", "nothing_but_launches")


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
