"""What stands below the tree of an attributed trace: namings in the books, steps, graphs, inferred layers, remarks."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from attributions import holding, made, stacked
from goldens import assert_golden
from rich.console import Console

from layerprof.records import Phase
from layerprof.report.attribution import words
from layerprof.report.attribution.documents import to_csv, to_json, to_markdown
from layerprof.report.attribution.terminal import render
from layerprof.report.attribution.view import View
from layerprof.trace.attribution import Attribution, GraphUse, Naming, Stack, Steps, Unknown


def screen(result: Attribution, width: int = 120, **view: Any) -> str:
    """Return what a terminal of that width shows, without colours."""
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, color_system=None, legacy_windows=False)
    console._environ = {}
    render(result, console, View(**view))
    return out.getvalue()


def flat(text: str) -> str:
    """Return text without its line breaks."""
    return " ".join(text.split())


def served() -> Attribution:
    """Return a server's trace: a captured decode step of a model, an inferred one of another, a bit of both phases."""
    captured = stacked(24, slow=(7,), phase=Phase.DECODE, naming=Naming.CAPTURED)
    rows = [made("execute", 30, 30 + captured[0].inclusive_ns, phase=Phase.DECODE, top=(("argmax", 20), ("fill", 10)))]
    for row in captured:
        parent = 0 if row.parent is None else row.parent + 1
        figures = {name: getattr(row, name) for name in ("calls", "phase", "naming")}
        kernel = (("_ZN5aiter11rmsnorm_fwdIfEEvv", row.self_ns),)
        rows.append(made(row.name, row.self_ns, row.inclusive_ns, parent=parent, top=kernel, **figures))
    rows += [
        made("head", 40, phase="mixed", naming=Naming.INFERRED),
        *(made(f"layer {n}", 300 + 200 * (n % 2), phase="mixed", naming=Naming.INFERRED) for n in range(24)),
        made("tail", 60, phase="mixed", naming=Naming.INFERRED),
    ]
    return holding(
        rows,
        {"outside layers": 100, "graph launch": 500},
        steps=(
            Steps("d", Phase.DECODE, 4, 24_590, 9_000, 32, 0, 0, 32, 32),
            Steps("m", Phase.MIXED, 2, 9_700, 5_000, 12, 2, 8_000, 10, 10),
        ),
        graphs=(
            GraphUse(4, 544, 24_560, 24_560, "capture_32 in a.json", "graph node ids"),
            GraphUse(2, 421, 9_700, 0, "capture_32 in b.json", "order", "its ranges tell no layers", 9_700),
            GraphUse(1, 9, 500, 0, None, None, "no capture of it is known"),
        ),
        stacks=(Stack("layer 0..23", 24, 2, 9_600, 40, 60, 9_700, (12, 12), 0.012, ("an attention kernel in each",)),),
        unknown={"mtia_work": Unknown(3, 2_000_000)},
        remarks=("The server's clock jumped.",),
    )


@pytest.mark.parametrize("width", [80, 120])
def test_it_looks_as_it_did(width: int) -> None:
    """Namings, folds, a slow layer, steps, graphs and inferred layers."""
    assert_golden(f"attribute_served_{width}.txt", screen(served(), width))


@pytest.mark.parametrize("width", [80, 120])
def test_a_screen_holds_it(width: int) -> None:
    """Tree and books of a deep model with a layer that stands out take no more than forty lines."""
    lines = screen(holding(stacked(80, slow=(7,))), width).splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= width


