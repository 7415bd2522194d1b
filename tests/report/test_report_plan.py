"""The plan of a sweep in a terminal: its cells can be told from each other."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from layerprof.report.sweep import plan
from layerprof.sweep.cells import Cell, Identity
from layerprof.sweep.plan import Step

COMMON = {"model": "demo", "dataset": "textvqa", "batch_size": 1, "image_size": 224, "max_input_len": 200, "samples": 8}


def step(**choices: Any) -> Step:
    """Return a cell that is to be measured."""
    chosen = COMMON | choices
    who = Identity(choices=chosen, model={}, data={}, device="cpu", versions={})
    return Step(Cell(choices=chosen), who.key(), who)


def shown(steps: list[Step], width: int) -> list[list[str]]:
    """Return the words of each line of the plan."""
    out = io.StringIO()
    plan.render(steps, Console(file=out, width=width))
    return [line.split() for line in out.getvalue().splitlines()]


@pytest.mark.parametrize("width", [60, 200])
def test_what_cells_differ_in_has_a_column(width: int) -> None:
    """Whatever setting it is, and however narrow the terminal; what all have in common gives way."""
    head, *rows, _ = shown([step(fixed_tokens=f, batch_size=b) for f in (True, False) for b in (1, 4)], width)
    places = [head.index("batch_size"), head.index("fixed_tokens")]
    assert [[row[place] for place in places] for row in rows] == [
        ["1", "True"],
        ["4", "True"],
        ["1", "False"],
        ["4", "False"],
    ]
    assert ("max_input_len" in head) == (width == 200)


def test_settings_that_no_cell_differs_in_have_no_further_column() -> None:
    """Only those that every plan shows."""
    head, *_ = shown([step(seed=1), step(seed=1, batch_size=2)], 200)
    assert "seed" not in head
