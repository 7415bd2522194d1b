"""Positions and memory beside the layers: what a call is given, what its attention reads, what it holds and leaves."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from goldens import assert_golden
from sample_run import LANGUAGE, sample_run
from shown import shown
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray
from whole_request import memory_run, pruned_run, request_run

from layerprof.records import LayerRow, Phase, Run
from layerprof.report import balance, layer_lines, memory
from layerprof.report.formats import markdown, tensorboard
from layerprof.report.layer_lines import per_call
from layerprof.report.payload import payload


def written(run: Run) -> str:
    """Return the run as Markdown."""
    out = io.StringIO()
    markdown.render(run, out)
    return out.getvalue()


def layer(run: Run, index: int, phase: Phase) -> LayerRow:
    """Return a decoder layer's row."""
    return next(row for row in run.layers if row.name == f"{LANGUAGE}.layers.{index}" and row.phase is phase)


def section(text: str, start: str) -> list[str]:
    """Return the lines of a terminal's table that begins so, down to the next blank line."""
    lines = text.splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith(start))
    end = next(n for n in range(first, len(lines)) if not lines[n].strip())
    return lines[first:end]


# --- positions --------------------------------------------------------------------------------------------------------


def test_a_pruning_model_shows_where_positions_go_even_in_a_narrow_window() -> None:
    """235 enter the first layer, 120 the others: the columns stay at 80, and no figure of time gives way."""
    table = section(shown(pruned_run(), 80), "language · prefill")
    assert table[1].split() == ["layer", "%", "time", "ms", "p95", "tokens", "KV", "GFLOP", "MB", "busy/span", "J"]
    assert [line.split()[4:6] for line in table if line.startswith("layers.")] == [
        ["235", "235"],
        ["120", "120"],
        ["120", "120"],
    ]


def test_layers_that_all_see_the_same_say_it_once_in_a_narrow_window() -> None:
    """At 80 columns the head has it, at 120 each line."""
    assert "235 tokens a call, 235 in KV" in section(shown(request_run(), 80), "language · prefill")[0]
    assert "2 tokens a call, 241 in KV" in section(shown(request_run(), 80), "language · decode")[0]
    wide = section(shown(request_run(), 120), "language · prefill")
    assert "tokens a call" not in wide[0]
    assert "tokens   KV" in wide[1]


def test_layers_of_other_lengths_share_no_line() -> None:
    """Neighbours fold where all that a reader would compare is alike, and so are positions."""
    labels = {
        line.label
        for group in layer_lines.layer_groups(pruned_run(), fold=True)
        for line in group.lines
        if group.phase is Phase.PREFILL
    }
    assert {"layers.0", "layers.1-2"} <= labels


def test_work_can_be_read_against_positions() -> None:
    """10 GFLOP of 235 positions, and 5 of 120: about as much each. A lower bound has no such figure."""
    assert per_call(layer(pruned_run(), 0, Phase.PREFILL), "flops_per_token") == pytest.approx(10e9 / 235)
    assert per_call(layer(pruned_run(), 1, Phase.PREFILL), "flops_per_token") == pytest.approx(5e9 / 120)
    bound = layer(pruned_run(), 1, Phase.PREFILL).model_copy(update={"uncounted": {"x::op": 2}})
    assert per_call(bound, "flops_per_token") is None


def test_documents_and_pages_have_columns_of_them() -> None:
    """Runs that do not know their positions have none."""
    assert "| tokens | KV | FLOPs |" in written(request_run())
    assert "| tokens |" not in written(sample_run())
    keys = {one["key"] for one in payload(request_run())["quantities"]}
    assert {"tokens_per_call", "kv_per_call", "flops_per_token"} <= keys
    assert not {"tokens_per_call", "memory_peak_bytes"} & {one["key"] for one in payload(sample_run())["quantities"]}


def test_steps_that_mix_prompts_and_answers_are_a_phase_of_their_own() -> None:
    """Continuous batching: told after decode, with a sign and a colour of its own."""
    rows = tuple(
        row.model_copy(update={"phase": Phase.MIXED}) if row.phase is Phase.DECODE else row
        for row in request_run().layers
    )
    text = shown(request_run(layers=rows), 100, tty=False)
    bar, legend = text.partition("Inside generate()")[2].splitlines()[1:3]
    assert [sign for sign in "vpdm." if sign in bar] == ["v", "p", "m", "."]
    assert legend.split("   ")[2] == "m mixed 51.0 %"
    assert "language * mixed" in text


# --- memory -----------------------------------------------------------------------------------------------------------


def test_the_report_of_memory_looks_as_it_did() -> None:
    """The whole report, as somebody last looked at it."""
    assert_golden("memory_80.txt", shown(memory_run(), 80))


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200])
@pytest.mark.parametrize("run", [memory_run(), pruned_run()], ids=["memory", "pruned"])
def test_no_width_breaks_a_table(run: Run, width: int) -> None:
    """No line is wider than the window, and from 60 on no figure is cut."""
    lines = shown(run, width).splitlines()
    assert max(len(line) for line in lines) <= width
    if width >= 60:
        assert "…" not in "".join(lines)


def test_layers_of_equal_memory_share_a_line_whatever_their_times() -> None:
    """Layer 1 takes twice the time of its neighbours, and as much memory."""
    labels = [[line.label for line in group.lines] for group in memory.groups(memory_run())]
    assert labels[2] == ["embed_tokens", "layers.0-2", "norm", "lm_head"]


def test_memory_closes_in_the_ledger() -> None:
    """280 MB of weights and 33 of calls, 72 of the rest, 1 left of 386; at 80 columns below the other books."""
    assert balance.verdict(balance.books(memory_run())[-1]) == "balanced, residual 0.3 % of the total"
    narrow = section(shown(memory_run(), 80), "              memory MB")
    assert narrow[1].split() == ["layers", "313", "81.1"]
    assert "memory MB" in section(shown(memory_run(), 120), "Ledger")[1]


def test_a_run_without_memory_has_no_section() -> None:
    """Nor a column in its books."""
    assert memory.groups(request_run()) == []
    assert "Memory" not in shown(request_run()) + written(request_run())


def test_markdown_has_the_memory_by_phase() -> None:
    """Units stand with each figure; neighbours alike share a line."""
    text = written(memory_run()).partition("## Memory of 4 of 12 samples")[2]
    assert "| layers.0-2 ×3 | 30.0 MB | 2.00 MB | 1.50 MB | 80.0 MB |" in text
    assert "| layers.0-2 ×3 | 600 kB | 12.0 kB | 12.0 kB | 80.0 MB |" in text


def test_tensorboard_draws_what_a_call_has(tmp_path: Path) -> None:
    """Positions and memory are of one call as they stand in the run, not divided by calls again."""
    tensorboard.write(memory_run(), tmp_path)
    events = EventAccumulator(str(tmp_path))
    events.Reload()

    def first(tag: str) -> float:
        return float(make_ndarray(events.Tensors(tag)[0].tensor_proto))

    assert first("tokens_per_call/prefill") == 235
    assert first("kv_per_call/decode") == 241
    assert first("memory_peak_bytes/prefill") == 30e6
    assert first("weights_bytes/decode") == 80e6
    assert first("flops_per_token/decode") == pytest.approx(1e8 / 2)
    assert first("ledger memory_bytes/total") == 386e6
