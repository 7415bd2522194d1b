"""A sweep shows the whole request, throughput and what a right answer costs, with the intervals that there are."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from sample_sweep import run, sample_sweep
from whole_request import request_run

from layerprof.records import Run
from layerprof.report import kinds
from layerprof.report.sweep import figures, overview, tables
from layerprof.runs import store
from layerprof.sweep.folder import SweepFolder


def _costing(made: Run, **energy: Any) -> Run:
    totals = made.totals.model_copy(update={"energy": made.totals.energy.model_copy(update=energy)})
    return made.model_copy(update={"totals": totals})


@pytest.fixture
def data(tmp_path: Path) -> overview.SweepData:
    """Return the sample sweep; of its two measured cells the first timed the whole request."""
    path = sample_sweep(tmp_path / "sweep")
    store.save(request_run(), SweepFolder(path).cell_folder("aa"))
    return overview.load(path)


def _text(data: overview.SweepData, name: str) -> str:
    out = io.StringIO()
    kinds.sweep().renderer(name)(data, out)
    return out.getvalue()


def test_csv_has_the_request_the_rates_and_the_cost_in_si_units(data: overview.SweepData) -> None:
    """Each time with the ends of its interval; empty for the cell that did not time its requests."""
    timed, other = list(csv.DictReader(io.StringIO(_text(data, "csv"))))[:2]
    expected = {
        "samples": 12, "instrumented": 4, "samples_per_s": 12 / 0.9, "output_tokens_per_s": 160.0,
        "read_s": 0.005, "read_ci_low_s": 0.0045, "read_ci_high_s": 0.0055, "process_s": 0.0175, "copy_s": 0.001,
        "generate_s": 0.125, "ttft_request_s": 0.0835, "ttft_request_ci_low_s": 0.079, "ttft_request_ci_high_s": 0.088,
        "energy_per_correct_answer_j": 20 / 3, "energy_per_correct_answer_ci_low_j": 5.0,
        "energy_per_correct_answer_ci_high_j": 10.0,
    }  # fmt: skip
    assert {name: float(timed[name]) for name in expected} == pytest.approx(expected)
    assert {other[name] for name in expected if name not in ("samples", "instrumented")} == {""}
    assert (other["samples"], other["instrumented"]) == ("4", "4")


def test_json_has_the_figures_with_their_intervals(data: overview.SweepData) -> None:
    """Under the names of the figures, and why there is no cost."""
    first, second = (row["figures"] for row in json.loads(_text(data, "json"))["tables"][0]["rows"][:2])
    assert (first["ttft_request_s"], first["ttft_request_ci"]) == (0.0835, [0.079, 0.088])
    assert (first["correct_j"], first["correct_ci"]) == (pytest.approx(20 / 3), [5.0, 10.0])
    assert (second["copy_s"], second["copy_ci"], second["correct_j"]) == (None, None, None)


@pytest.mark.parametrize("name", ["terminal", "markdown", "html"])
def test_tables_show_the_request_and_the_cost(data: overview.SweepData, name: str) -> None:
    """In scales that fit each: a terminal that is wide enough has them all."""
    out = io.StringIO()
    kinds.sweep().renderer(name)(data, Console(file=out, width=600) if name == "terminal" else out)
    text = out.getvalue().replace("\\", "")
    for words in ("ms read", "17.5", "ms to token", "83.5", "samples/s", "13.3", "160", "J/right answer", "6.67"):
        assert words in text
    for interval in ("[5.00, 10.0]", "[79.0, 88.0]", "[17.0, 18.0]"):
        assert interval in text


def test_a_sweep_without_requests_has_no_such_columns(tmp_path: Path) -> None:
    """Columns that no cell fills are left out; sweeps of older runs look as they did."""
    text = _text(overview.load(sample_sweep(tmp_path / "sweep")), "markdown")
    head = next(line for line in text.splitlines() if line.startswith("| batch"))
    for word in ("read", "process", "copy", "right answer", "to token", "samples/s", "tokens/s"):
        assert word not in head


def test_repeats_have_the_range_of_their_costs_and_times() -> None:
    """Two repeats: the medians lie between, the intervals are the ranges; one repeat has its own interval."""
    repeats = [_costing(request_run(), per_correct_answer=joules) for joules in (6.0, 8.0)]
    found = figures.figures(repeats)
    assert (found.correct_j, found.correct_ci) == (7.0, (6.0, 8.0))
    assert (found.read_s, found.read_ci) == (0.005, (0.005, 0.005))
    one = figures.figures([request_run(), run(0.1)])
    assert (one.ttft_request_s, one.ttft_request_ci) == (0.0835, (0.079, 0.088)), "of the repeat that has it"


def test_why_a_right_answer_has_no_cost_is_told_once(tmp_path: Path) -> None:
    """Both cells have joules and no right answer."""
    path = sample_sweep(tmp_path / "sweep")
    for key in ("aa", "bb"):
        made = _costing(run(0.1), per_correct_answer_reason="no answer was right")
        store.save(made, SweepFolder(path).cell_folder(key))
    data = overview.load(path)
    assert _text(data, "markdown").count("no joules of a right answer: no answer was right") == 2, "once a table"
    assert tables.tables(data)[0].rows[0].figures is not None


def test_samples_that_were_left_out_are_told_once(tmp_path: Path) -> None:
    """Two cells left the same two out: how many they are, and the first with its reason."""
    path = sample_sweep(tmp_path / "sweep")
    for key in ("aa", "bb"):
        made = run(0.1)
        bad = {"1": "1.png: cut off", "7": "7.png: no picture"}
        store.save(made.model_copy(update={"dataset": made.dataset | {"bad": bad}}), SweepFolder(path).cell_folder(key))
    text = _text(overview.load(path), "markdown").replace("\\", "")
    assert text.count("2 samples left out, e.g. 1.png: cut off") == 2, "once a table"


def test_plots_of_work_are_a_sample_that_was_instrumented(data: overview.SweepData) -> None:
    """FLOPs, joules and spans of layers are of 4 of the 12 samples, and shown a sample."""
    page = _text(data, "html")
    assert '"instrumented":4' in page.replace(" ", "")


def test_an_axis_that_is_a_figure_too_has_one_column(tmp_path: Path) -> None:
    """What was walked stands where a cell ran, what was asked for where it did not."""
    path = sample_sweep(tmp_path / "sweep")
    record = json.loads((path / "sweep.json").read_text())
    for cell in record["cells"]:
        for points in cell["points"].values():
            for point in points:
                point["instrumented"] = "all"
    (path / "sweep.json").write_text(json.dumps(record))
    lines = list(csv.reader(io.StringIO(_text(overview.load(path), "csv"))))
    assert lines[0].count("instrumented") == 1
    place = lines[0].index("instrumented")
    assert [line[place] for line in lines[1:4]] == ["4", "4", "all"]
