"""The tree of an attributed trace: what is alike shares a line, sums are exact, and what has no line is told."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from attributions import holding, made, stacked

from layerprof.errors import RequestError
from layerprof.records import Phase
from layerprof.report.attribution import names, tree
from layerprof.report.attribution.tree import Node
from layerprof.report.attribution.view import SORTS, View, shown
from layerprof.trace.attribution import Attribution, Naming, Row

Told = tuple[int, str, int, int]


def told(result: Attribution, **view: object) -> list[Told]:
    """Return depth, label, how many share the line, and their inclusive nanoseconds."""
    lines = shown(result, View(**view)).lines  # type: ignore[arg-type]  # each test gives what View takes
    return [(line.depth, line.node.label, len(line.node.rows), line.node.sum("inclusive_ns")) for line in lines]


def labels(result: Attribution, **view: object) -> list[str]:
    """Return the labels of the lines."""
    return [label for _, label, _, _ in told(result, **view)]


class TestNames:
    """One name for several."""

    @pytest.mark.parametrize(
        ("given", "one"),
        [
            (["Layer_0", "Layer_1", "Layer_2"], "Layer_0-2"),
            (["Layer_7"], "Layer_7"),
            (["layer 0", "layer 2", "layer 4", "layer 6"], "layer 0,2..6"),
            (["layer 1", "layer 5"], "layer 1,5"),
            (["h.0", "h.1", "h.2", "h.5", "h.7", "h.8"], "h.0-2,5,7-8"),
            (["L_0", "L_1", "L_3", "L_4", "L_6", "L_7", "L_20", "L_21"], "L_0..21"),
            (["layers.0.mlp", "layers.1.mlp"], "layers.0-1.mlp"),
            (["a.0.b.0", "a.0.b.1", "a.1.b.0", "a.1.b.1"], "a.0-1.b.0-1"),
            (["0", "1"], "0-1"),
            (["layer 0 (inferred)", "layer 1 (inferred)"], "layer 0-1 (inferred)"),
            (["Conv2d_3", "Conv2d_4"], "Conv2d_3-4"),
        ],
    )
    def test_numbers_that_differ_become_a_range(self, given: list[str], one: str) -> None:
        """Neighbours as `first-last`, a step as `first,second..last`, anything else by its ends."""
        assert {names.shape(name) for name in given} == {names.shape(one.replace(one, given[0]))}
        assert names.shared(given) == one

    @pytest.mark.parametrize("name", ["Conv2d", "step[DECODE bs=32]", "execute_512_context_3(sq1)", "gemm_64x64", "a0"])
    def test_numbers_that_are_part_of_a_word_are_no_number(self, name: str) -> None:
        """Steps of different sizes, and classes that have a digit in their name, are different things."""
        assert names.shape(name) == name


class TestFolding:
    """What shares a line."""

    def test_a_model_is_its_layer_once(self) -> None:
        """24 layers of 11 rows are ten lines, in the order of the first layer; sums by hand."""
        assert told(holding(stacked(24))) == [
            (0, "Model_0", 1, 24_060),
            (1, "Embedding_0", 1, 50),
            (1, "Layer_0-23", 24, 24_000),
            (2, "Norm_0,2..46", 24, 24 * 150),
            (2, "Attention_0-23", 24, 24 * 300),
            (3, "Rotary_0", 1, 48),
            (3, "Linear_0..141", 96, 96 * 25),
            (2, "Norm_1,3..47", 24, 24 * 150),
            (2, "MLP_0-23", 24, 24 * 396),
            (3, "Linear_4..143", 48, 48 * 150),
        ]

    def test_a_layer_that_is_slower_has_its_own_line_and_its_own_inside(self) -> None:
        """Neither hidden in a median nor breaking the others in two."""
        lines = [line for line in told(holding(stacked(24, slow=(7,)))) if line[1].startswith("Layer")]
        assert lines == [(1, "Layer_0-6,8-23", 23, 23_000), (1, "Layer_7", 1, 1500)]

    def test_each_is_the_median_and_the_sum_is_exact(self) -> None:
        """Layers of 100, 101 and 109: 310 in all, 101 in the middle."""
        rows = [made(f"Layer_{n}", ns) for n, ns in enumerate((100, 109, 101))]
        (line,) = shown(holding(rows), View()).lines
        assert (line.node.sum("inclusive_ns"), line.node.each_ns) == (310, 101)

    def test_layers_of_two_kinds_in_turn_are_two_lines(self) -> None:
        """Windowed and full attention: each kind with its count."""
        rows = [made(f"layer {n}", 100 if n % 2 else 300, naming=Naming.INFERRED) for n in range(24)]
        assert told(holding(rows)) == [
            (0, "layer 0,2..22 (inferred)", 12, 3600),
            (0, "layer 1,3..23 (inferred)", 12, 1200),
        ]

    def test_layers_that_take_as_long_but_hold_something_else_are_told_apart(self) -> None:
        """A dense layer and one of experts."""
        rows: list[Row] = []
        for n in range(6):
            rows.append(made(f"Layer_{n}", 10, 100))
            rows.append(made(f"{'MLP' if n == 0 else 'Experts'}_{max(n - 1, 0)}", 90, parent=len(rows) - 1))
        assert labels(holding(rows)) == ["Layer_0", "MLP_0", "Layer_1-5", "Experts_0-4"]

    def test_two_alike_with_others_between_stay_two(self) -> None:
        """Norms before and after attention are two places of the layer; three and more would be a list."""
        rows = [made(name, 10) for name in ("Norm_0", "Attention_0", "Norm_1", "MLP_0")]
        assert labels(holding(rows)) == ["Norm_0", "Attention_0", "Norm_1", "MLP_0"]
        rows = [made(name, 10) for name in ("Conv_0", "Relu_0", "Conv_1", "Relu_1", "Conv_2", "Relu_2")]
        assert labels(holding(rows)) == ["Conv_0-2", "Relu_0-2"]

    def test_two_that_are_alike_by_chance_stay_two(self) -> None:
        """Among layers that take any time, those that happen to take as long have nothing in common."""
        rows = [made(f"Layer_{n}", ns) for n, ns in enumerate((100, 300, 900, 101, 301))]
        assert labels(holding(rows)) == [f"Layer_{n}" for n in range(5)]

    def test_phases_and_namings_never_share_a_line(self) -> None:
        """The same layers reading a prompt, writing, and inside a graph."""
        rows = [made(f"layers.{n}", 10, phase=phase) for phase in (Phase.PREFILL, Phase.DECODE) for n in range(3)]
        rows += [made(f"layers.{n}", 10, phase=Phase.DECODE, naming=Naming.CAPTURED) for n in range(3)]
        lines = shown(holding(rows), View()).lines
        assert [(line.node.label, line.node.phase, line.node.naming) for line in lines] == [
            ("layers.0-2", "prefill", "recorded"),
            ("layers.0-2", "decode", "recorded"),
            ("layers.0-2", "decode", "captured"),
        ]

    def test_names_with_paths_are_shown_without_what_is_around_them(self) -> None:
        """`mlp` below `layers.0-2`, and its experts by their numbers."""
        rows: list[Row] = []
        for n in range(3):
            rows.append(made(f"model.layers.{n}", 0, 40))
            rows.append(made(f"model.layers.{n}.mlp", 0, 40, parent=len(rows) - 1))
            mlp = len(rows) - 1
            rows += [made(f"model.layers.{n}.mlp.experts.{e}", 10, parent=mlp) for e in range(4)]
        assert told(holding(rows)) == [
            (0, "model.layers.0-2", 3, 120),
            (1, "mlp", 3, 120),
            (2, "experts.0-3", 12, 120),
        ]

    def test_what_is_too_short_to_matter_may_differ(self) -> None:
        """Two rows of 1 and 2 ns beside one of a second are no two findings."""
        assert labels(holding([made("a", 10**9), made("Norm_0", 1), made("Norm_1", 2)])) == ["a", "Norm_0-1"]

    def test_rows_that_hold_each_other_are_shown(self) -> None:
        """What calls itself by way of another has each as the other's holder."""
        rows = [made("a", 10, 30, parent=1), made("b", 20, 30, parent=0), made("c", 5, parent=2)]
        assert sorted(labels(holding(rows))) == ["a", "b", "c"]

    def test_deep_nesting_needs_no_deep_stack(self) -> None:
        """Five thousand ranges inside each other."""
        rows = [made(f"r{n}", 1, 5000 - n, parent=n - 1 if n else None) for n in range(5000)]
        lines = shown(holding(rows), View(top=0)).lines
        assert (len(lines), lines[-1].depth) == (5000, 4999)


