"""Attribution: every kernel to the layer that launched it, and the books exact to the nanosecond."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import traces_lost
import traces_synthetic as synthetic
from attributions import buckets, row, selves
from hypothesis import given, settings
from hypothesis import strategies as st
from scenario import Scenario

from layerprof.records import Phase
from layerprof.trace.attribute import attribute
from layerprof.trace.attribution import GRAPH, NO_LAUNCH, OUTSIDE
from layerprof.trace.file import write_chrome
from layerprof.trace.sums import merged, total


@pytest.mark.parametrize("name", sorted(synthetic.SCENARIOS))
class TestScenarios:
    """Traces whose answer follows from how they were built."""

    def test_each_kernel_goes_where_it_was_launched(self, name: str) -> None:
        """Rows, buckets and total are those of the construction."""
        scenario = synthetic.SCENARIOS[name]()
        result = attribute(scenario.events)
        assert selves(result) == pytest.approx(scenario.self_us)
        assert buckets(result) == pytest.approx(scenario.buckets_us)
        assert result.total_ns / 1e3 == pytest.approx(scenario.total_us)

    def test_rows_and_buckets_are_the_total_exactly(self, name: str) -> None:
        """In whole nanoseconds nothing is lost to rounding."""
        result = attribute(synthetic.SCENARIOS[name]().events)
        assert sum(row.self_ns for row in result.rows) + sum(result.buckets_ns.values()) == result.total_ns

    def test_launches_without_a_record_are_counted(self, name: str) -> None:
        """What the profiler lost, what went into a graph, and what was launched to be lost are told apart."""
        scenario = synthetic.SCENARIOS[name]()
        result = attribute(scenario.events)
        assert (result.launched_not_recorded, result.captured) == (scenario.lost, scenario.captured)
        assert (result.warm_up_launches, result.warm_up_lost) == scenario.warm_up

    def test_the_order_of_events_does_not_matter(self, name: str) -> None:
        """Profilers write events in any order."""
        scenario = synthetic.SCENARIOS[name]()
        expected = attribute(scenario.events)
        for seed in range(5):
            shuffled = list(scenario.events)
            random.Random(seed).shuffle(shuffled)
            assert attribute(shuffled) == expected

    @pytest.mark.parametrize("suffix", [".json", ".json.gz"])
    def test_a_file_gives_the_same_as_its_events(self, name: str, suffix: str, tmp_path: Path) -> None:
        """Plain or packed, the file is read to the same answer."""
        scenario = synthetic.SCENARIOS[name]()
        events = [e for e in scenario.events if e.get("ts") == e.get("ts")]  # JSON has no NaN
        path = write_chrome(events, tmp_path / f"trace{suffix}")
        result = attribute(path)
        assert (selves(result), buckets(result)) == (selves(attribute(events)), buckets(attribute(events)))


class TestLost:
    """What is known of launches whose work was not recorded."""

    def test_a_row_says_how_many_of_its_own_are_missing(self) -> None:
        """Two launches of the first layer have no kernel; the other two are in no layer."""
        result = attribute(traces_lost.lost_records().events)
        assert (row(result, "model.layers.0").not_recorded, row(result, "model.layers.1").not_recorded) == (2, 0)
        assert (result.launches, result.launched_not_recorded) == (7, 4)

    def test_how_much_it_may_be_is_the_mean_of_its_like(self) -> None:
        """Two at the layer's own mean of 6 µs; one in no layer at the trace's mean of 34 µs."""
        s = traces_lost.lost_records()
        s.events = [event for event in s.events if event["name"] != "cudaGraphLaunch"]
        assert attribute(s.events).launched_not_recorded_may_be_ns == 2 * 6_000 + 34_000

    def test_how_much_it_may_be_is_not_known_where_nothing_like_it_was_recorded(self) -> None:
        """No graph's kernels were recorded, so what a lost replay ran cannot be guessed."""
        assert attribute(traces_lost.lost_records().events).launched_not_recorded_may_be_ns is None

    def test_several_traces_add_up(self) -> None:
        """Counts are summed, in rows too; what may be missing is not known where it is not in one of them."""
        traces = {"a": attribute(traces_lost.lost_records().events), "b": attribute(synthetic.late_kernels().events)}
        both = merged(traces)
        assert (both.launches, both.launched_not_recorded) == (10, 4)
        assert both.launched_not_recorded_may_be_ns is None
        assert row(both, "model.layers.0").not_recorded == 2
        assert merged(dict.fromkeys("ab", traces["b"])).launched_not_recorded_may_be_ns == 0

    def test_a_run_knows_what_its_traces_lost(self) -> None:
        """In seconds, with the layers that it was launched in."""
        s = traces_lost.lost_records()
        s.events = [event for event in s.events if event["name"] != "cudaGraphLaunch"]
        lost = total([attribute(s.events), attribute(synthetic.late_kernels().events)]).lost
        assert (lost.launches, lost.of) == (3, 3 + 3 + 3)
        assert lost.may_be_s == pytest.approx(46e-6)
        assert lost.places == {("model.layers.0", Phase.DECODE): 2}

    @pytest.mark.parametrize("lost", range(1, 6))
    def test_each_record_taken_out_is_one_launch_lost(self, lost: int) -> None:
        """Take the first kernels out of a trace, as CUPTI does: as many are lost, and the books close on the rest."""
        scenario = synthetic.late_kernels()
        for number in range(3):
            scenario.kernel(20 + 5 * number, 1300 + 20 * number, 1 + number, ("model.layers.0", "decode"))
        kernels = [event for event in scenario.events if event["cat"] == "kernel"]
        left = [event for event in scenario.events if event not in kernels[:lost]]
        result = attribute(left)
        assert result.launched_not_recorded == lost
        spent = sum(round(1000 * event["dur"]) for event in kernels[lost:])
        assert sum(r.self_ns for r in result.rows) + sum(result.buckets_ns.values()) == result.total_ns == spent


