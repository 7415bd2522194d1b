"""Two sweeps side by side, on figures chosen by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from sample_sweep import sample_sweep

from layerprof.sweep import compare


def test_sweeps_are_compared_cell_by_cell(tmp_path: Path) -> None:
    """Cells are partners where they stand at the same point; those that one sweep could not measure are told."""
    before, after = sample_sweep(tmp_path / "a"), sample_sweep(tmp_path / "b", slower=1.25)
    found = compare.compare(before, after)
    assert [cell.title for cell in found.cells] == ["sizes: batch_size=1", "sizes: batch_size=4"]
    assert len(found.alone) == 2
    assert "no CUDA device" in " ".join(found.alone)
    worse = found.regressions(22)
    assert {(cell, change.quantity) for cell, change in worse} == {
        ("sizes: batch_size=1", "latency per sample"),
        ("sizes: batch_size=4", "latency per sample"),
    }
    assert found.regressions(30) == []


def test_a_rate_is_worse_where_it_is_lower(tmp_path: Path) -> None:
    """Tokens a second fall by 20 % where a batch takes 1.25 times as long, and rise by 25 % the other way round."""
    before, after = sample_sweep(tmp_path / "a"), sample_sweep(tmp_path / "b", slower=1.25)
    rates = [
        next(change for change in found.cells[0].totals if change.quantity == "output tokens per second")
        for found in (compare.compare(before, after), compare.compare(after, before))
    ]
    assert [rate.percent for rate in rates] == pytest.approx([-20, 25])
    assert [rate.worse_by_more_than(19) for rate in rates] == [True, False]
