"""What a change could save, in the terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from sample_run import sample_run

from layerprof.estimate.what_if import Change, what_if
from layerprof.records import Run
from layerprof.report.what_if import render


def run_of_weights() -> Run:
    """Return the sample run with weights of 9 in 10 bytes, on a device of 10 TFLOP/s and 1 TB/s."""
    run = sample_run()
    rows = tuple(row.model_copy(update={"bytes_weights": (row.bytes or 0) * 9 // 10}) for row in run.layers)
    environment = run.environment | {"peaks": {"flops_per_s": 1e13, "bytes_per_s": 1e12}}
    model = run.model | {"dtype": "fp16"}
    return run.model_copy(update={"layers": rows, "environment": environment, "model": model})


def shown(change: Change, width: int, layers: str = "language", run: Run | None = None) -> str:
    """Return the report as a file of that width has it."""
    out = io.StringIO()
    render(what_if(run or run_of_weights(), layers, change), Console(file=out, width=width))
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_every_line_fits(width: int) -> None:
    """At the widths of a small and a large terminal, with the figures that matter in both."""
    text = shown(Change("int8"), width)
    assert max(map(len, text.splitlines())) <= width
    assert "a bound, not a measurement" in text
    assert "% at most" in text


def test_amdahls_limit_by_hand() -> None:
    """The two vision blocks are 20 of 250 ms: 8 %, and the rest is 1.09 times as fast."""
    text = shown(Change(), 100, "vision_block")
    assert "what if vision_block cost nothing" in text
    assert "generate(): at most 8.0 % goes, 1.09 times as fast or less" in text
    assert "alike" not in text


def test_a_bound_by_hand() -> None:
    """Decode of the third layer: busy a third of 30 ms; int8 moves 0.55 of its bytes, so at most 4.5 ms of 250 go."""
    text = shown(Change("int8"), 120, "language[2]")
    (line,) = [line for line in text.split("decode\n")[1].splitlines() if line.startswith("decoder_layer")]
    assert line.split()[-2:] == ["4.50", "4.50"]


def test_what_has_no_figure_is_named() -> None:
    """A row whose bytes were not counted is in no sum, and is told."""
    run = run_of_weights()
    rows = tuple(row.model_copy(update={"bytes": None}) if row.name.endswith("layers.1") else row for row in run.layers)
    text = shown(Change("int8"), 120, run=run.model_copy(update={"layers": rows}))
    assert "Without a figure, and so not in the sums: model.language_model.layers.1 prefill, " in text
