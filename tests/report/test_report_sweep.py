"""Reports of sweeps and comparisons on figures chosen by hand; what comes from outside is never obeyed."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from missing_run import missing_run
from rich.console import Console
from sample_sweep import NASTY, run, sample_sweep, save_run

from layerprof import cli
from layerprof.errors import RequestError
from layerprof.report import comparison, kinds, write
from layerprof.report.sweep import columns, figures, overview, tables
from layerprof.runs import compare, store


@pytest.fixture
def data(tmp_path: Path) -> overview.SweepData:
    """Return the sample sweep, read from its folder."""
    return overview.load(sample_sweep(tmp_path / "sweep"))


def _text(data: overview.SweepData, name: str) -> str:
    out = io.StringIO()
    kinds.sweep().renderer(name)(data, out)
    return out.getvalue()


def test_rows_come_in_the_order_of_the_axes_with_the_report_beside(data: overview.SweepData) -> None:
    """Each row has its cell's figures, its state, and the earlier report's row of the same settings."""
    sizes, devices = tables.tables(data)
    assert [row.point for row in sizes.rows] == [{"batch_size": 1}, {"batch_size": 4}, {"batch_size": 16}]
    assert [row.reference["wer"] if row.reference else None for row in sizes.rows] == [28.2, 14.3, None]
    assert [row.figures.latency_s if row.figures else None for row in sizes.rows] == [0.1, 0.15, None]
    assert [row.point for row in devices.rows] == [{"device": "cuda"}, {"device": "cpu"}]
    assert [line["wer"] for line in sizes.unmatched] == [10.3]


def test_ratios_are_over_the_first_row_that_both_have(data: overview.SweepData) -> None:
    """0.15 s over 0.1 s, and the report's 1.2 s over 0.8 s."""
    sizes = tables.tables(data)[0]
    assert sizes.ratios("latency_s") == [1.0, pytest.approx(1.5), None]
    assert sizes.ratios("latency_s", of_reference=True) == [1.0, pytest.approx(1.5), None]


def test_cells_are_set_against_the_first_on_the_same_samples(data: overview.SweepData) -> None:
    """Two batches of 0.15 s against two of 0.1 s: 1.5 times as long, both pairs alike; the rate 0.05 lower.

    The first row of a table has nothing to be set against, nor has one without figures.
    """
    sizes, devices = tables.tables(data)
    first, second, crashed = (row.against for row in sizes.rows)
    assert first is None
    assert crashed is None
    assert second is not None
    assert second.wer is not None
    assert second.time.n == 2
    assert second.time.value == pytest.approx(1.5)
    assert list(second.time.ci95 or ()) == pytest.approx([1.5, 1.5])
    assert second.wer.value == pytest.approx(-0.05)
    assert [row.against for row in devices.rows] == [None, None]
    rows = list(csv.DictReader(io.StringIO(_text(data, "csv"))))
    ratios = [row["time_per_sample_ratio"] for row in rows]
    assert float(ratios.pop(1)) == pytest.approx(1.5)
    assert ratios == [""] * 4
    plain = json.loads(_text(data, "json"))["tables"][0]["rows"]
    assert [row["against_first"] and row["against_first"]["time_per_sample_ratio"]["pairs"] for row in plain] == [
        None,
        2,
        None,
    ]
    assert "per sample ×" in _text(data, "markdown")


def test_a_broken_file_beside_a_run_leaves_it_unpaired(tmp_path: Path) -> None:
    """The cell's own figures stand; there is no difference to show."""
    folder = sample_sweep(tmp_path / "sweep")
    broken = next(path for path in folder.rglob("batches.csv") if "bb" in path.parts)
    broken.write_text("batch,rows\nnothing\n")
    sizes = tables.tables(overview.load(folder))[0]
    assert sizes.rows[1].figures is not None
    assert sizes.rows[1].against is None


