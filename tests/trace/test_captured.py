"""Replays of CUDA graphs and their captures: each kernel goes to the range in which its launch was captured."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from attributions import buckets, row
from graph_pairs import STACK, captured, holds, pair, replayed
from scenario import GRAPH, OUTSIDE, Event, Scenario
from traces_graphs import COPY, FILL, Node, capture, replay, written

from layerprof.errors import RequestError, SelectorError
from layerprof.trace.attribute import attribute
from layerprof.trace.attribution import Naming


class TestByWhat:
    """What ties a replayed kernel to its launch."""

    def test_order_alone(self, tmp_path: Path) -> None:
        """NVIDIA's launches tell no name: on one stream, kernels run in the order of capture."""
        recorded = replayed(STACK, times=3)
        result = pair(tmp_path, recorded, captured(STACK))
        holds(result, recorded)
        assert {row.naming for row in result.rows} == {Naming.CAPTURED}
        assert [(use.replays, use.pieces, use.by, use.why) for use in result.graphs] == [(3, 15, "order", None)]
        assert result.graphs[0].matched_ns == result.graphs[0].ns == result.total_ns

    def test_node_ids_tell_the_order_where_streams_run_beside_each_other(self, tmp_path: Path) -> None:
        """Kernels run in any order on three streams; their ids grow as they were captured."""
        nodes = [Node(f"k{n % 4}", node.belongs, node.us, stream=n % 3) for n, node in enumerate(STACK)]
        order = random.Random(1).sample(range(len(nodes)), len(nodes))
        recorded = replayed(nodes, times=2, order=order, ids=True)
        result = pair(tmp_path, recorded, captured(nodes))
        holds(result, recorded)
        assert result.graphs[0].by == "graph node ids"

    def test_a_node_id_may_have_all_of_64_bits(self, tmp_path: Path) -> None:
        """The graph's number stands in the upper half, without a sign."""
        recorded = replayed(STACK, ids=True, graph=(1 << 32) - 2)
        result = pair(tmp_path, recorded, captured(STACK))
        holds(result, recorded)
        assert result.graphs[0].by == "graph node ids"

    def test_part_of_a_replay_is_matched_by_its_ids(self, tmp_path: Path) -> None:
        """The recording began in the midst of one replay: its nodes are those of the whole replays after it."""
        s, late = Scenario(), STACK[8:]
        s.correlations += 1
        s.add("cuda_runtime", "cudaGraphLaunch", 10, 5, correlation=s.correlations)
        for place, node in enumerate(late):
            s.running(40 + 20 * place, node.us, node.belongs, s.correlations, name=node.name)
            s.events[-1]["args"]["graph node id"] = (3 << 32) + 10 + 8 + place
        replay(s, STACK, 1000, ids=True)
        result = pair(tmp_path, s, captured(STACK))
        holds(result, s)
        assert [(use.replays, use.pieces) for use in result.graphs] == [(2, 15)]

    def test_without_ids_and_names_several_streams_stay_in_the_bucket(self, tmp_path: Path) -> None:
        """The order in which they ran is not that of the capture, and nothing else is known."""
        nodes = [Node(node.name, node.belongs, node.us, stream=n % 2) for n, node in enumerate(STACK)]
        recorded = replayed(nodes, belongs=GRAPH)
        result = pair(tmp_path, recorded, captured(nodes))
        holds(result, recorded)
        assert "several streams" in str(result.graphs[0].why)

    def test_names_with_launches_before_and_after_the_capture(self, tmp_path: Path) -> None:
        """AMD's launches tell names, so those that are no part of the graph are left out, without any mark of it."""
        around = [Node("fill", OUTSIDE), Node("fill", OUTSIDE)]
        capture_trace = captured([*around, *STACK, Node("gather", OUTSIDE)], vendor="hip", named=True, marked=False)
        recorded = replayed(STACK)
        result = pair(tmp_path, recorded, capture_trace)
        holds(result, recorded)
        assert result.graphs[0].by == "kernel names"

    def test_names_on_streams_that_run_beside_each_other(self, tmp_path: Path) -> None:
        """Each stream keeps its order, so the n-th kernel of a name is the n-th launch of it."""
        nodes = [
            node
            for layer in range(4)
            for node in (
                Node("gemm", (f"layers.{layer}", "decode"), 3 + layer, stream=7),
                Node("copy_kv", (f"layers.{layer}.attn", "decode"), 20 + layer, stream=9),
            )
        ]
        order = [0, 2, 4, 6, 1, 3, 5, 7]
        recorded = replayed(nodes, order=order)
        holds(pair(tmp_path, recorded, captured(nodes, vendor="hip", named=True)), recorded)

    def test_replays_whose_streams_jitter_are_of_one_graph(self, tmp_path: Path) -> None:
        """The same kernels of two streams in another order each time: one graph, matched by its names."""
        nodes = [Node(f"k{n % 2}", (f"layers.{n // 2}", "decode"), 3 + n, stream=n % 2) for n in range(8)]
        recorded, at = Scenario(), 100.0
        for order in ([0, 1, 2, 3, 4, 5, 6, 7], [0, 2, 1, 3, 4, 6, 5, 7], [1, 0, 3, 2, 5, 4, 7, 6]):
            at = replay(recorded, nodes, at, order=order)
        result = pair(tmp_path, recorded, captured(nodes, vendor="hip", named=True))
        holds(result, recorded)
        assert [(use.replays, use.pieces) for use in result.graphs] == [(3, 8)]

    def test_one_kernel_in_anothers_place(self, tmp_path: Path) -> None:
        """A product for another size has another name, and stands between the same neighbours."""
        recorded = replayed([Node(node.name.replace("gemm", "gemm_64"), node.belongs, node.us) for node in STACK])
        holds(pair(tmp_path, recorded, captured(STACK, vendor="hip", named=True)), recorded)

    def test_a_kernel_that_is_in_no_capture_stays_in_the_bucket(self, tmp_path: Path) -> None:
        """One more than was captured: the others find their places, and the reason says how many did not."""
        extra = [*STACK[:7], Node("unheard_of", GRAPH, 50), *STACK[7:]]
        recorded = replayed(extra)
        result = pair(tmp_path, recorded, captured(STACK, vendor="hip", named=True))
        holds(result, recorded)
        assert str(result.graphs[0].why) == "1 of 16 kernels is not in the capture"

    def test_what_says_that_it_is_a_capture_hides_no_range_around_it(self, tmp_path: Path) -> None:
        """The annotation is opened inside the model's range: what no layer launched is the model's."""
        s, model = Scenario(), ("model", None)
        end = capture(s, [Node("embed", OUTSIDE), Node("norm", OUTSIDE)])
        for name, begin in (("model", 990), ("capture_8_FULL", 995)):
            s.add("user_annotation", name, begin, end + 20 - begin)
        recorded = replayed([Node("embed", model), Node("norm", model)])
        holds(pair(tmp_path, recorded, s), recorded)