class TestRows:
    """What a row says beside its own time."""

    def test_inclusive_time_holds_inner_ranges(self) -> None:
        """A layer's inclusive time is its own and its submodules'; a submodule's is its own."""
        result = attribute(synthetic.nested_ranges().events)
        assert row(result, "model.layers.0").inclusive_ns == (5 + 7 + 11 + 13) * 1000
        assert row(result, "model.layers.0.mlp").inclusive_ns == (7 + 11) * 1000

    def test_streams_at_the_same_time_count_once_in_the_union(self) -> None:
        """Two kernels of 40 µs that overlap by 30 µs: 80 µs of work, 50 µs in which any of it ran."""
        first = row(attribute(synthetic.streams_and_threads().events), "model.layers.0")
        assert (first.inclusive_ns, first.union_ns, first.span_ns) == (80_000, 50_000, 50_000)

    def test_span_is_from_first_to_last_of_each_call(self) -> None:
        """Gaps between the kernels of one call count, gaps between calls do not."""
        s = Scenario()
        s.layer("a", 0, 10, call=0)
        s.layer("a", 10, 10, call=1)
        s.kernel(1, 100, 10, ("a", "decode"))
        s.kernel(5, 130, 10, ("a", "decode"))
        s.kernel(12, 500, 10, ("a", "decode"))
        only = row(attribute(s.events), "a")
        assert (only.calls, only.span_ns, only.union_ns, only.host_ns) == (2, 50_000, 30_000, 20_000)

    def test_own_host_time_leaves_out_ranges_inside(self) -> None:
        """The layer's 100 µs hold 40 µs of its submodule; the other thread's range is no part of either."""
        s = Scenario()
        s.layer("a", 0, 100)
        s.layer("a.mlp", 40, 40)
        s.layer("a", 50, 30, call=1, tid=2)
        s.add("cpu_op", "aten::mm", 50, 10)
        result = attribute(s.events)
        assert (row(result, "a").host_ns, row(result, "a").host_self_ns) == (130_000, 90_000)
        assert (row(result, "a.mlp").host_ns, row(result, "a.mlp").host_self_ns) == (40_000, 40_000)

    def test_a_range_inside_one_of_the_same_name_counts_once(self) -> None:
        """A module that calls itself has its time once in the inclusive figure."""
        s = Scenario()
        s.add("user_annotation", "recurse", 0, 100)
        s.add("user_annotation", "recurse", 20, 50)
        s.kernel(10, 200, 5, ("recurse", None))
        s.kernel(30, 210, 7, ("recurse", None))
        only = row(attribute(s.events), "recurse")
        assert (only.calls, only.self_ns, only.inclusive_ns, only.host_ns) == (2, 12_000, 12_000, 100_000)
        assert only.host_self_ns == 100_000

    def test_graphs_launched_inside_a_layer_are_told(self) -> None:
        """The bucket has their time; the row says how much of it is the layer's."""
        result = attribute(synthetic.graph_inside_a_layer().events)
        first = row(result, "model.layers.0")
        assert (first.graph_ns, first.self_ns, first.inclusive_ns) == (24_000, 2_000, 2_000)
        assert result.buckets_ns[GRAPH] == 24_000

    def test_a_layer_that_launched_nothing_has_a_row(self) -> None:
        """Measured, and it was zero."""
        s = Scenario()
        s.layer("idle", 0, 10)
        s.kernel(50, 60, 5, OUTSIDE)
        idle = row(attribute(s.events), "idle")
        assert (idle.calls, idle.self_ns, idle.union_ns, idle.span_ns, idle.kernels, idle.top) == (1, 0, 0, 0, 0, ())

    def test_phases_of_a_layer_are_rows_of_their_own(self) -> None:
        """The same layer in prefill and decode is two rows."""
        s = Scenario()
        s.layer("a", 0, 10, phase="prefill")
        s.layer("a", 20, 10, phase="decode", call=1)
        s.kernel(1, 100, 3, ("a", "prefill"))
        s.kernel(21, 110, 4, ("a", "decode"))
        assert selves(attribute(s.events)) == {("a", "prefill"): 3, ("a", "decode"): 4}

    def test_top_kernels_are_the_heaviest_by_name(self) -> None:
        """Kernels of one name add up; five are kept, equal ones by name."""
        s = Scenario()
        s.layer("a", 0, 100)
        for place, (name, dur) in enumerate([("b", 5), ("a", 5), ("c", 9), ("c", 9), ("d", 1), ("e", 2), ("f", 3)]):
            s.kernel(1 + place, 200 + 20 * place, dur, ("a", "decode"), name=name)
        expected = (("c", 18_000), ("a", 5_000), ("b", 5_000), ("f", 3_000), ("e", 2_000))
        assert row(attribute(s.events), "a").top == expected

    def test_an_operator_has_the_time_that_operators_inside_it_leave(self) -> None:
        """They begin at the same nanosecond: the shorter is inside, and what is left of the longer is its own."""
        result = attribute(synthetic.on_a_cpu_together().events)
        assert row(result, "model.layers.0.mlp").top == (("aten::addmm", 40_000),)
        assert row(result, "model.layers.0").top == (("aten::addmm", 10_000), ("aten::linear", 10_000))

    def test_of_operators_with_the_same_times_the_last_by_name_has_them(self) -> None:
        """Whichever is written first: the answer is the same in every order of the file."""
        for names in (("aten::a", "aten::b"), ("aten::b", "aten::a")):
            s = Scenario()
            s.layer("a", 0, 100)
            for name in names:
                s.add("cpu_op", name, 10, 20)
            assert row(attribute(s.events), "a").top == (("aten::b", 20_000),)

    def test_buckets_name_their_heaviest_kernels(self) -> None:
        """What is outside layers can be looked into."""
        s = Scenario()
        s.layer("a", 0, 10)
        s.kernel(50, 60, 5, OUTSIDE, name="argmax")
        s.running(80, 7, NO_LAUNCH, None, name="late")
        result = attribute(s.events)
        assert result.bucket_top == {OUTSIDE: (("argmax", 5_000),), NO_LAUNCH: (("late", 7_000),), GRAPH: ()}

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("lp:model.layers.0#3|decode", ("model.layers.0", Phase.DECODE)),
            ("lp:visual.blocks.1#0|vision", ("visual.blocks.1", Phase.VISION)),
            ("lp:a#b|c#12|prefill", ("a#b|c", Phase.PREFILL)),
            ("lp:no.phase#4", ("no.phase", None)),
            ("lp:bare", ("bare", None)),
            ("lp:odd#x|other", ("odd#x|other", None)),
            ("lp:#0|decode", ("", Phase.DECODE)),
        ],
    )
    def test_names_of_ranges_are_taken_apart(self, text: str, expected: tuple[str, Phase | None]) -> None:
        """Layer, call and phase; names with odd signs keep them."""
        s = Scenario()
        s.add("cpu_op", text, 0, 10)
        s.kernel(1, 20, 5, ("", ""))
        (only,) = attribute(s.events).rows
        assert (only.name, only.phase) == expected