def test_repeats_are_joined_by_their_median_and_range() -> None:
    """Three repeats of 0.1, 0.4 and 0.2 s give 0.2 s, from 0.1 to 0.4."""
    found = figures.figures([run(0.1), run(0.4), run(0.2)])
    assert (found.repeats, found.latency_s, found.latency_ci) == (3, 0.2, (0.1, 0.4))


def test_the_terminal_names_every_cell_and_why_some_have_no_figures(data: overview.SweepData) -> None:
    """Tables, the guard that struck, and both cells without figures with their reasons."""
    out = io.StringIO()
    kinds.sweep().renderer("terminal")(data, out)
    text = " ".join(out.getvalue().split())
    for words in ("Batch size", "GPU against CPU", "crashed", "no CUDA device", "answers depend on the batch", "28.2"):
        assert words in text
    assert "2 of 4 cells measured" in text
    assert "4.8 % of it around the cells" in text


def test_markdown_cannot_be_broken_from_outside(data: overview.SweepData) -> None:
    """Tags and markup in titles and reasons are shown as they stand, and no cell breaks a table."""
    text = _text(data, "markdown")
    assert "<script>" not in text
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1


def test_csv_has_a_line_for_each_cell_of_each_table(data: overview.SweepData) -> None:
    """SI units under their names, the report's figures under report_*, empty where there is nothing."""
    rows = list(csv.DictReader(io.StringIO(_text(data, "csv"))))
    assert [(row["table"], row["status"]) for row in rows] == [
        ("sizes", "done"),
        ("sizes", "done"),
        ("sizes", "crashed"),
        ("devices", "skipped"),
        ("devices", "done"),
    ]
    assert rows[1]["latency_s"] == "0.15"
    assert rows[1]["batch_invariant"] == "0.25"
    assert rows[1]["report_latency_s"] == "1.2"
    assert rows[2]["latency_s"] == ""
    assert rows[3]["device"] == "cuda"


def test_json_holds_the_tables(data: overview.SweepData) -> None:
    """The JSON report is JSON, with figures, guards, reasons and the report's rows."""
    found = json.loads(_text(data, "json"))
    first = found["tables"][0]["rows"][0]
    assert first["figures"]["latency_ci"] == [pytest.approx(0.09), pytest.approx(0.11)]
    assert first["report"]["energy_j"] == 130.0
    assert found["tables"][0]["rows"][2]["reason"].endswith(NASTY)


def test_the_page_asks_for_nothing_and_obeys_nothing(data: overview.SweepData) -> None:
    """One file, a policy that forbids requests, and text from outside escaped in markup and data alike."""
    page = _text(data, "html")
    assert "default-src 'none'" in page
    assert NASTY not in page
    assert "<script>alert" not in page
    assert not re.search(r"<(?:script|link|img)[^>]+(?:src|href)=\"(?!data:)", page)


def test_a_file_gets_the_format_of_its_suffix(data: overview.SweepData, tmp_path: Path) -> None:
    """`-o sweep.md` is Markdown; an unknown format is refused with the nearest."""
    written = write.write(data, kinds.sweep(), "terminal", tmp_path / "new" / "sweep.md", Console(file=io.StringIO()))
    assert written is not None
    assert written.read_text().startswith("# Sample")
    with pytest.raises(RequestError, match="mardown"):
        write.write(data, kinds.sweep(), "mardown", None, Console(file=io.StringIO()))


def test_a_comparison_reads_in_every_format(tmp_path: Path) -> None:
    """+20 % with its interval, the layer, what changed in the settings, and the verdict of --fail-above."""
    save_run(run(0.25), tmp_path / "a", (0.2, 0.3))
    save_run(run(0.3, batch_size=4), tmp_path / "b", (0.24, 0.36))
    found = compare.compare(tmp_path / "a", tmp_path / "b")
    terminal, markdown, plain = io.StringIO(), io.StringIO(), io.StringIO()
    comparison.render(found, terminal, 5)
    comparison.render_markdown(found, markdown)
    comparison.render_json(found, plain)
    for text in (terminal.getvalue(), markdown.getvalue().replace("\\", "")):
        assert "+20.0 %" in text
        assert "[+20.0, +20.0]" in text
        assert "batch_size" in text
    assert "worse by more than 5 %: latency per sample +20.0 %" in terminal.getvalue()
    totals = json.loads(plain.getvalue())["cells"][0]["totals"]
    assert totals[0]["value"] == pytest.approx(1.2)


