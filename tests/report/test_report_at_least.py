"""FLOPs that miss an operator: every report says so, and makes no share, rate or change of a lower bound."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from goldens import assert_golden
from missing_run import FOLD, INSIDE, MLP, TOLD, missing_run
from sample_run import LANGUAGE, VISION, bare_run, sample_run
from shown import shown

from layerprof.books.ledger import Sum
from layerprof.records import FORMAT, LayerRow, LedgerColumn, Phase, Run
from layerprof.report import balance, comparison, facts, layer_lines, run_parts, units
from layerprof.report.formats import html, markdown, tensorboard
from layerprof.report.formats.terminal import render_plain
from layerprof.report.payload import payload
from layerprof.runs import compare, layer_table, store
from layerprof.runs.changes import Comparisons
from layerprof.runs.sides import Side


def nothing_known() -> Run:
    """Return a run in which the one layer's operator is all that ran, without a clock."""
    reason = f"2 calls of {MLP} in {LANGUAGE}.layers.1 have no formula"
    missing = {MLP: missing_run().ledger.flops.not_counted[MLP].model_copy(update={"share": None})}
    column = LedgerColumn(
        layers=None,
        rest={},
        residual=None,
        total=None,
        reason=reason,
        not_counted=missing,
        at_least=("layers", "total"),
    )
    blank = LedgerColumn(layers=None, rest={}, residual=None, total=None, reason="switched off")
    books = sample_run().ledger.model_copy(update={"flops": column, "span_s": blank})
    none = {"flops": None, "flops_per_sample": None, "flops_useful": None, "flops_at_least": True}
    row = missing_run().layers[6].model_copy(update={"flops": None, "span_s": None})
    return sample_run(ledger=books, totals=sample_run().totals.model_copy(update=none), layers=(row,), warnings=())


def untimed() -> Run:
    """Return the run that misses operators without any time, so that shares would be of FLOPs."""
    bare, missing = bare_run(), missing_run()
    books = bare.ledger.model_copy(update={"flops": missing.ledger.flops})
    rows = tuple(row.model_copy(update={"span_s": None}) for row in missing.layers)
    return bare.model_copy(update={"ledger": books, "layers": rows, "totals": missing.totals})


# --- words ------------------------------------------------------------------------------------------------------------


def test_the_terminal_marks_bounds_and_says_what_is_missing() -> None:
    """The whole report, as somebody last looked at it."""
    assert_golden("terminal_at_least_120.txt", shown(missing_run(), 120))


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_marks_break_no_table(width: int) -> None:
    """No line is wider than the window."""
    assert max(len(line) for line in shown(missing_run(), width).splitlines()) <= width


def test_markdown_marks_bounds_and_says_what_is_missing() -> None:
    """The whole report, as somebody last looked at it."""
    out = io.StringIO()
    markdown.render(missing_run(), out)
    assert_golden("report_at_least.md", out.getvalue())


def test_a_pipe_spells_the_sign() -> None:
    """Logs are ASCII."""
    text = shown(missing_run(), tty=False)
    assert text.isascii()
    assert ">= 74.7 GFLOP" in text


def test_a_bound_has_its_sign_and_what_is_missing_has_none() -> None:
    """A dash says all there is to say."""
    assert units.bound("1.23 GFLOP", True) == "≥ 1.23 GFLOP"
    assert (units.bound("1.23 GFLOP", False), units.bound(units.MISSING, True)) == ("1.23 GFLOP", units.MISSING)


def test_the_total_is_a_bound_with_the_calls_that_it_misses() -> None:
    """16 calls of three operators; that 60 G are on real tokens says nothing of a share."""
    fact = next(fact for fact in facts.end_to_end(missing_run()) if fact.label == "FLOPs")
    assert (fact.value, fact.note) == ("≥ 74.7 GFLOP", "≥ 18.7 GFLOP per sample, 16 calls are not counted")


def test_what_is_not_known_at_all_is_a_dash_with_its_reason() -> None:
    """No zero anywhere."""
    run = nothing_known()
    fact = next(fact for fact in facts.end_to_end(run) if fact.label == "FLOPs")
    assert (fact.value, fact.note) == (units.MISSING, run.ledger.flops.reason)
    text = shown(run, 120)
    assert f"FLOPs: not known; 2 calls of {MLP} in {LANGUAGE}.layers.1 have no formula" in text
    assert "0 FLOP" not in text


def test_the_books_of_flops_are_never_called_balanced() -> None:
    """What was counted adds up without a residual; what was not is told instead."""
    book = balance.books(missing_run())[0]
    assert book.column.residual == 0
    assert balance.verdict(book) == f"at least; {TOLD}"
    said: list[str] = []
    render_plain(missing_run(), said.append)
    assert f"ledger FLOPs: at least; {TOLD}" in said
    open_column = book.column.model_copy(update={"residual": 5_000_000_000})
    assert balance.verdict(balance.Book("flops", "FLOPs", units.scale([1e9], "FLOP"), open_column)).endswith(
        "have no formula; residual 5.00 GFLOP"
    )


