"""Traces of devices of every kind: their work is work, and what is not known is told instead of passed over."""

from __future__ import annotations

import pytest
from attributions import selves
from scenario import OUTSIDE, A, Scenario

from layerprof.trace import categories
from layerprof.trace.attribute import attribute
from layerprof.trace.attribution import Unknown

DEVICES = {
    "NVIDIA": ("cuda_runtime", "cudaLaunchKernel", "kernel"),
    "AMD": ("cuda_runtime", "hipModuleLaunchKernel", "kernel"),
    "Intel": ("xpu_runtime", "urEnqueueKernelLaunch", "kernel"),
    "Intel's driver": ("xpu_driver", "zeCommandListAppendLaunchKernel", "kernel"),
    "MTIA": ("mtia_runtime", "runFunction", "mtia_ccp_events"),
    "Enflame": ("gcu_runtime", "topsLaunchKernel", "kernel"),
    "Enflame's copies": ("gcu_driver", "topsMemcpyAsync", "GCU_MEMCPY"),
    "another backend": ("privateuse1_runtime", "launch", "gpu_memset"),
    "torch 1.8": ("Runtime", "cudaLaunchKernel", "Kernel"),
}
"""Category and name of the launch, category of the work."""


def on(device: str) -> Scenario:
    """Return a layer that launches 30 us of work on a device, beside 8 us of an operator and 5 us outside."""
    cat, api, work = DEVICES[device]
    s = Scenario()
    s.layer(A[0], 0, 100)
    s.add("cpu_op", "aten::mm", 5, 8)
    s.kernel(10, 200, 30, A, cat=cat, api=api, work=work)
    s.kernel(150, 300, 5, OUTSIDE, cat=cat, api=api, work=work)
    return s


class TestDevices:
    """Work goes to the layer that launched it, whatever it ran on."""

    @pytest.mark.parametrize("device", sorted(DEVICES))
    def test_work_is_attributed_by_its_launch(self, device: str) -> None:
        """Nothing falls back to operators on the host."""
        result = attribute(on(device).events)
        assert result.device == "cuda"
        assert selves(result) == {A: 30}
        assert result.buckets_ns[OUTSIDE] == 5_000
        assert (result.unknown, result.remarks) == ({}, ())


class TestUnknown:
    """Events of a category that is not known are counted, and told where they may be the work."""

    def test_they_are_counted_in_whole_nanoseconds(self) -> None:
        """By category; those without one together."""
        s = on("NVIDIA")
        s.add("npu_op", "a", 0, 1.5)
        s.add("npu_op", "b", 2, 0.25)
        s.events.append({"ph": "X", "name": "c", "ts": 3, "dur": 7})
        s.events.append({"ph": "X", "cat": 5, "name": "d", "ts": 3, "dur": 1})
        result = attribute(s.events)
        assert dict(result.unknown) == {
            "npu_op": Unknown(2, 1_750),
            categories.NO_CATEGORY: Unknown(1, 7_000),
            "5": Unknown(1, 1_000),
        }
        assert result.remarks == (), "there is work that is known"

    def test_without_known_work_they_may_be_it(self) -> None:
        """Which, for how long, the longest first, and what to do."""
        s = Scenario()
        s.layer(A[0], 0, 100)
        s.add("cpu_op", "aten::mm", 5, 8)
        s.add("hpu_op", "a", 0, 1500)
        s.add("tpu", "b", 0, 2500)
        s.add("marks", "c", 0, 0)
        result = attribute(s.events)
        (remark,) = result.remarks
        assert result.device == "cpu"
        assert "tpu (2.500 ms), hpu_op (1.500 ms) may be such work" in remark
        assert "marks" not in remark
        assert "write `kernel`" in remark

    def test_the_remedy_helps(self) -> None:
        """With the category written as the remark says, the work is attributed."""
        s = on("NVIDIA")
        renamed = [{**event, "cat": "hpu_op"} if event["cat"] == "kernel" else event for event in s.events]
        assert attribute(renamed).device == "cpu"
        again = [{**event, "cat": "kernel"} if event["cat"] == "hpu_op" else event for event in renamed]
        assert selves(attribute(again)) == {A: 30}

    @pytest.mark.parametrize("category", sorted(categories.NEITHER | {"python_function", "user_annotation"}))
    def test_what_is_known_and_no_work_is_not_unknown(self, category: str) -> None:
        """Spans over other work, waiting and counters are passed over in silence."""
        s = on("NVIDIA")
        s.add(category, "span", 0, 1000, tid=9)
        result = attribute(s.events)
        assert (result.unknown, result.total_ns) == ({}, 35_000)

    def test_an_unknown_event_without_times_is_unreadable(self) -> None:
        """It is counted once, as unreadable, not as unknown."""
        s = on("NVIDIA")
        s.events.append({"ph": "X", "cat": "npu_op", "name": "a", "dur": 3})
        s.events.append({"ph": "X", "cat": "tpu", "name": "a", "ts": 1, "dur": float("nan")})
        result = attribute(s.events)
        assert (result.skipped, sum(one.events for one in result.unknown.values())) == (2, 0)


def test_no_category_means_two_things() -> None:
    """Each is of one sort."""
    sorts = (categories.WORK, categories.LAUNCH, categories.OPERATOR, categories.NEITHER, {"user_annotation"})
    assert sum(map(len, sorts)) == len(frozenset().union(*sorts))
