"""An attributed trace shown: every row and bucket is there, the books are printed, nothing is markup."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
import traces_lost
import traces_synthetic as synthetic
from attributions import holding, selves, stacked
from goldens import assert_golden
from rich.console import Console
from scenario import OUTSIDE, Scenario

from layerprof.errors import RequestError
from layerprof.report.attribution import words
from layerprof.report.attribution.documents import COLUMNS, to_csv, to_json, to_markdown
from layerprof.report.attribution.terminal import render
from layerprof.report.attribution.view import View
from layerprof.report.attribution.view import shown as shown_of
from layerprof.report.attribution.words import busy_share
from layerprof.report.markdown_text import escape
from layerprof.trace.attribute import attribute
from layerprof.trace.attribution import NO_LAUNCH, Attribution
from layerprof.trace.sums import merged

GEMM = "sm90_xmma_gemm_f16f16_f16f32_f32_tn_n_tilesize128x128x64_warpgroupsize1x1x1_cublas"


def shown(scenario: Scenario, **view: Any) -> str:
    """Return what a pipe gets."""
    out = io.StringIO()
    render(attribute(scenario.events), out, View(**view))
    return out.getvalue()


def on_a_terminal(scenario: Scenario, width: int) -> str:
    """Return what a terminal of that width shows, without colours."""
    return on_a_screen(attribute(scenario.events), width)


def on_a_screen(result: Attribution, width: int, view: View | None = None) -> str:
    """Return the same of any attribution."""
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, color_system=None, legacy_windows=False)
    console._environ = {}
    render(result, console, view)
    return out.getvalue()


def answering() -> Scenario:
    """Answer in two steps with layers, a submodule, a graph and a copy, under names as long as real ones."""
    s = Scenario()
    blocks = [(f"model.visual.blocks.{n}", "vision") for n in range(2)]
    layers = [(f"model.language_model.layers.{n}", phase) for phase in ("prefill", "decode") for n in range(2)]
    for place, (name, phase) in enumerate(blocks + layers):
        at = 1000 * place
        s.layer(name, at, 900, phase=phase, call=place)
        s.kernel(at + 100, at + 1500, 200 + 40 * place, (name, phase), name=GEMM)
        s.kernel(at + 300, at + 1800 + 40 * place, 30, (name, phase), name="vectorized_elementwise_kernel<4, SiLU>")
        inner = f"{name}.mlp.experts.gate_up_projection.quantised_linear"
        s.layer(inner, at + 500, 200, phase=phase, call=place)
        s.kernel(at + 550, at + 1900 + 40 * place, 55, (inner, phase), name="moe_grouped_gemm")
    s.layer("lm_head", 6000, 100, phase="decode", call=6)
    s.kernel(6050, 7900, 12.345, ("lm_head", "decode"), name="gemv2T_kernel_val")
    s.layer("model.language_model.layers.2", 6200, 100, phase="decode", call=7)
    s.add("cuda_runtime", "cudaGraphLaunch", 6250, 5, correlation=900)
    s.running(8000, 77, "graph launch", 900, name="fused_decode")
    s.kernel(6500, 8200, 9, OUTSIDE, name="reduce_kernel<argmax>")
    s.running(8300, 4, NO_LAUNCH, None, name="Memcpy DtoH (Device -> Pageable)", work="gpu_memcpy")
    return s


class TestTable:
    """What a reader sees."""

    @pytest.mark.parametrize("width", [80, 120])
    def test_it_looks_as_it_did(self, width: int) -> None:
        """At the two common widths, with long names, inner layers, graphs and buckets."""
        assert_golden(f"attribute_{width}.txt", on_a_terminal(answering(), width))

    @pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
    @pytest.mark.parametrize("name", sorted(synthetic.SCENARIOS))
    def test_no_name_is_broken_and_no_line_too_long(self, name: str, width: int) -> None:
        """Each row is one line: a name that wraps would look like two layers."""
        scenario = synthetic.SCENARIOS[name]()
        lines = on_a_terminal(scenario, width).splitlines()
        assert max(len(line) for line in lines) <= width
        table = lines[: lines.index("")]
        result = attribute(scenario.events)
        seen = shown_of(result, View())
        assert len(table) == 2 + len(seen.lines) + bool(seen.idle) or not result.rows

    def test_a_name_without_room_loses_its_middle(self) -> None:
        """Beginning and end stay, so that neighbours are told apart."""
        s = Scenario()
        for number in range(2):
            name = f"wrapper.module.base_model.model.model.language_model.layers.{number}.self_attn.q_proj.{number}"
            s.layer(name, 100 * number, 50)
            s.kernel(100 * number + 1, 900, 5 + 50 * number, (name, "decode"))
        lines = [line for line in on_a_terminal(s, 80).splitlines() if line.startswith("wrapper.")]
        assert ["..." in line for line in lines] == [True, True]
        assert [line.split()[0].endswith(f"q_proj.{number}") for number, line in enumerate(lines)] == [True, True]

    def test_busy_share_is_of_the_time_of_the_same_trace(self) -> None:
        """On a GPU of the time between first and last kernel of each call; on a CPU of the range itself."""
        on_gpu = attribute(synthetic.streams_and_threads().events)
        assert {busy_share([row], on_gpu) for row in on_gpu.rows if row.name == "model.layers.0"} == {1.0}
        s = Scenario()
        s.layer("a", 0, 100)
        s.kernel(1, 200, 10, ("a", "decode"))
        s.kernel(50, 230, 10, ("a", "decode"))
        gap = attribute(s.events)
        assert busy_share(gap.rows, gap) == 0.5
        on_cpu = attribute(synthetic.on_a_cpu().events)
        assert [busy_share([row], on_cpu) for row in on_cpu.rows] == [25 / 60, 25 / 40]

    def test_layers_buckets_and_total_are_there(self) -> None:
        """Names, own and inclusive times, and the books."""
        text = shown(synthetic.orphans())
        assert "model.layers.0" in text
        assert "no launch seen" in text
        assert "launched before the recording, or without an id" in text
        total = next(line for line in text.splitlines() if line.startswith("total"))
        assert total.split()[1:3] == ["41.0", "100"]

    def test_what_was_lost_stands_below_the_total(self) -> None:
        """A line of the books with how many and how much it may be, and where: never part of the sum."""
        s = traces_lost.lost_records()
        lines = shown(s).splitlines()
        total = next(place for place, line in enumerate(lines) if line.startswith("total"))
        assert lines[total].split()[1:3] == ["102", "100"]
        assert lines[total + 1].startswith("launched, not recorded    ?")
        s.events = [event for event in s.events if event["name"] != "cudaGraphLaunch"]
        lines = shown(s).splitlines()
        assert lines[total + 1].split()[:4] == ["launched,", "not", "recorded", "~46.0"]
        told = " ".join(" ".join(lines[total + 2 :]).split())
        assert "3 of 6 launches have no record of what they ran" in told
        assert "2 in model.layers.0" in told

    def test_where_nothing_of_the_gpu_was_recorded_times_are_said_to_be_the_hosts(self) -> None:
        """Operators' seconds must not pass for kernels'."""
        told = " ".join(shown(traces_lost.nothing_but_launches()).split())
        assert "2 of 2 launches put work on a GPU, and the trace has no record of any: the times above are the" in told

    def test_lost_graphs_are_named(self) -> None:
        """One launch of a graph may be all of a step."""
        assert "(1 whole CUDA graph, 2 in model.layers.0)" in " ".join(shown(traces_lost.lost_records()).split())

    def test_what_was_captured_is_told(self) -> None:
        """A capture's launches are neither lost nor counted as work."""
        told = " ".join(shown(traces_lost.captured_in_the_trace()).split())
        assert "4 launches went into CUDA graphs" in told

    def test_cpu_traces_say_so(self) -> None:
        """Operator time is not called GPU work, and GPU buckets are not shown."""
        text = shown(synthetic.on_a_cpu())
        assert "operators on the CPU" in text
        assert "graph launch" not in text

    def test_graphs_have_a_column_where_a_layer_launched_one(self) -> None:
        """The row says how much of the bucket is its own."""
        assert "in graphs" in shown(synthetic.graph_inside_a_layer())
        assert "in graphs" not in shown(synthetic.graph_replay())

    def test_a_trace_without_ranges_says_how_to_record_one(self) -> None:
        """The remedy is in the text, and the books still stand."""
        s = Scenario()
        s.kernel(20, 100, 5, OUTSIDE)
        text = shown(s)
        assert "no ranges" in text
        assert "with_stack" in text
        assert "outside layers" in text

    def test_an_empty_trace_is_no_error(self) -> None:
        """Events without any work give empty books."""
        s = Scenario()
        s.layer("a", 0, 10)
        assert "total" in shown(s)

    def test_lighter_rows_are_counted_with_what_they_took(self) -> None:
        """Shown are 10 of the model and 4 x (4 + 198 + 96) of its layers, attention and MLP; the rest is 2858 ns."""
        text = " ".join(on_a_screen(holding(stacked(4)), 80, View(top=4)).split())
        assert "34 lighter rows, 2.86 µs of their own (70.4 %), are not shown; --top 0 shows all." in text

    def test_deeper_rows_are_counted_too(self) -> None:
        """With the way to see them; shown are 10 of the model, 50 of its embedding and 4 x 4 of its layers."""
        text = " ".join(on_a_screen(holding(stacked(4)), 80, View(depth=2)).split())
        assert "41 deeper or lighter rows, 3.98 µs of their own (98.1 %), are not shown; --top 0 without" in text

    def test_events_that_could_not_be_read_are_told(self) -> None:
        """A damaged trace does not look whole."""
        assert "6 events could not be read" in shown(synthetic.untidy())

    def test_names_are_never_markup(self) -> None:
        """Kernel and range names with brackets come out as they are."""
        s = Scenario()
        s.add("user_annotation", "step [bold]x[/bold]", 0, 100)
        s.kernel(10, 50, 5, ("step [bold]x[/bold]", None), name="void kernel<[red]>(int)")
        text = shown(s)
        assert "step [bold]x[/bold]" in text
        assert "kernel<[red]>" in text


