"""Traces that lack something: launches without a record, graphs that were captured, work without a launch."""

from __future__ import annotations

from collections.abc import Callable

from scenario import NO_LAUNCH, OUTSIDE, A, B, Label, Scenario


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
    """Capture a graph while recording, with a helper thread's launch in it: they run at its replay, each in its place.

    The second of the four was launched by the helper, outside any layer.
    """
    s = Scenario(captured=4, lost=1)
    s.layer(A[0], 0, 100)
    s.kernel(5, 300, 2, A)
    s.launch(10, api="cudaStreamBeginCapture")
    for at in (12, 14, 16):
        s.launch(at)
    s.launch(13, tid=2)
    s.kernel(17, 310, 3, OUTSIDE, tid=3)
    s.launch(18, pid=200)
    s.launch(20, api="cudaStreamEndCapture")
    s.correlations += 1
    s.add("cuda_runtime", "cudaGraphLaunch", 120, 4, correlation=s.correlations)
    owners: tuple[Label | str, ...] = (A, OUTSIDE, A, A)
    for node, belongs in enumerate(owners):
        s.running(400 + 10 * node, 8, belongs, s.correlations)
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


SCENARIOS: dict[str, Callable[[], Scenario]] = {
    f.__name__: f
    for f in (
        lost_records,
        nothing_to_record,
        handed_on,
        captured_in_the_trace,
        capture_cut_off,
        capture_that_never_ends,
        work_without_ids,
        warm_up_launches,
        nothing_but_launches,
    )
}
