"""Two sweeps side by side, on figures chosen by hand."""

from __future__ import annotations

from pathlib import Path

from sample_sweep import sample_sweep

from layerprof.sweep import compare


def test_sweeps_are_compared_cell_by_cell(tmp_path: Path) -> None:
    """Cells are partners where they stand at the same point; those that one sweep could not measure are told."""
    before, after = sample_sweep(tmp_path / "a"), sample_sweep(tmp_path / "b", slower=1.25)
    found = compare.compare(before, after)
    assert [cell.title for cell in found.cells] == ["sizes: batch_size=1", "sizes: batch_size=4"]
    assert len(found.alone) == 2
    assert "no CUDA device" in " ".join(found.alone)
    worse = found.regressions(20)
    assert {(cell, change.quantity) for cell, change in worse} == {
        ("sizes: batch_size=1", "latency per sample"),
        ("sizes: batch_size=4", "latency per sample"),
    }
    assert found.regressions(30) == []
