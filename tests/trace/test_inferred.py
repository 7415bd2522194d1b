"""Layers that nobody recorded: what repeats N times in graphs or compiled code is N layers, and rows say so."""

from __future__ import annotations

from pathlib import Path

import pytest
from attributions import buckets, selves
from scenario import GRAPH, OUTSIDE, Label, Scenario
from traces_graphs import Node, capture, layered, replay, written

from layerprof.trace.attribute import attribute
from layerprof.trace.attribution import Attribution, Naming

LAYER = ("rms_norm", "gemm_qkv", "rotary", "flash_fwd_kernel", "gemm_out", "rms_norm", "gemm_up", "silu", "gemm_down")
LAYERS = 8
PHASE = None


def stack(layers: int = LAYERS, phase: str | None = PHASE) -> list[Node]:
    """Return a step's kernels: an embedding, layers, a last norm and the head; by the rows that they should have."""
    layer_of = [f"layer {number // len(LAYER)}" for number in range(layers * len(LAYER))]
    inner = [Node(n.name, (layer, phase), n.us) for n, layer in zip(layered(layers, *LAYER), layer_of, strict=True)]
    before, after = ("head", phase), ("tail", phase)
    return [Node("embedding", before, 7), *inner, Node("final_norm", after, 4), Node("gemm_vocabulary", after, 90)]


def counted(nodes: list[Node], layers: int) -> list[Node]:
    """Return a step whose layers say of how many they are, as those of several models in a trace do."""
    named = [(f"{name} of {layers}" if name.startswith("layer") else name, phase) for name, phase in map(owner, nodes)]
    return [Node(node.name, label, node.us) for node, label in zip(nodes, named, strict=True)]


def owner(node: Node) -> Label:
    """Return whose work a node is, where it is a layer's."""
    assert not isinstance(node.belongs, str)
    return node.belongs


def checked(s: Scenario, **how: object) -> Attribution:
    """Attribute a scenario, and check that every microsecond is where the construction says."""
    result = attribute(s.events, **how)  # type: ignore[arg-type]  # passed on as given
    assert sum(row.self_ns for row in result.rows) + sum(result.buckets_ns.values()) == result.total_ns
    assert selves(result) == pytest.approx(s.self_us)
    assert buckets(result) == pytest.approx(s.buckets_us)
    return result


class TestOneGraph:
    """A whole step in one graph."""

    def test_layers_head_and_tail_have_rows_that_say_that_they_are_inferred(self) -> None:
        """Two replays: each layer was passed twice, and the stack says what it rests on."""
        s = Scenario()
        at = replay(s, stack(), 100)
        replay(s, stack(), at)
        result = checked(s)
        assert {row.naming for row in result.rows} == {Naming.INFERRED}
        assert {row.calls for row in result.rows} == {2}
        (found,) = result.stacks
        assert (found.layers, found.calls, found.kinds, found.evidence != ()) == (LAYERS, 2, (LAYERS,), True)
        assert found.ns + found.head_ns + found.tail_ns == found.of_ns == result.total_ns
        assert (found.head_ns, found.tail_ns) == (2 * 7_000, 2 * 94_000)

    def test_a_graph_may_hold_the_layers_alone(self) -> None:
        """As that of one stage of a pipeline does; out of a graph, it would be one block that is timed."""
        inner = [node for node in stack() if node.belongs[0].startswith("layer")]
        s, eager, at = Scenario(), Scenario(), 100.0
        replay(s, inner, at)
        for node in inner:
            eager.kernel(at, at + 2, node.us, OUTSIDE, name=node.name)
            at += node.us + 3
        assert [found.layers for found in checked(s).stacks] == [LAYERS]
        assert checked(eager).stacks == ()

    def test_without_inference_it_stays_in_the_bucket(self) -> None:
        """As asked."""
        s = Scenario()
        replay(s, stack(), 100, belongs=GRAPH)
        assert checked(s, infer=False).stacks == ()

    def test_what_repeats_nothing_stays_in_the_bucket(self) -> None:
        """A dozen kernels, each of its own name."""
        s = Scenario()
        replay(s, [Node(f"kernel_{letter}", GRAPH) for letter in "abcdefghijkl"], 100)
        assert checked(s).stacks == ()

    def test_rows_stand_in_the_range_that_launched_the_graph_and_have_its_steps_phase(self) -> None:
        """Of a server's decode step."""
        s = Scenario()
        s.add("user_annotation", "step[DECODE bs=4]", 90, 50)
        replay(s, stack(phase="decode"), 100)
        result = checked(s)
        assert {result.rows[row.parent].name for row in result.rows if row.parent is not None} == {"step"}

    def test_steps_with_other_numbers_of_layers_do_not_share_rows(self) -> None:
        """A draft model of four layers beside its target of eight."""
        s = Scenario()
        at = 100.0
        for layers in (4, 8, 4):
            nodes = counted(stack(layers), layers)
            at = replay(s, nodes, at)
        assert [(each.layers, each.calls) for each in checked(s).stacks] == [(4, 2), (8, 1)]


