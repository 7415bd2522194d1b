"""The whole request in every report: its parts with their shares, both times to the first token, and what it cost."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from goldens import assert_golden
from sample_run import sample_run
from shown import shown
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray
from whole_request import request_column, request_run

from layerprof.records import RequestColumn, Run
from layerprof.report import balance, facts, request
from layerprof.report.formats import markdown, tensorboard, terminal
from layerprof.report.payload import payload


def written(run: Run) -> str:
    """Return the run as Markdown."""
    out = io.StringIO()
    markdown.render(run, out)
    return out.getvalue()


def fact(run: Run, label: str) -> tuple[str, str]:
    """Return the value and note of a line of the end-to-end block."""
    return next((one.value, one.note) for one in facts.end_to_end(run) if one.label == label)


# --- the parts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 120])
def test_the_report_looks_as_it_did(width: int) -> None:
    """The whole report, as somebody last looked at it."""
    assert_golden(f"request_{width}.txt", shown(request_run(), width))


def test_markdown_looks_as_it_did() -> None:
    """The whole document."""
    assert_golden("request.md", written(request_run()))


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200])
def test_no_width_breaks_a_table(width: int) -> None:
    """No line is wider than the window."""
    assert max(len(line) for line in shown(request_run(), width).splitlines()) <= width


def test_the_parts_stand_above_the_layers_with_their_share() -> None:
    """105 of 900 ms are 11.7 %, in a median batch 17.5 ms; residual and total stand below."""
    above = shown(request_run(), 120).partition("Inside generate()")[0]
    lines = {line.split()[0]: line for line in above.partition("Where it goes")[2].splitlines() if line.strip()}
    assert {"11.7", "105", "17.5"} <= set(lines["process"].split())
    assert {"1.0", "9.00"} <= set(lines["residual"].split())
    assert {"100", "900"} <= set(lines["total"].split())


def test_a_pipe_gets_signs_for_colours() -> None:
    """98 cells, cut where 3.3, 15.0, 15.7 and 99 % of them end: a copy of 0.7 % rounds to none."""
    text = shown(request_run(), 100, tty=False)
    bar = text.partition("Where it goes")[2].splitlines()[1]
    assert text.isascii()
    assert (bar.count("r"), bar.count("p"), bar.count("c"), bar.count("g"), bar.count(".")) == (3, 12, 0, 82, 1)


def test_the_residual_is_judged_like_that_of_other_books() -> None:
    """9 of 900 ms is 1 %, which is balanced; 90 are not; without a walk there is a reason."""

    def verdict(column: RequestColumn) -> str:
        books = request_run().ledger.model_copy(update={"request_s": column})
        return balance.verdict(balance.closings(request_run(ledger=books))[0])

    assert verdict(request_column()) == "balanced, residual 1.0 % of the total"
    assert verdict(request_column().model_copy(update={"residual": 0.090})) == "open, residual 10.0 % of the total"
    none = dict.fromkeys(("read", "process", "copy", "generate", "residual", "total"))
    assert verdict(RequestColumn(**none, reason="it was not walked")) == "not measured: it was not walked"


def test_a_run_that_timed_no_request_looks_as_it_did() -> None:
    """No bar, no line and no verdict of it; `sample_run` has neither."""
    assert request.parts(sample_run()) == []
    assert balance.closings(sample_run()) == balance.books(sample_run())
    assert "request" not in shown(sample_run()) + written(sample_run())


def test_plain_lines_hold_the_parts_and_their_balance() -> None:
    """`--quiet` gives single lines."""
    lines: list[str] = []
    terminal.render_plain(request_run(), lines.append)
    assert "request copy: 1.00 ms a batch, 0.7 % of the request" in lines
    assert "ledger request, of all 12 samples: balanced, residual 1.0 % of the total" in lines


# --- end to end -------------------------------------------------------------------------------------------------------


def test_the_first_token_is_timed_with_and_without_what_comes_before() -> None:
    """60 ms from `generate()` on; 5, 17.5 and 1 ms more from the file on."""
    assert fact(request_run(), "time to first token")[0] == "60.0 ms"
    assert fact(request_run(), "first token from file") == ("83.5 ms", "[79.0, 88.0], p95 90.0, n 6")


def test_throughput_stands_beside_the_times() -> None:
    """12 samples in 0.9 s, 120 tokens in 0.75 s."""
    assert fact(request_run(), "samples/s")[0] == "13.3"
    assert fact(request_run(), "output tokens/s")[0] == "160"


def test_what_making_batches_ahead_saves_is_told() -> None:
    """27 seconds where 30 were: a tenth less, with its interval; without one it may be noise."""
    walked = {"ahead": 2, "batches": 2, "alone_s": 30.0, "overlapped_s": 27.0, "ratio": 0.9, "ratio_ci95": [0.88, 0.93]}
    value, note = fact(request_run(passes={"prefetch": walked}), "prefetch")
    assert value == "-10.0 %"
    assert note == "[-12.0, -7.0], the walk with 2 batches made ahead over that without, of 4 of 12 samples"
    noisy = fact(request_run(passes={"prefetch": walked | {"ratio_ci95": (0.81, 1.12)}}), "prefetch")
    assert noisy == ("–", "not known here: [-19.0, +12.0] %, since times vary by more than it saves")
    few = fact(request_run(passes={"prefetch": walked | {"ratio_ci95": None}}), "prefetch")
    assert few == ("–", "not known here: too few batches for an interval")


@pytest.mark.parametrize(
    ("passes", "why"), [({"reasons": {"prefetch": "interrupted"}}, "interrupted"), ({}, "its walk did not run")]
)
def test_a_walk_ahead_that_was_asked_for_and_is_not_there_says_why(passes: dict[str, Any], why: str) -> None:
    """Where nobody asked there is no line."""
    run = request_run(passes=passes, settings=request_run().settings | {"prefetch": 2})
    assert fact(run, "prefetch") == ("–", why)
    nobody = request_run(passes=passes)
    assert "prefetch" not in {one.label for one in facts.end_to_end(nobody)}


def test_steps_that_give_several_tokens_say_how_many_on_average() -> None:
    """Only speculative runs have the figure."""
    several = request_run().totals.model_copy(update={"accepted_per_step": 2.25})
    assert fact(request_run(totals=several), "accepted per step")[0] == "2.25"
    assert not [one for one in facts.end_to_end(request_run()) if one.label == "accepted per step"]


def test_joules_of_a_correct_answer_have_an_interval_or_a_reason() -> None:
    """20 J over three right answers."""
    value, note = fact(request_run(), "energy/correct answer")
    assert value == "6.67 J"
    assert note == "[5.00, 10.0] J, measured: nvml_counter, of 4 of 12 samples"
    none = {
        "per_correct_answer": None,
        "per_correct_answer_ci95": None,
        "per_correct_answer_reason": "no answer is right",
    }
    totals = request_run().totals
    totals = totals.model_copy(update={"energy": totals.energy.model_copy(update=none)})
    assert fact(request_run(totals=totals), "energy/correct answer") == ("–", "no answer is right")


# --- of how many samples ----------------------------------------------------------------------------------------------


def test_tables_of_a_part_of_the_samples_say_so() -> None:
    """The instruments walked 4 of 12: their sections, FLOPs and joules are of those."""
    for text in (shown(request_run(), 120), written(request_run())):
        for title in ("Hot spots", "Layers", "Ledger"):
            assert f"{title} of 4 of 12 samples" in text
        assert "18.8 GFLOP per sample, 80.0 % on real tokens, of 4 of 12 samples" in text
    assert "12 samples (4 instrumented)" in shown(request_run(), 120)


def test_tables_of_all_samples_have_plain_titles() -> None:
    """Where the instruments walked all there is nothing to tell apart."""
    assert "of 12 of 12" not in shown(request_run(instrumented=12), 120)
    assert "instrumented" not in shown(request_run(instrumented=12), 120)


def test_joules_of_a_phase_are_divided_by_the_samples_that_took_them() -> None:
    """8 J of decode over four instrumented samples are 2 J each, however many were answered."""
    totals = request_run().totals
    energy = totals.energy.model_copy(update={"by_phase": {"decode": 8.0}})
    run = request_run(totals=totals.model_copy(update={"energy": energy}))
    assert "2.00 J per sample" in fact(run, "energy of decode")[1]


# --- pages and plots --------------------------------------------------------------------------------------------------


def test_pages_get_the_parts_with_their_shares() -> None:
    """Plain data, the residual last."""
    told = payload(request_run())["request"]
    assert [part["name"] for part in told["parts"]] == ["read", "process", "copy", "generate", "residual"]
    assert sum(part["share"] for part in told["parts"]) == pytest.approx(1)
    assert told["total_s"] == 0.9
    assert payload(sample_run())["request"] is None


def test_tensorboard_draws_parts_rates_and_costs(tmp_path: Path) -> None:
    """SI units, under the names of `run.json`."""
    tensorboard.write(request_run(), tmp_path)
    events = EventAccumulator(str(tmp_path))
    events.Reload()

    def value(tag: str) -> float:
        (event,) = events.Tensors(tag)
        return float(make_ndarray(event.tensor_proto))

    assert value("end to end/process_s") == pytest.approx(0.0175)
    assert value("end to end/ttft_request_s") == pytest.approx(0.0835)
    assert value("end to end/samples_per_s") == pytest.approx(12 / 0.9)
    assert value("end to end/energy_per_correct_answer_j") == pytest.approx(20 / 3)
    assert value("ledger request_s/residual") == pytest.approx(0.009)