class TestBooks:
    """How much of the total has its name from where."""

    def test_namings_and_buckets_are_the_total(self) -> None:
        """By hand: 30; 60 + 24 x 1000 + 500; 40 + 12 x 300 + 12 x 500 + 60; 100 + 500."""
        lines = {label: ns for label, ns, *_ in words.book_lines(served())}
        assert lines == {
            "rows, recorded": 30,
            "rows, captured": 24_560,
            "rows, inferred": 9_700,
            "outside layers": 100,
            "no launch seen": 0,
            "graph launch": 500,
            "total": 34_890,
        }

    def test_where_all_is_recorded_nothing_is_said_of_it(self) -> None:
        """One line for the rows, and no column."""
        text = screen(holding(stacked(4)))
        assert "rows  " in text
        assert "recorded" not in text
        assert "naming" not in text

    def test_each_row_says_its_naming(self) -> None:
        """In full where there is room, else in three letters; an inferred name says so itself."""
        wide, narrow = screen(served(), top=0).splitlines(), screen(served(), 80, top=0).splitlines()
        assert next(line for line in wide if "Layer_7" in line).split()[2] == "captured"
        assert next(line for line in narrow if "Layer_7" in line).split()[2] == "cap"
        assert next(line for line in wide if line.startswith("layer 0,2..22 (inferred)"))

    def test_a_phase_that_all_have_is_said_once(self) -> None:
        """Above the table, which then has no column for it."""
        text = screen(holding(stacked(4, phase=Phase.DECODE)))
        assert "all rows in decode" in text.splitlines()[0]
        assert "phase" not in text.splitlines()[1]
        assert "phase" in screen(served()).splitlines()[1]


class TestSteps:
    """A server's steps."""

    def test_mixed_steps_are_said_to_be_mixed_with_their_counts(self) -> None:
        """Requests and tokens of both kinds, and the work of one step."""
        lines = screen(served()).splitlines()
        (decode,) = (line.split() for line in lines if line.startswith("decode  "))
        assert decode[:8] == ["decode", "4", "32", "0", "0", "32", "32", "6.15"]
        (mixed,) = (line.split() for line in lines if line.startswith("mixed   "))
        assert mixed[:9] == ["mixed", "2", "12", "2", "8", "000", "10", "10", "4.85"]
        assert "2 steps work on prompts and on answers at once: phase `mixed`." in lines

    def test_many_kinds_of_steps_are_added_up_by_phase(self) -> None:
        """With the least and the most of each count."""
        steps = [Steps(f"s{n}", Phase.PREFILL, 1, 10, 5, 1, 1, 100 + n, 0, 0) for n in range(20)]
        text = screen(holding([made("a", 200)], steps=tuple(steps)))
        (line,) = (line for line in text.splitlines() if line.startswith("prefill"))
        assert flat(line) == "prefill 20 1 1 100 to 119 0 0 10.0 ns 100"


class TestGraphs:
    """What became of replays."""

    def test_graphs_say_what_they_were_matched_with_and_why_not(self) -> None:
        """A sentence for those that are alike."""
        text = flat(screen(served()))
        assert "4 replays of 544 kernels, 24.6 µs: 100 % matched with capture_32 in a.json by graph node ids." in text
        assert "by order; its ranges tell no layers; 100 % inferred." in text
        assert "1 graph, 1 replay of 9 kernels, 500 ns: no capture of it is known." in text

    def test_alike_graphs_are_one_sentence(self) -> None:
        """Twenty-five pieces of a model."""
        graphs = [GraphUse(2, 4 + n % 3, 100, 99, "c", "kernel names") for n in range(25)]
        text = flat(screen(holding([made("a", 2500)], graphs=tuple(graphs))))
        assert "25 graphs, 50 replays of 4 to 6 kernels, 2.50 µs: 99.0 % matched with c by kernel names." in text

    def test_where_no_capture_was_given_one_would_help(self) -> None:
        """Said of a bucket and of inferred layers; not where captures are there, nor of traces without graphs."""
        told = words.CAPTURE_HELPS
        assert told in words.remarks(holding([], {"graph launch": 5}))
        assert told in words.remarks(holding([], graphs=(GraphUse(1, 1, 5, 5),), stacks=served().stacks))
        assert told not in words.remarks(served())
        assert told not in words.remarks(holding([made("a", 5)]))


class TestInferred:
    """How sure inferred layers are."""

    def test_layers_say_what_they_cover_and_how_alike_they_are(self) -> None:
        """Share of the work looked at, head, tail, kinds, spread and evidence."""
        assert (
            "layer 0..23 (24 layers, 12 + 12 by their kernels), passed 2 times: 99.0 % of 9.70 µs without ranges, 0.4 "
            "% before and 0.6 % after them; layers of a kind differ by 1.2 %. An attention kernel in each."
        ) in flat(screen(served()))


