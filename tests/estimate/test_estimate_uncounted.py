"""Estimates of models with operators that have no formula: lower bounds, and said to be."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest

from layerprof.estimate.estimate import estimate
from layerprof.flops import operators
from layerprof.records import Phase
from layerprof.report.estimate import render


def test_an_operator_without_a_formula_makes_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linear layers stand for it: four of attention and three of the MLP in a decoder layer, at each of 1 + 4 steps.

    What is known stays, as a lower bound; the least time is one as well. What needs all the work is not given.
    """

    def fails(operands: Any, output: Any) -> Any:
        raise ValueError("not known")

    options: dict[str, Any] = {"text_tokens": 20, "new_tokens": 5, "gpu": "h100"}
    whole = estimate("demo", **options)
    monkeypatch.setitem(operators.FORMULAS, "aten::linear", fails)
    got = estimate("demo", **options)
    layer = {row.phase: row for row in got.layers if row.name == "model.language_model.layers.0"}
    assert layer[Phase.PREFILL].uncounted == {"aten::linear": 7}
    assert layer[Phase.DECODE].uncounted == {"aten::linear": 4 * 7}
    before = {row.phase: row for row in whole.layers if row.name == "model.language_model.layers.0"}
    for phase, row in layer.items():
        assert 0 < (row.flops or 0) < (before[phase].flops or 0)
        assert (row.flops_per_byte, row.energy_estimate_j) == (None, None)
        assert 0 < (row.time_bound_s or 0) <= (before[phase].time_bound_s or 0)
    assert got.totals.flops_at_least
    assert not whole.totals.flops_at_least
    assert got.ledger["flops"].at_least[-1] == "total"
    out = io.StringIO()
    render(got, out)
    assert "FLOPs are at least those given: " in out.getvalue()
    assert re.search(r"decoder_layer 0-5 +x6 +4 .*>= ", out.getvalue())
    assert "residual" not in out.getvalue().split("which is counted operator by operator")[1]