class TestSeveralGraphs:
    """A step in pieces."""

    @pytest.mark.parametrize("annotated", [True, False])
    def test_eager_work_between_graphs_is_part_of_the_layers(self, annotated: bool) -> None:
        """Attention runs eagerly between two graphs: three steps, with and without a server's annotation of each."""
        phase = "decode" if annotated else None
        s, at = Scenario(), 100.0
        for _ in range(3):
            began, piece = at, []
            for node in stack(phase=phase):
                if node.name != "flash_fwd_kernel":
                    piece.append(node)
                    continue
                at = replay(s, piece, at)
                s.kernel(at, at + 3, node.us, node.belongs, name=node.name)
                at, piece = at + node.us + 9, []
            at = replay(s, piece, at) + 10
            if annotated:
                s.add("user_annotation", "step[DECODE bs=4]", began - 5, at - began)
        result = checked(s)
        assert [(each.layers, each.calls) for each in result.stacks] == [(LAYERS, 3)]

    def test_a_range_of_its_own_keeps_its_work(self) -> None:
        """What a recorded range tells is not inferred, though it runs in the midst of a layer."""
        s, at, piece = Scenario(), 100.0, []
        for node in stack():
            if node.name != "flash_fwd_kernel":
                piece.append(node)
                continue
            at = replay(s, piece, at)
            s.add("user_annotation", "attention backend", at - 1, 5)
            s.kernel(at, at + 3, node.us, ("attention backend", None), name=node.name)
            at, piece = at + node.us + 9, []
        replay(s, piece, at)
        checked(s)


class TestStepsOfServers:
    """What a server's step replays and runs."""

    def test_a_whole_model_replayed_several_times_in_a_step_is_passed_as_often(self) -> None:
        """A vision tower for three images, then the decoder: each replay is a pass."""
        tower, decoder = (counted(stack(layers, phase="prefill"), layers) for layers in (8, 12))
        s, at = Scenario(), 100.0
        for nodes in (tower, tower, tower, decoder):
            at = replay(s, nodes, at)
        s.add("user_annotation", "step[EXTEND bs=1 toks=90]", 90, at)
        assert [(each.layers, each.calls) for each in checked(s).stacks] == [(8, 3), (12, 1)]

    def test_a_draft_of_two_layers_is_no_stack_of_its_replays(self) -> None:
        """Four replays of a whole model of two layers: too few to tell, and each begins with an embedding."""
        draft = [Node(node.name, GRAPH, node.us) for node in stack(2)]
        target = stack(phase="decode")
        s, at = Scenario(), 100.0
        for nodes in (draft, draft, draft, draft, target):
            at = replay(s, nodes, at)
        s.add("user_annotation", "step[DECODE bs=1]", 90, at)
        assert [(each.layers, each.calls) for each in checked(s).stacks] == [(LAYERS, 1)]

    def test_an_eager_step_beside_graphs_has_layers_too(self) -> None:
        """Prefill runs eagerly without stacks, decode in a graph: one step of each."""
        s, at = Scenario(), 100.0
        for node in stack(phase="prefill"):
            s.kernel(at, at + 2, node.us, node.belongs, name=node.name)
            at += node.us + 3
        s.add("user_annotation", "step[EXTEND bs=1 toks=90]", 90, at - 90)
        began = at + 100
        at = replay(s, stack(phase="decode"), began)
        s.add("user_annotation", "step[DECODE bs=1]", began - 5, at)
        assert [(each.layers, each.calls) for each in checked(s).stacks] == [(LAYERS, 2)]

    def test_shares_are_of_the_work_that_was_looked_at_once(self) -> None:
        """Three eager passes in one sequence: layers, heads and tail together are all of it."""
        s, at = Scenario(), 100.0
        for _ in range(3):
            for node in stack():
                name = node.belongs if node.belongs[0].startswith("layer") else ("?", None)
                s.kernel(at, at + 2, node.us, name, name=node.name)
                at += node.us + 3
        result = attribute(s.events)
        (found,) = result.stacks
        assert found.calls == 3
        assert found.ns + found.head_ns + found.tail_ns == found.of_ns == result.total_ns
        assert found.ns / 1e3 == pytest.approx(sum(us for (name, _), us in s.self_us.items() if name != "?"))


