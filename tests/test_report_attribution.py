"""An attributed trace shown: every row and bucket is there, the books are printed, nothing is markup."""

from __future__ import annotations

import csv
import io
import json

import pytest
import traces_synthetic as synthetic
from traces_synthetic import Scenario

from layerprof.attribution import attribute
from layerprof.report.attribution import COLUMNS, render, to_csv, to_json


def shown(scenario: Scenario, most: int | None = None) -> str:
    """Return what a pipe gets."""
    out = io.StringIO()
    render(attribute(scenario.events), out, most=most)
    return out.getvalue()


class TestTable:
    """What a reader sees."""

    def test_layers_buckets_and_total_are_there(self) -> None:
        """Names, own and inclusive times, and the books."""
        text = shown(synthetic.orphans())
        assert "model.layers.0" in text
        assert "no launch seen" in text
        assert "outside the recorded window" in text
        total = next(line for line in text.splitlines() if line.startswith("total"))
        assert total.split()[1:3] == ["41.0", "100"]

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
        s.kernel(20, 100, 5, synthetic.OUTSIDE)
        text = shown(s)
        assert "no ranges" in text
        assert "with_stack" in text
        assert "outside layers" in text

    def test_an_empty_trace_is_no_error(self) -> None:
        """Events without any work give empty books."""
        s = Scenario()
        s.layer("a", 0, 10)
        assert "total" in shown(s)

    def test_lighter_rows_can_be_left_out_and_are_counted(self) -> None:
        """With a limit the heaviest rows stay."""
        text = shown(synthetic.late_kernels(), most=1)
        assert "model.layers.1" in text
        assert "model.layers.0" not in text
        assert "1 lighter rows" in text

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
        assert sum(float(row["self_s"]) for row in rows) == pytest.approx(scenario.total_us * 1e-6, abs=1e-12)
        assert [row["name"] for row in rows[-3:]] == ["<outside layers>", "<no launch seen>", "<graph launch>"]

    def test_json_holds_every_field(self, name: str) -> None:
        """Rows and buckets in whole nanoseconds."""
        scenario = synthetic.SCENARIOS[name]()
        result = attribute(scenario.events)
        data = json.loads(to_json(result))
        assert data["total_ns"] == result.total_ns
        assert data["buckets_ns"] == result.buckets_ns
        assert [row["name"] for row in data["rows"]] == [row.name for row in result.rows]