def by_chance(seed: int) -> Attribution:
    """Return any forest of rows: names, times, phases and holders by chance."""
    rng = random.Random(seed)
    rows: list[Row] = []
    for n in range(rng.randrange(1, 60)):
        parent = rng.choice([None, *range(n)][:8]) if rng.random() < 0.8 else None
        name = f"{rng.choice('ab')}{rng.choice(['', '.m'])}_{rng.randrange(9)}"
        own = rng.choice([0, 10, 11, 10, 200])
        rows.append(made(name, own, own + rng.randrange(3), parent=parent, phase=rng.choice([None, Phase.DECODE])))
    return holding(rows, {"outside layers": rng.randrange(50)})


VIEWS: tuple[dict[str, object], ...] = (
    {},
    {"top": 3},
    {"top": 1, "sort": "own"},
    {"depth": 1},
    {"depth": 2, "top": 4, "sort": "name"},
    {"top": 0, "sort": "calls"},
)


@pytest.mark.parametrize("view", VIEWS, ids=str)
@pytest.mark.parametrize("seed", range(25))
def test_every_row_is_in_one_place_and_its_time_is_told(seed: int, view: dict[str, object]) -> None:
    """Lines + lighter + others + idle are all rows, once each, and their own times are all of the rows' time."""
    result = by_chance(seed)
    seen = shown(result, View(**view))  # type: ignore[arg-type]  # see VIEWS
    places = [place for line in seen.lines for place in line.node.places]
    assert len(places) == len(set(places))
    own = sum(line.node.sum("self_ns") for line in seen.lines)
    assert own + seen.lighter_ns + seen.others_ns == sum(row.self_ns for row in result.rows)
    assert len(places) + seen.lighter + seen.others + seen.idle == len(result.rows)
    assert not view.get("top") or len(seen.lines) <= int(str(view["top"]))


