"""What a run looks like in a terminal, a pipe and a narrow window."""

from __future__ import annotations

import io

import pytest
from goldens import assert_golden
from sample_run import bare_run, large_run, sample_run
from shown import shown

from layerprof.readings import Layer, WorkReading
from layerprof.records import Phase, Run
from layerprof.report.formats import terminal


@pytest.mark.parametrize("width", [80, 120])
def test_the_report_looks_as_it_did(width: int) -> None:
    """The whole report at the two common widths."""
    assert_golden(f"terminal_{width}.txt", shown(sample_run(), width))


def test_a_pipe_gets_the_same_in_ascii() -> None:
    """Logs and old consoles need no Unicode to hold a report."""
    text = shown(bare_run(), tty=False)
    assert text.isascii()
    assert_golden("terminal_bare_ascii.txt", text)


def test_many_layers_fit_a_screenful() -> None:
    """Of 68 layers in three phases, neighbours alike share a line, and those that stand out stand alone."""
    text = shown(large_run(), 120)
    assert_golden("terminal_large_120.txt", text)
    assert "blocks.0-6" in text
    assert "×7" in text
    assert "layers.0-35" in text


def test_every_layer_is_there_when_asked_for() -> None:
    """Folding can be switched off."""
    text = shown(large_run(), 120, every_layer=True)
    assert all(f"blocks.{index} " in text for index in range(32))


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200])
@pytest.mark.parametrize("run", [sample_run(), bare_run(), large_run()], ids=["full", "bare", "large"])
def test_no_width_breaks_a_table(run: Run, width: int) -> None:
    """No line is wider than the window, and no figure of a column that stays is cut to an ellipsis from 60 on."""
    lines = shown(run, width).splitlines()
    assert max(len(line) for line in lines) <= width
    if width >= 60:
        assert "…" not in "".join(lines)


def test_the_hand_computed_figures_are_shown() -> None:
    """Decode: 120 of 250 ms; FLOPs 75.001 G with no residual; energy 1 of 20 J left over."""
    text = shown(sample_run(), 120)
    part = next(line for line in text.splitlines() if line.startswith("3 decoder layers") and "decode " in line)
    assert " 48.0 " in part
    assert " 25.0 %" in part
    assert "FLOPs: balanced exactly" in text
    assert "energy, attributed (nvml_counter): open, residual 5.0 % of the total" in text


def test_a_hot_spot_stands_out_against_its_kind() -> None:
    """The decoder layer that takes twice its kind's time is first, with its factor and the reason."""
    text = shown(sample_run(), 120)
    first = text.partition("Hot spots")[2].splitlines()[2]
    assert first.startswith("language layers.1")
    assert " 2.00 " in first
    assert "launch-bound" in first


def test_nothing_measured_says_why() -> None:
    """Reasons stand where figures would."""
    text = shown(bare_run(), 120)
    assert "this machine has no energy sensor that may be read" in text
    assert "span: not measured: the pass was switched off" in text


def test_text_from_outside_is_shown_and_not_obeyed() -> None:
    """Markup and escape sequences in names and warnings reach the screen as plain signs."""
    evil = sample_run(
        warnings=("[red]not markup[/red] \x1b[2Jgone\x07",), model={"name": "[link=x]m[/link]"}, files={"x": "[b]"}
    )
    text = shown(evil, 120)
    assert "[red]not markup[/red]" in text
    assert "[link=x]m[/link] on textvqa" in text
    assert "\x1b" not in text
    assert "\x07" not in text


def test_a_run_without_layers_still_reports() -> None:
    """An interrupted run may have nothing but totals."""
    text = shown(sample_run(layers=(), status="interrupted"))
    assert "interrupted" in text
    assert "End to end" in text


def test_a_text_stream_will_do() -> None:
    """A report can be written to a file as any other format."""
    out = io.StringIO()
    terminal.render(sample_run(), out)
    assert out.getvalue().isascii()
    assert "Ledger" in out.getvalue()


def test_plain_lines_hold_the_end_to_end_figures_and_the_balance() -> None:
    """`--quiet` gives single lines without tables, in ASCII."""
    lines: list[str] = []
    terminal.render_plain(sample_run(settings={"output": "traces/x"}), lines.append)
    assert all(line.isascii() and "\n" not in line for line in lines)
    assert "latency per batch: 125 ms ([110, 140], p95 140, n 2)" in lines
    assert "ledger FLOPs: balanced exactly" in lines
    assert lines[-1] == "run: traces/x"


def test_a_submodule_stands_below_its_layer() -> None:
    """A selected submodule is set in under its layer and not counted again in the parts."""
    from layerprof.books import ledger
    from layerprof.books.rows import rows as layer_rows
    from layerprof.readings import Work

    block = Layer("lm.layers.0", "language", "decoder_layer", 0)
    mlp = Layer("lm.layers.0.mlp", "language", "module", 0)
    one, both = ((block.name,), Phase.PREFILL), ((block.name, mlp.name), Phase.PREFILL)
    work = WorkReading(
        {(block.name, Phase.PREFILL): Work(1, 100)}, {}, 100, nested={one: Work(1, 100), both: Work(1, 70)}
    )
    rows = layer_rows((block, mlp), work=work)
    text = shown(sample_run(layers=rows, ledger=ledger.close((block, mlp), work=work)))
    assert "\nlayers.0 " in text
    assert "\n  layers.0.mlp" in text
    assert "1 decoder layer  prefill  ██████████  100" in text


def test_commands_can_be_pasted_whatever_the_folder_is_called() -> None:
    """A folder with blanks or a shell's signs is quoted in the commands that the report suggests."""
    text = shown(sample_run(settings=sample_run().settings | {"output": "my runs/a&b"}))
    assert "layerprof view 'my runs/a&b'" in text
    assert "layerprof report 'my runs/a&b' -o report.html" in text