@pytest.mark.parametrize("name", sorted(synthetic.SCENARIOS))
class TestFiles:
    """CSV and JSON of every kind of trace."""

    def test_csv_adds_up(self, name: str) -> None:
        """Own seconds of layers and buckets are the total of the construction."""
        scenario = synthetic.SCENARIOS[name]()
        rows = list(csv.DictReader(io.StringIO(to_csv(attribute(scenario.events)))))
        assert tuple(rows[0]) == COLUMNS
        if scenario.lost:
            last = rows.pop()
            assert (last["name"], last["self_s"]) == ("<launched, not recorded>", "")
            assert int(last["not_recorded"]) == scenario.lost
            assert last["kernels"] == ""
        assert sum(float(row["self_s"]) for row in rows) == pytest.approx(scenario.total_us * 1e-6, abs=1e-12)
        assert [row["name"] for row in rows[-3:]] == ["<outside layers>", "<no launch seen>", "<graph launch>"]

    def test_json_holds_every_field(self, name: str) -> None:
        """Rows and buckets in whole nanoseconds."""
        scenario = synthetic.SCENARIOS[name]()
        result = attribute(scenario.events)
        data = json.loads(to_json(result))
        assert data["total_ns"] == result.total_ns
        assert data["buckets_ns"] == result.buckets_ns
        assert data["launched_not_recorded"] == scenario.lost
        assert data["unreadable_events"] == result.skipped
        assert [row["name"] for row in data["rows"]] == [row.name for row in result.rows]

    def test_markdown_has_every_row_and_the_books(self, name: str) -> None:
        """Two tables whose lines have as many cells as their heads."""
        scenario = synthetic.SCENARIOS[name]()
        result = attribute(scenario.events)
        blocks = to_markdown(result).split("\n\n")
        first, second = (block for block in blocks if block.startswith("|"))
        assert len(first.splitlines()) == 2 + len(shown_of(result, View()).lines)
        assert second.splitlines()[-1].startswith("| launched, not recorded |" if scenario.lost else "| total |")
        for table in (first, second):
            bars = {line.replace("\\|", "").count("|") for line in table.splitlines()}
            assert len(bars) == 1
        for remark in words.remarks(result):
            assert escape(remark) in to_markdown(result)