class TestNodes:
    """Nodes that are no kernels."""

    def test_copies_and_fills_are_nodes(self, tmp_path: Path) -> None:
        """They are called by other names than they run by, and stand in their place by being such."""
        nodes = [*STACK[:4], Node("Memset (Device)", ("model.layers.0", "decode"), 2, FILL), *STACK[4:]]
        nodes.insert(9, Node("Memcpy DtoD", ("model.layers.1", "decode"), 4, COPY))
        for how in ({}, {"vendor": "hip", "named": True}):
            recorded = replayed(nodes)
            holds(pair(tmp_path, recorded, captured(nodes, **how)), recorded)

    def test_a_copy_of_nothing_is_no_node(self, tmp_path: Path) -> None:
        """It is called in the capture, and the graph has no node of it."""
        nodes = [*STACK[:2], Node("nothing", STACK[1].belongs, 0, COPY), *STACK[2:]]
        recorded = replayed(STACK)
        holds(pair(tmp_path, recorded, captured(nodes)), recorded)

    @pytest.mark.parametrize("named", [True, False])
    def test_a_fill_may_run_as_a_kernel(self, tmp_path: Path, named: bool) -> None:
        """The driver chooses; all other nodes stand where they were captured."""
        owner = ("model.layers.0", "decode")
        recorded = replayed([*STACK[:4], Node("memset_kernel", owner, 2), *STACK[4:]])
        nodes = [*STACK[:4], Node("Memset (Device)", owner, 2, FILL), *STACK[4:]]
        holds(pair(tmp_path, recorded, captured(nodes, named=named)), recorded)

    def test_what_was_captured_outside_layers_belongs_to_the_range_around_the_replay(self, tmp_path: Path) -> None:
        """As any kernel that was launched there."""
        nodes = [Node("embed", OUTSIDE, 9), *STACK]
        s = Scenario()
        s.layer("step", 90, 100)
        replay(s, nodes, 100)
        s.self_us["step", "decode"] = s.buckets_us[OUTSIDE]
        s.buckets_us[OUTSIDE] = 0
        holds(pair(tmp_path, s, captured(nodes)), s)


