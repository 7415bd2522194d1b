"""`layerprof compare` decides what is set side by side."""

from __future__ import annotations

from pathlib import Path

import pytest
from sample_sweep import run, sample_sweep, save_run

from layerprof.commands import compare
from layerprof.errors import RequestError


def test_a_run_and_a_sweep_are_not_compared(tmp_path: Path) -> None:
    """What cannot be set side by side is refused, with the way to do it."""
    save_run(run(0.25), tmp_path / "run", (0.2, 0.3))
    with pytest.raises(RequestError, match=r"is a run and .* is a sweep"):
        compare.compared(tmp_path / "run", sample_sweep(tmp_path / "sweep"))
    with pytest.raises(RequestError):
        compare.compared(tmp_path / "run", tmp_path / "nothing")
