"""Mixed steps in reports: a phase of their own, beside which stands what entered in them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from sample_run import LANGUAGE, sample_run
from shown import shown
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from layerprof.records import Phase, Run
from layerprof.report import layer_lines
from layerprof.report.formats import markdown, tensorboard
from layerprof.report.payload import payload
from layerprof.runs import store
from layerprof.runs.compare import compare

ENTERED: dict[str, Any] = {"mixed_prefill_tokens": 1234, "mixed_decode_tokens": 56}


@pytest.fixture
def mixed() -> Run:
    """Return a run whose decode steps were mixed ones."""
    run = sample_run()
    rows = [
        row.model_copy(update={"phase": Phase.MIXED, **ENTERED}) if row.phase is Phase.DECODE else row
        for row in run.layers
    ]
    return run.model_copy(update={"layers": tuple(rows)})


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_has_a_colour_and_a_table_for_them(mixed: Run, width: int) -> None:
    """Beside the table's title stands what entered; no other table says anything of the kind."""
    text = " ".join(shown(mixed, width).split())
    assert "language · mixed model.language_model.* 1 234 prompt + 56 answer positions" in text
    assert text.count("answer positions") == 1
    assert "decoder layers mixed" in text.split("Hot spots")[0]


def test_markdown_says_it_below_the_title(mixed: Run) -> None:
    """A sentence of its own."""
    out = io.StringIO()
    markdown.render(mixed, out)
    text = out.getvalue()
    title = text.index("### language, mixed")
    assert text.index("In its steps entered 1 234 prompt + 56 answer positions.") > title
    assert text.count("In its steps entered") == 1


def test_the_html_report_is_given_it_row_by_row(mixed: Run) -> None:
    """Two numbers in mixed rows, nothing in others."""
    found = {(row["phase"], row["entered"]) for row in payload(mixed)["rows"]}
    assert ("mixed", (1234, 56)) in found
    assert {entered for phase, entered in found if phase != "mixed"} == {None}


def test_tensorboard_has_a_series_for_them(mixed: Run, tmp_path: Path) -> None:
    """As for any phase."""
    tensorboard.write(mixed, tmp_path)
    events = EventAccumulator(str(tmp_path)).Reload()
    tags = [tag for kind in ("scalars", "tensors") for tag in events.Tags()[kind]]
    assert any("mixed" in tag for tag in tags)
    assert not any("decode" in tag and "layer" in tag for tag in tags)


def test_runs_with_them_are_saved_read_and_compared(mixed: Run, tmp_path: Path) -> None:
    """The figures come back, in `layers.csv`, too; two such runs are compared row by row."""
    store.save(mixed, tmp_path)
    assert store.load(tmp_path).layers == mixed.layers
    header, *lines = (tmp_path / "layers.csv").read_text().splitlines()
    places = [header.split(",").index(name) for name in ENTERED]
    (line,) = (line.split(",") for line in lines if line.startswith(f"{LANGUAGE}.layers.0,") and ",mixed," in line)
    assert [line[place] for place in places] == ["1234", "56"]
    (found,) = compare(tmp_path, tmp_path).cells
    assert any(change.phase is Phase.MIXED for change in found.layers)


def test_of_other_phases_nothing_entered() -> None:
    """The groups of a run without such steps have no such words."""
    assert {group.entered for group in layer_lines.layer_groups(sample_run())} == {""}
