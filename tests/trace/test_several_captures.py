"""Several captures, several graphs, several models: which of them a replay was made from."""

from __future__ import annotations

from pathlib import Path

import pytest
from graph_pairs import STACK, captured, holds, pair, replayed
from scenario import GRAPH, OUTSIDE, Scenario
from traces_graphs import Node, capture, layered, replay, written

from layerprof.trace.attribute import attribute


class TestSeveral:
    """Several captures, several graphs."""

    def test_the_capture_with_the_same_kernels_is_chosen_and_said(self, tmp_path: Path) -> None:
        """Of graphs for several batch sizes: by names, whatever the order in which they are given."""
        sizes = {8: layered(3, "norm", "gemm_8", "attention", "out_8"), 32: layered(3, "norm", "gemm_32", "attn", "o")}
        captures = []
        for size, nodes in sizes.items():
            s = Scenario()
            end = capture(s, nodes, vendor="hip", named=True)
            s.add("user_annotation", f"capture_{size}_FULL", 990, end)
            captures.append(s)
        for given in (captures, captures[::-1]):
            recorded = replayed(sizes[32])
            result = pair(tmp_path, recorded, *given)
            holds(result, recorded)
            assert str(result.graphs[0].capture).startswith("capture_32_FULL in capture")

    def test_the_size_that_the_step_needs_is_chosen_where_kernels_are_the_same(self, tmp_path: Path) -> None:
        """A graph is padded up: 20 rows run in the one for 32."""
        captures = []
        for size in (8, 16, 32, 64):
            s = Scenario()
            end = capture(s, STACK)
            s.add("user_annotation", f"capture_{size}_FULL", 990, end)
            captures.append(s)
        recorded = replayed(STACK)
        recorded.add("user_annotation", "execute_context_0(0)_generation_20(20)", 90, 50)
        assert str(pair(tmp_path, recorded, *captures).graphs[0].capture).startswith("capture_32_FULL")

    def test_piecewise_graphs_are_captured_in_the_order_in_which_they_are_replayed(self, tmp_path: Path) -> None:
        """Pieces that run the same kernels for different layers, with eager work between them, step after step."""
        pieces = [layered(6, "norm", "gemm")[2 * n : 2 * n + 2] for n in range(6)]
        s, at = Scenario(), 1000.0
        for piece in pieces:
            at = capture(s, piece, at)
        recorded, now = Scenario(), 100.0
        for _ in range(3):
            for piece in pieces:
                now = replay(recorded, piece, now)
                recorded.kernel(now, now + 2, 4, OUTSIDE, name="attention")
                now += 10
        holds(pair(tmp_path, recorded, s), recorded)

    def test_more_kernels_than_any_capture_stay_in_the_bucket(self, tmp_path: Path) -> None:
        """Without names, another number of kernels is another graph."""
        recorded = replayed(STACK, belongs=GRAPH)
        result = pair(tmp_path, recorded, captured(STACK[:-1]))
        holds(result, recorded)
        assert "15 kernels" in str(result.graphs[0].why)

    @pytest.mark.parametrize("ids", [True, False])
    @pytest.mark.parametrize("layers", [16, 5])
    def test_another_models_capture_with_as_many_kernels_is_refused(
        self, tmp_path: Path, layers: int, ids: bool
    ) -> None:
        """Where the count is all that speaks for it: its layers would begin in the midst of the graph's.

        And that is what is said, whatever is wrong with captures of fewer kernels.
        """
        nodes = layered(8, *"abcdefghij")
        other = layered(layers, *"klmno") if layers == 16 else layered(layers, *"abcdefghijklmnop")
        assert len(nodes) == len(other)
        recorded = replayed(nodes, belongs=GRAPH, ids=ids)
        result = pair(tmp_path, recorded, captured(STACK), captured(other))
        holds(result, recorded)
        assert "it is not its capture" in str(result.graphs[0].why)
        assert result.graphs[0].by is None

    def test_each_graph_has_its_own_capture(self, tmp_path: Path) -> None:
        """Prefill's and decode's, replayed in turn."""
        other = layered(3, "big_gemm", "flash", prefix="blocks", phase="prefill")
        recorded = Scenario()
        at = 100.0
        for nodes in (other, STACK, STACK, other):
            at = replay(recorded, nodes, at)
        result = pair(tmp_path, recorded, captured(STACK), captured(other))
        holds(result, recorded)
        assert sorted(use.replays for use in result.graphs) == [2, 2]


class TestSeveralModels:
    """A draft beside its target: modules are numbered from 0 in each capture."""

    def test_modules_of_one_name_in_two_models_are_two_rows(self, tmp_path: Path) -> None:
        """`norm_0` stands in another layer class in each: the second says which capture it is of."""
        sides = {}
        for model, layers in (("Target", 4), ("Draft", 2)):
            s = Scenario()
            nodes = []
            for layer in range(layers):
                opened = 1009 + 20 * layer
                s.add("python_function", f"nn.Module: {model}Layer_{layer}", opened - 2, 22)
                s.add("python_function", f"nn.Module: norm_{layer}", opened, 9)
                nodes += [Node(f"{model} norm", GRAPH, 5), Node(f"{model} gemm", GRAPH, 7)]
            capture(s, [Node(node.name, OUTSIDE) for node in nodes], vendor="hip", named=True)
            sides[model] = written(s, tmp_path / f"{model.lower()}.capture.json"), nodes
        recorded, at = Scenario(), 100.0
        for model in ("Target", "Draft", "Draft"):
            at = replay(recorded, sides[model][1], at)
        result = attribute(recorded.events, captures=[path for path, _ in sides.values()], infer=False)
        own = {row.name: (row.calls, row.self_ns) for row in result.rows}
        assert own["norm_0"] == (1, 5_000)
        assert own["norm_0 in draft"] == (2, 10_000)
        holders = {row.name: result.rows[row.parent].name for row in result.rows if row.parent is not None}
        assert holders["norm_1"] == "TargetLayer_1"
        assert holders["norm_1 in draft"] == "DraftLayer_1"

    def test_modules_of_one_model_for_several_sizes_are_one_row(self, tmp_path: Path) -> None:
        """Two captures of the same model, each replayed once."""
        recorded, at = Scenario(), 100.0
        paths: list[Path] = []
        for size in (8, 16):
            nodes = [Node(f"{node.name}_{size}", node.belongs, node.us) for node in STACK]
            paths.append(written(captured(nodes, vendor="hip", named=True), tmp_path / f"{size}.json"))
            at = replay(recorded, nodes, at)
        result = attribute(recorded.events, captures=paths, infer=False)
        assert {row.name: row.calls for row in result.rows} == {f"model.layers.{layer}": 2 for layer in range(3)}