class TestSeveral:
    """Traces that are read together."""

    def test_rows_buckets_and_totals_add_up(self) -> None:
        """Twice the same and once another: times, calls, kernels and the heaviest of each."""
        nested, late = synthetic.nested_ranges(), synthetic.late_kernels()
        both = merged({str(n): attribute(s.events) for n, s in enumerate((nested, nested, late))})
        own = selves(both)
        expected = {key: 2 * us for key, us in nested.self_us.items()}
        for key, us in late.self_us.items():
            expected[key] = expected.get(key, 0) + us
        assert own == pytest.approx(expected)
        assert both.total_ns / 1e3 == pytest.approx(2 * nested.total_us + late.total_us)
        assert both.events == 2 * len(nested.events) + len(late.events)
        first = next(row for row in both.rows if row.name == "model.layers.0")
        assert first.calls == 3
        assert first.top == (("gemm", 2 * 18_000 + 100_000),)
        assert sum(row.self_ns for row in both.rows) + sum(both.buckets_ns.values()) == both.total_ns

    def test_one_trace_stays_as_it_is(self) -> None:
        """Nothing is added, nothing lost."""
        one = attribute(synthetic.orphans().events)
        assert merged({"a": one}) == one

    def test_traces_with_and_without_gpu_work_do_not_mix(self) -> None:
        """The message names the file without."""
        files = {"gpu.json": synthetic.orphans(), "cpu.json": synthetic.on_a_cpu()}
        with pytest.raises(RequestError, match=r"cpu\.json has no GPU work"):
            merged({name: attribute(scenario.events) for name, scenario in files.items()})