class TestInTheTraceItself:
    """A capture inside the trace of its replays needs no naming."""

    def test_it_is_found(self) -> None:
        """Captured, then replayed twice, after the same step ran eagerly."""
        s = Scenario()
        at = capture(s, STACK)
        for _ in range(2):
            at = replay(s, STACK, at)
        result = attribute(s.events, infer=False)
        holds(result, s)
        assert result.captured == 15
        (layer,) = (each for each in result.rows if each.name == "model.layers.1" and each.self_ns)
        assert (layer.calls, layer.kernels, layer.naming) == (2, 2 * 5, Naming.CAPTURED)

    def test_one_that_comes_after_the_replay_is_not_its_own(self) -> None:
        """A graph is captured before it runs."""
        s = Scenario()
        replay(s, STACK, 100, belongs=GRAPH)
        capture(s, STACK, 5000)
        holds(attribute(s.events, infer=False), s)


class TestRows:
    """What rows say of replayed work."""

    def test_a_row_counts_replays_and_has_its_parts_inside(self, tmp_path: Path) -> None:
        """A module inside a layer: calls, sums, span of each replay, and no time on any thread."""
        nodes = [
            Node("norm", ("layers.0", "decode"), 5),
            Node("gemm", ("layers.0.mlp", "decode"), 7),
            Node("gemm", ("layers.0.mlp", "decode"), 11),
        ]
        s = Scenario()
        s.layer("layers.0", 1009, 30)
        inner = [Node(n.name, n.belongs if n.belongs[0] == "layers.0.mlp" else OUTSIDE, n.us) for n in nodes]
        capture(s, inner)
        result = pair(tmp_path, replayed(nodes, times=4), s)
        holder, part = row(result, "layers.0"), row(result, "layers.0.mlp")
        assert (holder.calls, holder.self_ns, holder.inclusive_ns, holder.kernels) == (4, 20_000, 92_000, 4)
        assert (part.calls, part.self_ns, part.kernels, part.host_ns) == (4, 72_000, 8, 0)
        # Each replay runs 5, 7 and 11 us with a microsecond between.
        assert (holder.span_ns, holder.union_ns) == (4 * 25_000, 92_000)
        assert result.rows[part.parent or 0] is holder

    def test_a_captured_row_stands_in_the_range_that_launched_the_graph(self, tmp_path: Path) -> None:
        """Its work is in that range's, though not in its own."""
        s = replayed(STACK)
        s.layer("model", 90, 100)
        result = pair(tmp_path, s, captured(STACK))
        model = row(result, "model")
        assert (model.self_ns, model.inclusive_ns, model.graph_ns) == (0, result.total_ns, 0)
        assert all(result.rows[each.parent].name == "model" for each in result.rows if each.parent is not None)
        assert sum(each.parent is None for each in result.rows) == 1

    def test_recorded_and_captured_work_of_one_layer_are_two_rows(self) -> None:
        """The eager step and the replay of one layer have one name and two namings."""
        s = Scenario()
        at = capture(s, STACK)
        s.layer("model.layers.1", at, 20)
        s.kernel(at + 5, at + 30, 2, ("model.layers.1", "decode"))
        replay(s, STACK, at + 100)
        found = [each for each in attribute(s.events, infer=False).rows if each.name == "model.layers.1"]
        assert {each.naming: each.kernels for each in found} == {Naming.RECORDED: 1, Naming.CAPTURED: 5}

    def test_a_row_has_the_phase_of_the_step_that_replayed_it(self, tmp_path: Path) -> None:
        """Ranges that say no phase themselves: two steps of a server, one of which works on prompts, too."""
        s = Scenario()
        for node in range(4):
            s.add("python_function", f"nn.Module: Layer_{node}", 1009 + 10 * node, 8)
        capture(s, [Node("gemm", OUTSIDE)] * 4)
        recorded = Scenario()
        recorded.add("user_annotation", "step[DECODE bs=4]", 90, 40)
        replay(recorded, [Node("gemm", GRAPH)] * 4, 100)
        recorded.add("user_annotation", "step[MIXED bs=4]", 290, 40)
        replay(recorded, [Node("gemm", GRAPH)] * 4, 300)
        result = pair(tmp_path, recorded, s)
        assert {(each.name, each.phase): each.self_ns for each in result.rows if each.self_ns} == {
            (f"Layer_{layer}", phase): 5000 for layer in range(4) for phase in ("decode", "mixed")
        }