def test_lines_of_the_books_are_marked_and_have_no_share() -> None:
    """The merger is in no sum, and has its line; embeddings are whole."""
    book, labels = balance.books(missing_run())[0], balance.ledger_labels(missing_run())
    assert "merger" in labels
    assert [book.shown(label) for label in ("layers", "merger", "lm_head", "total")] == [
        "≥ 71.0",
        "–",
        "3.60",
        "≥ 74.7",
    ]
    assert book.shown("residual") == "–"
    assert {book.share(label) for label in labels} == {None}


def test_warnings_name_it_once() -> None:
    """The run warns itself; one of an older layerprof is warned of here."""
    sentence = f"FLOPs are at least those given: {TOLD}."
    assert facts.warnings(missing_run()) == [sentence]
    assert facts.warnings(missing_run(warnings=("Another.",))) == ["Another.", sentence]


# --- parts and lines --------------------------------------------------------------------------------------------------


def test_parts_are_bounds_without_shares_of_a_bound() -> None:
    """Decoder layers in prefill miss an operator, those in decode do not; what is outside of layers misses another."""
    parts = {(part.label, part.phase): part for part in run_parts.breakdown(missing_run())}
    assert parts["3 decoder layers", Phase.PREFILL].sum.at_least
    assert not parts["3 decoder layers", Phase.DECODE].sum.at_least
    assert parts["outside layers", None].sum.at_least
    assert {part.flops_share for part in parts.values()} == {None}
    assert {part.span_share for part in parts.values()} != {None}


def test_what_is_outside_of_layers_is_whole_where_all_that_is_missing_is_inside() -> None:
    """The books miss what rows miss, and nothing else."""
    column = missing_run().ledger.flops
    known = {name: missed for name, missed in column.not_counted.items() if name in (MLP, FOLD)}
    books = missing_run().ledger.model_copy(update={"flops": column.model_copy(update={"not_counted": known})})
    parts = run_parts.breakdown(missing_run(ledger=books))
    assert not next(part for part in parts if part.label == "outside layers").sum.at_least


def test_nothing_is_a_share_of_a_bound_where_no_time_was_measured() -> None:
    """No phases, no hot spots."""
    run = untimed()
    assert run_parts.main_quantity(run) == ("flops", None)
    assert run_parts.phase_shares(run) == []
    assert layer_lines.hot_spots(run) == []
    assert "FLOPs are a lower bound" in shown(run, 120)


def test_layers_alike_share_a_line_only_if_they_miss_the_same() -> None:
    """Layer 1 misses an operator, its neighbours do not."""
    prefill = next(group for group in layer_lines.layer_groups(missing_run(), fold=True) if group.phase == "prefill")
    marked = {line.label: line.at_least for line in prefill.lines if line.label.startswith("layers")}
    assert marked == {"layers.0": False, "layers.1": True, "layers.2": False}


def test_sums_keep_the_mark() -> None:
    """One bound makes the sum one."""
    row = missing_run().layers[6]
    assert Sum.of(row).at_least
    assert (Sum.of(row) + Sum()).at_least
    assert (Sum() + Sum.of(row)).at_least
    assert not Sum().at_least


# --- programs ---------------------------------------------------------------------------------------------------------


def lines(run: Run) -> dict[tuple[str, str], dict[str, str]]:
    """Return the lines of `layers.csv` by layer and phase."""
    return {(line["name"], line["phase"]): line for line in csv.DictReader(io.StringIO(layer_table.csv_text(run)))}


def test_csv_has_the_mark_and_the_operators_in_columns_of_their_own() -> None:
    """A figure that is not known is empty."""
    found = lines(missing_run())
    marked = {
        key: (line["flops"], line["uncounted"]) for key, line in found.items() if line["flops_at_least"] == "True"
    }
    assert marked == {
        (f"{LANGUAGE}.layers.1", "prefill"): ("20000000000", f"{MLP} 2"),
        (f"{VISION}.merger", "vision"): ("", f"{FOLD} 2"),
    }
    assert {line["flops_at_least"] for line in found.values()} == {"False", "True"}


def test_a_run_that_misses_operators_is_read_as_it_was_written(tmp_path: Path) -> None:
    """JSON and back: rows, totals and books are the same."""
    run = store.save(missing_run(), tmp_path)
    assert store.load(tmp_path) == run
    data = json.loads((tmp_path / "run.json").read_text())
    assert data["totals"]["flops_at_least"] is True
    assert {(row["name"], row["phase"]): row["uncounted"] for row in data["layers"] if row["uncounted"]} == INSIDE


def old(folder: Path, **totals: Any) -> Path:
    """Write the run as format 2 held it: operators are named, and nothing is marked."""
    run = sample_run(uncounted_ops={"aten::mkldnn_rnn_layer": 6}, warnings=())
    store.save(run.model_copy(update={"totals": run.totals.model_copy(update=totals)}), folder)
    data = json.loads((folder / "run.json").read_text())
    data["format"] = 2
    del data["totals"]["flops_at_least"]
    for row in data["layers"]:
        del row["uncounted"]
    for column in filter(None, data["ledger"].values()):
        del column["not_counted"], column["at_least"]
    if totals:
        data["ledger"]["flops"] |= {"layers": 0, "rest": {}, "residual": 0, "total": 0}
    (folder / "run.json").write_text(json.dumps(data))
    return folder