class TestCutOff:
    """A recording that begins and ends in the midst of a step."""

    def test_layers_of_a_pass_that_was_cut_off_have_their_numbers(self) -> None:
        """Three replays, from the midst of layer 2 to the midst of layer 5: the first has the last five layers."""
        whole = stack()
        first, last = whole[1 + 3 * len(LAYER) - 5 :], whole[: 1 + 5 * len(LAYER) + 4]
        s, at = Scenario(), 100.0
        for nodes in (first, whole, last):
            at = replay(s, nodes, at)
        result = attribute(s.events)
        assert {row.name: row.calls for row in result.rows if row.name.startswith("layer")} == {
            f"layer {number}": 1 + (number >= 3) + (number <= 5) for number in range(LAYERS)
        }
        (found,) = result.stacks
        assert (found.layers, found.calls) == (LAYERS, 3)

    def test_node_ids_tell_which_layers_a_part_of_a_replay_has(self) -> None:
        """From the midst of layer 2 on, of a graph whose next replay is whole."""
        whole = stack()
        s, at, begins = Scenario(), 100.0, 1 + 2 * len(LAYER) + 4
        s.correlations += 1
        s.add("cuda_runtime", "cudaGraphLaunch", 10, 5, correlation=s.correlations)
        for place, node in enumerate(whole[begins:]):
            s.running(at, node.us, node.belongs, s.correlations, name=node.name)
            s.events[-1]["args"]["graph node id"] = (3 << 32) + 10 + begins + place
            at += node.us + 1
        replay(s, whole, at, ids=True)
        assert [(each.layers, each.calls) for each in checked(s).stacks] == [(LAYERS, 2)]

    def test_a_tower_with_fewer_layers_of_other_kernels_is_none(self) -> None:
        """A vision tower's step comes first, and begins otherwise than the decoder's."""
        tower = [Node(n.name.replace("gemm", "tower_gemm"), n.belongs, n.us) for n in counted(stack(6), 6)[1:]]
        s, at = Scenario(), 100.0
        for nodes in (tower, counted(stack(8), 8)):
            at = replay(s, nodes, at)
        assert [each.layers for each in checked(s).stacks] == [6, 8]

    def test_another_model_with_fewer_layers_is_none(self) -> None:
        """A draft's own step comes first: it begins as the target's does."""
        s, at = Scenario(), 100.0
        for layers in (4, 8):
            at = replay(s, counted(stack(layers), layers), at)
        assert [each.layers for each in checked(s).stacks] == [4, 8]


class TestBesideCaptures:
    """What a capture tells comes first."""

    def test_a_capture_that_tells_layers_apart_is_kept(self, tmp_path: Path) -> None:
        """Its names are the model's own."""
        nodes = layered(LAYERS, *LAYER)
        s, taken = Scenario(), Scenario()
        capture(taken, nodes)
        replay(s, nodes, 100)
        result = checked(s, captures=[written(taken, tmp_path / "capture.json")])
        assert result.stacks == ()
        assert {row.naming for row in result.rows} == {Naming.CAPTURED}

    def test_a_capture_of_compiled_code_is_not_enough(self, tmp_path: Path) -> None:
        """One range for all layers: they are inferred, and the graph says why."""
        s, taken = Scenario(), Scenario()
        capture(taken, [Node(node.name, ("GraphModule_0", "decode")) for node in stack()], vendor="hip", named=True)
        replay(s, stack(), 100)
        result = checked(s, captures=[written(taken, tmp_path / "capture.json")])
        assert [each.layers for each in result.stacks] == [LAYERS]
        assert result.graphs[0].capture == "capture.json"
        assert "compiled" in str(result.graphs[0].why)
        assert not [row for row in result.rows if row.naming == Naming.CAPTURED]

    def test_eager_layers_elsewhere_give_their_names(self) -> None:
        """The step before ran eagerly, with modules that say which layer is which."""
        s, at = Scenario(), 100.0
        for layer in range(LAYERS):
            s.add("python_function", f"nn.Module: Block_{layer}", at - 1, 10 * len(LAYER))
            for name in LAYER:
                s.kernel(at, at + 2, 3, (f"Block_{layer}", None), name=name)
                at += 10
        nodes = [Node(n.name, (n.belongs[0].replace("layer ", "Block_"), None), n.us) for n in stack()]
        replay(s, nodes, at + 100)
        result = checked(s)
        assert {row.naming for row in result.rows if row.name == "Block_3"} == {Naming.RECORDED, Naming.INFERRED}


class TestEager:
    """Traces without graphs."""

    def test_a_trace_without_any_range_has_layers_all_the_same(self) -> None:
        """Recorded without stacks, without annotations: all that is known are the kernels."""
        s, at = Scenario(), 100.0
        for node in stack():
            s.kernel(at, at + 2, node.us, node.belongs, name=node.name)
            at += node.us + 3
        result = checked(s)
        assert [each.layers for each in result.stacks] == [LAYERS]
        assert result.buckets_ns[OUTSIDE] == 0

    def test_a_trace_whose_ranges_tell_something_is_left_as_it_is(self) -> None:
        """Work outside of them was put there by whoever set them."""
        s, at = Scenario(), 100.0
        s.add("user_annotation", "warm up", 0, 50)
        for node in stack():
            s.kernel(at, at + 2, node.us, OUTSIDE, name=node.name)
            at += node.us + 3
        assert checked(s).stacks == ()