class TestGiven:
    """What is given as a capture."""

    def test_a_capture_without_ranges_says_how_to_record_one(self, tmp_path: Path) -> None:
        """Its launches are known, and nothing says whose they are."""
        bare = [Node(node.name, OUTSIDE, node.us) for node in STACK]
        recorded = replayed(STACK, belongs=GRAPH)
        result = pair(tmp_path, recorded, captured(bare))
        holds(result, recorded)
        assert "with_stack" in str(result.graphs[0].why)

    def test_a_trace_in_which_nothing_was_captured_is_refused(self, tmp_path: Path) -> None:
        """A replay's trace given as its own capture."""
        path = written(replayed(STACK), tmp_path / "replay.json")
        with pytest.raises(RequestError, match="No CUDA graph was captured in"):
            attribute(path, captures=[path])

    def test_a_trace_that_replays_nothing_has_no_use_for_one(self, tmp_path: Path) -> None:
        """The captures are read in vain, and the result says so."""
        s = Scenario()
        s.layer("a", 0, 50)
        s.kernel(10, 60, 5, ("a", "decode"))
        assert "replays no CUDA graph" in pair(tmp_path, s, captured(STACK)).remarks[0]

    @pytest.mark.parametrize("broken", ["correlation", "ts"])
    def test_launches_that_cannot_be_read_are_left_out(self, tmp_path: Path, broken: str) -> None:
        """The others still find their places by name."""
        s = captured(STACK, vendor="hip", named=True)
        launches: list[Event] = [event for event in s.events if event["name"] == "hipLaunchKernel"]
        if broken == "ts":
            launches[4]["ts"] = "soon"
        else:
            del launches[4]["args"]["correlation"]
        recorded = replayed(STACK)
        result = pair(tmp_path, recorded, s)
        assert buckets(result)[GRAPH] == pytest.approx(STACK[4].us)

    def test_names_asked_for_may_be_those_of_the_capture_alone(self, tmp_path: Path) -> None:
        """The trace of the replays has no ranges, and none that bears the name."""
        path = written(captured(STACK), tmp_path / "capture.json")
        result = attribute(replayed(STACK).events, captures=[path], layers=["model.layers.1"], infer=False)
        assert [row.name for row in result.rows] == ["model.layers.1"]
        assert result.rows[0].self_ns == sum(1000 * int(node.us) for node in STACK[5:10])
        with pytest.raises(SelectorError, match="No range of the trace is called"):
            attribute(replayed(STACK).events, captures=[path], layers=["model.layers.9"])
