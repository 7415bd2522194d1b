"""Attribution of traces that somebody else recorded, and how readings of several traces add up."""

from __future__ import annotations

import pytest
import traces_synthetic as synthetic
from attributions import selves
from scenario import Scenario

from layerprof.errors import SelectorError
from layerprof.records import Phase
from layerprof.trace.attribute import attribute
from layerprof.trace.attribution import GRAPH, NO_LAUNCH, OUTSIDE
from layerprof.trace.sums import total


class TestForeignTraces:
    """Traces that somebody else recorded."""

    def test_names_choose_ranges(self) -> None:
        """With names given only ranges of these names count, operators too; their patterns may have wildcards."""
        s = Scenario()
        s.add("cpu_op", "vllm::unified_attention", 10, 20)
        s.add("user_annotation", "step", 0, 100)
        s.kernel(12, 200, 5, ("vllm::unified_attention", None))
        s.kernel(50, 210, 7, OUTSIDE)
        assert selves(attribute(s.events, layers=["vllm::*"])) == {("vllm::unified_attention", None): 5}
        assert selves(attribute(s.events)) == {("step", None): 12}

    def test_a_layer_left_out_gives_its_kernels_to_the_one_around(self) -> None:
        """Asked for the layer alone, its submodule's kernels are its own."""
        result = attribute(synthetic.nested_ranges().events, layers=["model.layers.0"])
        assert selves(result) == {("model.layers.0", "decode"): 36}

    def test_a_name_without_a_range_is_refused_with_the_nearest(self) -> None:
        """The message lists what the trace has."""
        with pytest.raises(SelectorError) as caught:
            attribute(synthetic.nested_ranges().events, layers=["model.layer.0"])
        assert "model.layers.0" in caught.value.remedy

    def test_our_ranges_win_over_others(self) -> None:
        """In a trace with our ranges, annotations of other libraries are no layers."""
        s = Scenario()
        s.add("user_annotation", "somebody's", 0, 100)
        s.layer("a", 10, 50)
        s.kernel(20, 100, 5, ("a", "decode"))
        s.kernel(80, 120, 7, OUTSIDE)
        assert selves(attribute(s.events)) == {("a", "decode"): 5}

    def test_a_trace_without_ranges_is_all_outside(self) -> None:
        """Nothing is invented; the total still holds."""
        s = Scenario()
        s.kernel(20, 100, 5, OUTSIDE)
        result = attribute(s.events)
        assert (result.rows, result.buckets_ns[OUTSIDE], result.total_ns) == ((), 5_000, 5_000)

    @pytest.mark.parametrize("name", [None, 5, True, {"a": 1}, ["k"]])
    @pytest.mark.parametrize("category", ["kernel", "cuda_runtime", "cpu_op", "user_annotation", "python_function"])
    def test_a_name_that_is_no_text_costs_its_event(self, name: object, category: str) -> None:
        """It is counted, and the rest is as without it, operators on a CPU too."""
        for whole in (synthetic.nested_ranges(), synthetic.on_a_cpu()):
            odd = {"ph": "X", "cat": category, "name": name, "pid": 1, "tid": 1, "ts": 1, "dur": 2}
            result, without = attribute([*whole.events, odd]), attribute(whole.events)
            assert (result.skipped, result.rows) == (1, without.rows)
            assert (result.total_ns, result.buckets_ns) == (without.total_ns, without.buckets_ns)

    def test_a_range_without_a_name_is_not_taken_for_the_model(self) -> None:
        """Ours around the whole model has the empty name; an empty one of others is told as that."""
        s = Scenario()
        s.add("user_annotation", "", 0, 100)
        s.kernel(10, 50, 5, ("(no name)", None))
        assert selves(attribute(s.events)) == {("(no name)", None): 5}
        ours = Scenario()
        ours.layer("", 0, 100)
        ours.kernel(10, 50, 5, ("", "decode"))
        assert selves(attribute(ours.events)) == {("", "decode"): 5}

    def test_unreadable_events_are_counted(self) -> None:
        """Events that cannot be used are told, not silently dropped."""
        result = attribute(synthetic.untidy().events)
        assert result.skipped == 6
        assert result.events == len(synthetic.untidy().events)


class TestReading:
    """The record that the run stores."""

    def test_several_traces_add_up(self) -> None:
        """Seconds, calls, buckets, tops and batches of all traces together."""
        one, two = attribute(synthetic.nested_ranges().events), attribute(synthetic.orphans().events)
        reading = total([one, two, one])
        key = ("model.layers.0", Phase.DECODE)
        assert reading.busy_s[key] == pytest.approx((18 + 5 + 18) * 1e-6)
        assert reading.calls[key] == 3
        assert reading.buckets_s == pytest.approx({OUTSIDE: 0.0, NO_LAUNCH: 36e-6, GRAPH: 0.0})
        ((name, seconds),) = reading.top[key]
        assert name == "gemm"
        assert seconds == pytest.approx(41e-6)
        assert (reading.batches, reading.device) == (3, "cuda")
        everything = sum(reading.busy_s.values()) + sum(reading.buckets_s.values())
        assert everything == pytest.approx(reading.total_s, rel=1e-12)

    def test_time_of_the_ranges_and_work_of_graphs_are_kept(self) -> None:
        """What a share of the trace is taken of: 100 µs of the layer less its submodule's 40; graphs apart."""
        reading = total([attribute(synthetic.on_a_cpu().events)] * 2)
        mlp = ("model.layers.0.mlp", Phase.DECODE)
        assert reading.host_s == pytest.approx({("model.layers.0", Phase.DECODE): 120e-6, mlp: 80e-6})
        assert reading.graph_s == {}
        graphs = total([attribute(synthetic.graph_inside_a_layer().events)])
        assert graphs.graph_s == pytest.approx({("model.layers.0", Phase.DECODE): 24e-6})

    def test_rows_without_a_phase_are_outside(self) -> None:
        """A foreign range has no phase, so no row of a run; its time is not lost."""
        reading = total([attribute(synthetic.recorded_with_record_function().events)])
        assert reading.busy_s == {}
        assert reading.buckets_s[OUTSIDE] == pytest.approx(180e-6)

    def test_cpu_traces_do_not_mix_with_gpu_traces(self) -> None:
        """Operator time is no kernel time: with GPU work in one trace, a trace without any counts for nothing."""
        reading = total([attribute(synthetic.on_a_cpu().events), attribute(synthetic.orphans().events)])
        assert (reading.device, reading.batches) == ("cuda", 1)
        assert reading.total_s == pytest.approx(41e-6)

    def test_no_traces_are_an_empty_reading(self) -> None:
        """Nothing recorded, nothing claimed."""
        reading = total([])
        assert (reading.busy_s, reading.total_s, reading.batches) == ({}, 0.0, 0)