class TestChoosing:
    """What is shown of it."""

    def test_depth_cuts_and_says_what_is_below(self) -> None:
        """Two levels: the model and its layers; the rest is 996 of each layer."""
        seen = shown(holding(stacked(4)), View(depth=2))
        assert [line.node.label for line in seen.lines] == ["Model_0", "Embedding_0", "Layer_0-3"]
        assert seen.lighter_ns == 4 * 996

    def test_the_heaviest_lines_stay_with_what_is_around_them(self) -> None:
        """Four lines, in their order: the model, its layers, attention and MLP."""
        assert labels(holding(stacked(4)), top=4) == ["Model_0", "Layer_0-3", "Attention_0-3", "MLP_0-3"]

    def test_the_heaviest_by_the_column_that_is_asked_for(self) -> None:
        """By own time, the leaf that holds most of it comes with its holders."""
        rows = [made("a", 0, 90), made("b", 0, 90, parent=0), made("c", 90, parent=1), made("d", 80)]
        assert labels(holding(rows), top=3, sort="own") == ["a", "b", "c"]
        assert labels(holding(rows), top=1, sort="own") == ["a"]

    @pytest.mark.parametrize(
        ("sort", "order"),
        [
            ("order", ["b", "a", "c"]),
            ("time", ["c", "b", "a"]),
            ("own", ["b", "a", "c"]),
            ("calls", ["a", "c", "b"]),
            ("name", ["a", "b", "c"]),
            ("each", ["c", "b", "a"]),
        ],
    )
    def test_rows_stand_in_the_order_asked_for(self, sort: str, order: list[str]) -> None:
        """Inside each holder."""
        rows = [made("top", 0, 300), made("b", 50, parent=0), made("a", 40, calls=9, parent=0)]
        rows.append(made("c", 10, 100, calls=5, parent=0))
        assert labels(holding(rows), sort=sort) == ["top", *order]

    def test_only_keeps_what_is_around_and_inside(self) -> None:
        """One layer of four, with its model, and all its parts; the others are counted as not asked for."""
        seen = shown(holding(stacked(4)), View(only="Layer_2"))
        assert [(line.node.label, line.around) for line in seen.lines][:3] == [
            ("Model_0", True),
            ("Layer_2", False),
            ("Norm_4", False),
        ]
        assert sum(line.node.sum("self_ns") for line in seen.lines) == 10 + 1000 - 2
        assert seen.others_ns == 50 + 3000 + 2
        assert seen.lighter == 0

    @pytest.mark.parametrize("pattern", ["Attention", "Att*", "*tention_?", "*ntion_[0-9]"])
    def test_only_takes_parts_of_names_and_patterns(self, pattern: str) -> None:
        """All four write the same."""
        assert labels(holding(stacked(4)), only=pattern) == [
            "Model_0",
            "Layer_0-3",
            "Attention_0-3",
            "Rotary_0",
            "Linear_0..21",
        ]

    def test_a_name_with_brackets_is_found_as_it_stands(self) -> None:
        """Steps of servers have them, and they are a pattern, too."""
        assert labels(holding([made("step[DECODE bs=4]", 5), made("b", 1)]), only="step[DECODE bs=4]") == [
            "step[DECODE bs=4]"
        ]

    def test_phase_keeps_rows_of_that_phase(self) -> None:
        """With what is around them, which may have none."""
        rows = [made("run", 0, 30), made("a", 10, parent=0, phase=Phase.DECODE), made("b", 20, parent=0)]
        rows.append(made("m", 5, phase="mixed"))
        assert labels(holding(rows), phase="decode") == ["run", "a"]
        assert labels(holding(rows), phase="mixed") == ["m"]

    def test_rows_without_work_are_counted_alone(self) -> None:
        """But not those whose work is in a graph or was lost."""
        rows = [made("a", 5), made("idle", 0), made("graph", 0, graph_ns=7), made("lost", 0, not_recorded=1)]
        seen = shown(holding(rows), View())
        assert [line.node.label for line in seen.lines] == ["a", "graph", "lost"]
        assert seen.idle == 1