class TestRemarks:
    """What a reader must know."""

    def test_unknown_categories_are_named_with_their_time(self) -> None:
        """Nothing falls under the table in silence."""
        text = flat(screen(served()))
        assert "is not known, and whose time is in no figure: mtia_work (3 events, 2.00 ms)." in text
        assert "The server's clock jumped." in text


class TestNames:
    """Names come from anywhere."""

    def test_no_name_reaches_the_terminal_as_a_command(self) -> None:
        """Escape sequences in ranges, kernels, captures, evidence and remarks are blanks."""
        evil = "x\x1b[2J\x07\u202ey"
        result = holding(
            [made(evil, 5, top=((evil, 5),)), made("b", 3, naming=Naming.INFERRED)],
            graphs=(GraphUse(1, 1, 5, 5, evil, evil, evil),),
            stacks=(Stack(evil, 1, 1, 5, 0, 0, 5, (1,), None, (evil,)),),
            steps=(Steps(evil, None, 1, 5, 5),),
            unknown={evil: Unknown(1, 1)},
            remarks=(evil,),
        )
        for text in (screen(result, 80), screen(result, 160), to_markdown(result)):
            assert not any(sign in text for sign in "\x1b\x07\u202e")

    @pytest.mark.parametrize(
        ("mangled", "told"),
        [
            ("_ZN5aiter24add_rmsnorm_quant_kernelIN7ck_tile9bfloat16_tEEEvPT_", "aiter::add_rmsnorm_quant_kernel"),
            ("_Z13rmsnorm_firstPf", "rmsnorm_first"),
            ("_ZN5short99x", "short::x"),
            ("_Z", "_Z"),
            ("void at::native::elementwise_kernel<4>", "elementwise_kernel<4>"),
            ("void at::native::(anonymous namespace)::cat<2>(int)", "cat<2>(int)"),
            ("sm90_gemm", "sm90_gemm"),
        ],
    )
    def test_kernels_are_told_by_what_distinguishes_them(self, mangled: str, told: str) -> None:
        """Not by what all of them begin with."""
        assert words.plain(mangled) == told


class TestFiles:
    """Files have all of it."""

    def test_csv_has_namings_holders_and_kernels(self) -> None:
        """Each row names the one around it, and its kernels with their seconds."""
        rows = list(csv.DictReader(io.StringIO(to_csv(served()))))
        first, model, embedding = rows[:3]
        assert (first["naming"], first["parent"], first["top_kernel_2"]) == ("recorded", "", "fill")
        assert float(first["top_kernel_2_s"]) == pytest.approx(10e-9)
        assert (model["naming"], model["parent"]) == ("captured", "execute")
        assert embedding["parent"] == "Model_0"
        assert sum(float(row["self_s"]) for row in rows) == pytest.approx(34_890e-9)

    def test_json_has_every_part(self) -> None:
        """Namings, holders by their place, steps, graphs, inferred layers, unknown categories and remarks."""
        told = json.loads(to_json(served()))
        assert told["rows"][2] | {"top": []} == told["rows"][2] | {"naming": "captured", "parent": 1, "top": []}
        assert told["rows"][0]["top"] == [["argmax", 20], ["fill", 10]]
        assert told["steps"][1]["phase"] == "mixed"
        assert told["graphs"][0]["by"] == "graph node ids"
        assert told["stacks"][0]["kinds"] == [12, 12]
        assert told["unknown"] == {"mtia_work": {"events": 3, "ns": 2_000_000}}
        assert told["remarks"] == ["The server's clock jumped."]

    def test_markdown_has_the_sections(self) -> None:
        """Each under its heading."""
        text = to_markdown(served())
        for title in ("Steps", "CUDA graphs", "Inferred layers"):
            assert f"\n## {title}\n" in text
        assert "| rows, captured |" in text
        assert "| naming |" in text.splitlines()[2]
