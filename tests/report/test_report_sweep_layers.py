"""A sweep over what changes how layers run tells which of them gained and which lost."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from sample_sweep import run, save_run

from layerprof.report import kinds
from layerprof.report.sweep import overview
from layerprof.sweep.cells import Outcome, PlannedCell, PlannedTable, Status, SweepRecord
from layerprof.sweep.folder import SweepFolder


def _sweep(path: Path, axis: str, values: tuple[str, str]) -> overview.SweepData:
    """Write two cells of two batches, 0.2 s each in the first and 0.1 s in the second; a tenth of it in layer 0."""
    folder, cells = SweepFolder(path), []
    for key, value, seconds in zip(("aa", "bb"), values, (0.2, 0.1), strict=True):
        chosen: dict[str, Any] = {axis: value}
        choices = {"model": "demo", "dataset": "textvqa", **chosen}
        cells.append(PlannedCell(key=key, label=key, choices=choices, repeat=0, points={"t": ({axis: value},)}))
        save_run(run(seconds, **chosen), folder.cell_folder(key), (seconds, seconds))
        folder.commit(Outcome(key=key, status=Status.DONE, seconds=1.0))
    folder.write_record(
        SweepRecord(
            created="2026-01-01T00:00:00+00:00",
            name="s",
            title="Formats",
            tables=(PlannedTable(name="t", title="Formats", axes={axis: list(values)}),),
            cells=tuple(cells),
        )
    )
    return overview.load(path)


@pytest.fixture
def data(tmp_path: Path) -> overview.SweepData:
    """Return a sweep over the formats of weights."""
    return _sweep(tmp_path / "formats", "quantization", ("none", "int8"))


def _text(data: overview.SweepData, name: str) -> str:
    out = io.StringIO()
    kinds.sweep().renderer(name)(data, out)
    return out.getvalue()


def test_each_kind_of_layer_has_its_time_in_the_first_cell_and_in_this_one(data: overview.SweepData) -> None:
    """The sample run's own sums: its three decoder layers take 120 ms of four samples in decode, in both cells."""
    layers = json.loads(_text(data, "json"))["tables"][0]["layers"]
    decode = next(one for one in layers if (one["phase"], one["kind"]) == ("decode", "decoder_layer"))
    assert decode["point"] == {"quantization": "int8"}
    assert decode["span_per_sample_s"] == pytest.approx([0.03, 0.03])
    # Only layer 0 has times of its batches: half of what they were, in both.
    assert (decode["faster"], decode["slower"]) == (1, 0)
    assert decode["most"]["name"] == "model.language_model.layers.0"
    assert decode["most"]["ratio"] == pytest.approx(0.5)


@pytest.mark.parametrize("name", ["terminal", "markdown", "html"])
def test_the_section_stands_in_every_report(data: overview.SweepData, name: str) -> None:
    """With the cell, the layers in words, and the layer that gained most."""
    text = _text(data, name)
    assert "Layers that gained and lost" in text
    assert "decode, 3 decoder layers" in text
    assert "layers.0 0.50" in text


def test_axes_that_change_the_work_have_no_such_section(tmp_path: Path) -> None:
    """A larger batch is other work, and what each layer takes of it is no gain."""
    data = _sweep(tmp_path / "sizes", "max_input_len", ("100", "200"))
    assert "Layers that gained" not in _text(data, "terminal")
    assert json.loads(_text(data, "json"))["tables"][0]["layers"] == []