def wrong() -> Iterator[tuple[dict[str, object], str, str]]:
    """Yield what cannot be shown, what is said of it, and what is known."""
    yield {"sort": "tiem"}, "no column 'tiem'", "Did you mean 'time'?"
    yield {"sort": "x"}, "no column 'x'", ", ".join(SORTS)
    yield {"phase": "decod"}, "no phase 'decod'", "vision, prefill, decode, mixed"
    yield {"phase": "vision"}, "of the phase 'vision'", "It has decode"
    yield {"depth": 0}, "depth 0", "--depth 1"
    yield {"top": -1}, "-1 lines", "0 shows all"
    yield {"only": "layers.1."}, "called 'layers.1.'", "layers.1"


@pytest.mark.parametrize(("view", "problem", "remedy"), list(wrong()), ids=str)
def test_what_there_is_not_is_one_message_with_what_there_is(
    view: dict[str, object], problem: str, remedy: str
) -> None:
    """A request that is wrong, exit 2."""
    result = holding([made("layers.0", 5, phase=Phase.DECODE), made("layers.1", 5, phase=Phase.DECODE)])
    with pytest.raises(RequestError) as caught:
        shown(result, View(**view))  # type: ignore[arg-type]  # see wrong()
    assert problem in caught.value.problem
    assert remedy in caught.value.remedy
    assert caught.value.exit_code == 2


def test_a_trace_without_rows_has_an_empty_tree() -> None:
    """Whatever is asked of it."""
    nothing = holding([], {"graph launch": 5})
    assert shown(nothing, View(only="x", phase="decode")).lines == ()
    assert list(tree.walk(tree.of(nothing))) == []


def test_kernels_of_rows_that_share_a_line_add_up() -> None:
    """The heaviest of the sum is not the heaviest of any."""
    rows = [made("Layer_0", 10, top=(("a", 6), ("b", 4))), made("Layer_1", 10, top=(("c", 6), ("b", 4)))]
    node: Node
    (node,) = tree.of(holding(rows))
    assert node.top == (("b", 8), ("a", 6), ("c", 6))