def test_older_runs_with_uncounted_operators_are_bounds(tmp_path: Path) -> None:
    """They do not say in which layers, so that a layer without FLOPs may have had some."""
    run = store.load(old(tmp_path))
    assert (run.format, run.totals.flops, run.totals.flops_at_least) == (2, 75_001_000_000, True)
    assert run.format < FORMAT
    assert "at least; 6 calls of aten::mkldnn_rnn_layer have no formula" in shown(run, 120)
    assert facts.warnings(run) == ["FLOPs are at least those given: 6 calls of aten::mkldnn_rnn_layer have no formula."]
    assert {row.flops for row in run.layers if row.kind in ("norm", "embed_tokens")} == {None}


def test_an_older_run_of_nothing_but_uncounted_operators_knows_nothing(tmp_path: Path) -> None:
    """It said 0."""
    run = store.load(old(tmp_path, flops=0, flops_per_sample=0.0))
    assert (run.totals.flops, run.totals.flops_per_sample, run.ledger.flops.total) == (None, None, None)
    assert balance.verdict(balance.books(run)[0]).startswith("not known; 6 calls")


def test_the_representation_of_a_row_says_that_it_is_a_bound() -> None:
    """Whoever prints `run.layers` sees it."""
    marked, whole = missing_run().layers[6], sample_run().layers[6]
    assert f"uncounted={{'{MLP}': 2}}" in repr(marked)
    assert (marked.at_least, whole.at_least) == (True, False)
    assert "flops_at_least=True" in repr(missing_run().totals)
    assert isinstance(marked, LayerRow)


def test_pages_get_the_mark_with_the_figure() -> None:
    """Rows, parts and books of what the page draws from."""
    data = payload(missing_run())
    marked = [row for row in data["rows"] if row["flops_at_least"]]
    assert [(row["flops"], row["uncounted"]) for row in marked] == [(None, {FOLD: 2}), (1e10, {MLP: 2})]
    assert sum(part["flops_at_least"] for part in data["parts"]) == 3
    cells = data["ledger"]["columns"][0]["cells"]
    assert cells[-1] == {"value": 74_701_000_000, "shown": "≥ 74.7", "share": None}
    out = io.StringIO()
    html.render(missing_run(), out)
    assert "at least; 2 calls of x::fused_mlp" in out.getvalue()


def test_tensorboard_draws_no_bound() -> None:
    """A plot has no sign for it: the marked rows and totals are in its tables only."""
    tags = {(tag, step) for tag, step, _ in tensorboard.scalars(missing_run())}
    assert ("flops_per_call/prefill", 0) in tags
    assert ("flops_per_call/prefill", 1) not in tags
    assert not {tag for tag, _ in tags} & {"end to end/flops_per_sample", "ledger flops/total", "ledger flops/layers"}
    assert ("ledger flops/residual", 0) in tags
    assert {"end to end/flops_per_sample", "ledger flops/total"} <= {
        tag for tag, *_ in tensorboard.scalars(sample_run())
    }


# --- two runs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "before", "after"),
    [
        (missing_run(), missing_run(), "≥ 18.7 GFLOP", "≥ 18.7 GFLOP"),
        (sample_run(), missing_run(), "18.8 GFLOP", "≥ 18.7 GFLOP"),
        (missing_run(), sample_run(), "≥ 18.7 GFLOP", "18.8 GFLOP"),
    ],
    ids=["two bounds", "the second", "the first"],
)
def test_between_bounds_no_change_is_told(first: Run, second: Run, before: str, after: str) -> None:
    """Neither a ratio nor a regression; both amounts with their marks, and why."""
    found = compare.two(Side(first), Side(second))
    change = next(one for one in found.totals if one.quantity == "FLOPs per sample")
    assert (change.value, change.percent, change.worse_by_more_than(0)) == (None, None, False)
    out = io.StringIO()
    comparison.render_markdown(Comparisons("a", "b", (found,)), out)
    line = next(line for line in out.getvalue().splitlines() if line.startswith("| FLOPs per sample"))
    assert [cell.strip() for cell in line.split("|")][1:5] == ["FLOPs per sample", before, after, units.MISSING]
    assert sum("have no formula" in note for note in found.notes) == (first.totals.flops_at_least) + (
        second.totals.flops_at_least
    )


def test_layers_that_are_bounds_have_no_change_either() -> None:
    """Layer 1 in prefill; layer 0 is the same work."""
    found = {(one.name, one.phase): one.flops for one in compare.two(Side(missing_run()), Side(sample_run())).layers}
    assert found[f"{LANGUAGE}.layers.1", Phase.PREFILL].value is None
    assert found[f"{LANGUAGE}.layers.1", Phase.PREFILL].at_least == (True, False)
    assert found[f"{LANGUAGE}.layers.0", Phase.PREFILL].value == 1.0
