"""`layerprof estimate`: figures of a model that is never loaded."""

from __future__ import annotations

from typing import Any

from layerprof.commands import printing
from layerprof.estimate import estimate
from layerprof.report.estimate import render


def show(model: str, json: str | None, **asked: Any) -> None:
    """Estimate, and show it or write it as JSON. Raises RequestError."""
    result = estimate.estimate(model, **asked)
    if json is None:
        render(result, printing.console())
    else:
        printing.emit(result.to_json(), json)