def test_a_comparison_of_other_samples_says_so_in_every_format(tmp_path: Path) -> None:
    """Units of each side stand where pairs would; a rate has its unit, and a lower one is told as worse."""
    save_run(run(0.25), tmp_path / "a", (0.2, 0.3))
    save_run(run(0.3), tmp_path / "b", (0.5, 0.5, 0.5))
    file = tmp_path / "b" / "samples.jsonl"
    file.write_text(file.read_text().replace('"key":"', '"key":"other-'))
    found = compare.compare(tmp_path / "a", tmp_path / "b")
    terminal, markdown, plain = io.StringIO(), io.StringIO(), io.StringIO()
    comparison.render(found, terminal, 5)
    comparison.render_markdown(found, markdown)
    comparison.render_json(found, plain)
    for text in (terminal.getvalue(), markdown.getvalue().replace("\\", "")):
        assert "no sample in both, so nothing is paired" in text
        assert "4 ids stand in both runs for different samples" in text
        assert "2 | 3" in text
        assert "40.0 /s" in text
    assert "worse by more than 5 %: output tokens per second -50.0 %" in terminal.getvalue()
    totals = json.loads(plain.getvalue())["cells"][0]["totals"]
    assert (totals[0]["apart"], totals[0]["n"]) == ([2, 3], 0)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_figure_of_a_comparison_is_cut(width: int, tmp_path: Path) -> None:
    """Names of quantities wrap, pairs and then intervals give way, before a figure is shortened."""
    save_run(run(0.25), tmp_path / "a", (0.2, 0.3))
    save_run(run(0.3, batch_size=4), tmp_path / "b", (0.24, 0.36))
    out = io.StringIO()
    comparison.render(compare.compare(tmp_path / "a", tmp_path / "b"), Console(file=out, width=width))
    text = out.getvalue()
    assert "..." not in text
    assert "…" not in text
    assert "+20.0 %" in text
    if width > 60:
        assert "[+20.0, +20.0]" in text


def test_a_comparison_shows_memory_by_layer_where_both_measured_it(tmp_path: Path) -> None:
    """Peaks of a call stand in a table of their own, which is left out where a run has none."""
    for name, size in (("a", 1_000_000), ("b", 2_000_000), ("c", None)):
        made = run(0.25)
        rows = tuple(row.model_copy(update={"memory_peak_bytes": size}) for row in made.layers)
        save_run(made.model_copy(update={"layers": rows}), tmp_path / name, (0.2, 0.3))
    for other, told in (("b", True), ("c", False)):
        found = compare.compare(tmp_path / "a", tmp_path / other)
        terminal, markdown = io.StringIO(), io.StringIO()
        comparison.render(found, terminal)
        comparison.render_markdown(found, markdown)
        assert ("what a call holds at its peak" in terminal.getvalue()) is told
        assert ("### Memory of a call at its peak" in markdown.getvalue()) is told
        assert ("1.00 MB" in markdown.getvalue() and "+100.0 %" in markdown.getvalue()) is told