def brute_force(events: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Answer by the definition, one kernel at a time, for kernels of unique correlation: name or bucket to ns."""
    launches = {e["args"]["correlation"]: e for e in events if e["cat"] == "cuda_runtime"}
    ranges = [e for e in events if e["name"].startswith("lp:")]
    answer: dict[str, int] = {}
    for kernel in (e for e in events if e["cat"] == "kernel"):
        launch = launches.get(kernel["args"]["correlation"])
        place = NO_LAUNCH
        if launch is not None and "Graph" in launch["name"]:
            place = GRAPH
        elif launch is not None:
            around = [r for r in ranges if r["tid"] == launch["tid"] and r["ts"] <= launch["ts"] < r["ts"] + r["dur"]]
            innermost = max(around, key=lambda r: (r["ts"], -r["dur"], r["name"]), default=None)
            place = OUTSIDE if innermost is None else innermost["name"][3:].partition("#")[0]
        answer[place] = answer.get(place, 0) + 1000 * kernel["dur"]
    return {name: ns for name, ns in answer.items() if ns}


@st.composite
def traces(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Any mixture of ranges (nested, crossing, empty), launches and kernels on a few threads."""
    moment, length, thread = st.integers(0, 40), st.integers(0, 25), st.integers(1, 3)
    s = Scenario()
    for number in range(draw(st.integers(0, 8))):
        s.layer(f"layer{number}", draw(moment), draw(length), tid=draw(thread))
    for correlation in range(draw(st.integers(0, 12))):
        if draw(st.booleans()):
            api = draw(st.sampled_from(["cudaLaunchKernel", "cudaGraphLaunch"]))
            s.add("cuda_runtime", api, draw(moment), 1, tid=draw(thread), correlation=correlation)
        for _ in range(draw(st.integers(0, 2))):
            s.running(draw(moment), draw(length), OUTSIDE, correlation, stream=draw(thread))
    return s.events


class TestProperties:
    """What holds for every trace."""

    @settings(max_examples=150, deadline=None)
    @given(events=traces(), seed=st.integers(0, 3))
    def test_as_by_definition_in_any_order(self, events: list[dict[str, Any]], seed: int) -> None:
        """Sorted sweeps give what looking at every range for every kernel gives, however events are ordered."""
        expected = brute_force(events)
        random.Random(seed).shuffle(events)
        result = attribute(events)
        if result.device == "cuda":
            named = {row.name: row.self_ns for row in result.rows} | result.buckets_ns
            assert {name: ns for name, ns in named.items() if ns} == expected
            assert sum(expected.values()) == result.total_ns
            for each in result.rows:
                assert each.self_ns <= each.inclusive_ns
                assert each.union_ns <= min(each.inclusive_ns, each.span_ns) or each.calls > 1

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20), st.booleans(), st.integers(1, 2)), max_size=20))
    def test_operator_time_is_the_union_on_each_thread(self, items: list[tuple[int, int, bool, int]]) -> None:
        """On a CPU the total is the time in which any operator was open, counted moment by moment, all of it placed."""
        s = Scenario()
        open_at: dict[tuple[int, int], bool] = {}
        ranged: set[tuple[int, int]] = set()
        for number, (start, length, is_range, thread) in enumerate(items):
            if is_range:
                s.layer(f"layer{number}", start, length, tid=thread)
                ranged |= {(thread, moment) for moment in range(start, start + length)}
            else:
                s.add("cpu_op", f"aten::op{number}", start, length, tid=thread)
                open_at |= {(thread, moment): True for moment in range(start, start + length)}
        result = attribute(s.events)
        assert result.total_ns == 1000 * len(open_at)
        assert sum(row.self_ns for row in result.rows) + sum(result.buckets_ns.values()) == result.total_ns
        assert all(row.self_ns <= row.host_self_ns <= row.host_ns for row in result.rows), "no share above one"
        assert sum(row.host_self_ns for row in result.rows) == 1000 * len(ranged)