@pytest.mark.parametrize(("limit", "code"), [("5", 1), ("30", 0)])
def test_compare_fails_above_what_is_allowed(
    limit: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--fail-above` ends with exit code 1 on a regression, for CI, and with 0 when all is within bounds."""
    save_run(run(0.25), tmp_path / "a", (0.2, 0.3))
    save_run(run(0.3), tmp_path / "b", (0.24, 0.36))
    command = ["layerprof", "compare", str(tmp_path / "a"), str(tmp_path / "b"), "--fail-above", limit]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert (stop.value.code or 0) == code
    assert ("worse by more than 5 %" in capsys.readouterr().out) is bool(code)


def test_report_takes_a_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`layerprof report` shows a sweep's folder as it shows a run's."""
    monkeypatch.setattr("sys.argv", ["layerprof", "report", str(sample_sweep(tmp_path / "s")), "--format", "csv"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    assert capsys.readouterr().out.startswith("table,model,dataset")


def test_flops_that_miss_an_operator_are_marked_in_every_table(tmp_path: Path) -> None:
    """The sign in text, a column of its own in CSV, a field in JSON, and nothing in plots, which have no sign."""
    sample_sweep(tmp_path)
    for file in tmp_path.glob("cells/*/run.json"):
        made = store.load(file)
        totals = missing_run().totals
        marked = {name: getattr(totals, name) for name in ("flops", "flops_per_sample", "flops_at_least")}
        changed = {"totals": made.totals.model_copy(update=marked), "ledger": missing_run().ledger}
        store.save(made.model_copy(update=changed), file.parent)
    data = overview.load(tmp_path)
    for name in ("terminal", "markdown"):
        text = _text(data, name)
        assert re.search(r"(≥|>=) 18\.7", text)
        assert "have no formula" in text
    rows = list(csv.DictReader(io.StringIO(_text(data, "csv"))))
    assert {(row["flops"], row["flops_at_least"]) for row in rows if row["flops"]} == {("18675250000.0", "True")}
    figures = [row["figures"] for table in json.loads(_text(data, "json"))["tables"] for row in table["rows"]]
    assert {one["flops_at_least"] for one in figures if one} == {True}
    assert '"flops": 18675250000' not in _text(data, "html")


def test_time_stands_by_tower_and_phase(data: overview.SweepData) -> None:
    """Of a sample: 23 ms of calls in the vision tower over 4 samples, 91.4 ms of prefill, 127.5 ms of decode."""
    first = tables.tables(data)[0].rows[0]
    assert first.figures is not None
    assert first.figures.vision_span_s == pytest.approx(0.023 / 4)
    assert first.figures.prefill_span_s == pytest.approx(0.0914 / 4)
    assert first.figures.decode_span_s == pytest.approx(0.1275 / 4)
    titles = {column.title: column.cells for column in columns.columns(tables.tables(data)[0])}
    assert titles["ms vision"][0] == "5.75"
    assert titles["vision ×"][:2] == ["1.00", "1.00"]
    line = next(csv.DictReader(io.StringIO(_text(data, "csv"))))
    assert float(line["decode_span_s"]) == pytest.approx(0.1275 / 4)


def test_a_part_of_the_layers_gives_no_time_of_a_tower(data: overview.SweepData) -> None:
    """Where a selection has rows, what they add up to is not the tower's."""
    part = next(iter(data.runs.values()))
    part = part.model_copy(update={"settings": part.settings | {"layers": "vision[0]"}})
    found = figures.figures([part])
    assert (found.vision_span_s, found.prefill_span_s, found.decode_span_s) == (None, None, None)


def test_a_cell_that_ran_another_attention_than_asked_is_told(data: overview.SweepData) -> None:
    """Below the table, with the tower and both names; a cell that ran what was asked is not."""
    key = tables.tables(data)[0].rows[0].keys[0]
    asked = data.runs[key].settings | {"attention": "vision=flash,language=sdpa"}
    ran = data.runs[key].model | {"attention": {"vision": "sdpa", "language": "sdpa"}}
    data.runs[key] = data.runs[key].model_copy(update={"settings": asked, "model": ran})
    text = " ".join(_text(data, "markdown").replace("\\", "").split())
    assert "batch_size 1: the vision tower ran sdpa attention, not flash" in text
    assert text.count("attention, not") == 1
