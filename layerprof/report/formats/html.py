"""The run as one HTML page: plots, tables and data inside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any

from layerprof.records import Run
from layerprof.report import page, units
from layerprof.report.payload import flat_settings, payload


def render(run: Run, out: IO[str]) -> None:
    """Write the page."""
    data = payload(run)
    page.write(
        out,
        "run.html",
        data,
        ["charts.js"],
        run=data,
        tables=[(name, flat_settings(values)) for name, values in _tables(run)],
        files=run.files,
        percent=units.percent,
    )


def _tables(run: Run) -> list[tuple[str, Mapping[str, Any]]]:
    """Return what is listed as it was stored: settings, where it ran, and what measured the energy."""
    named = [(name, getattr(run, name)) for name in ("settings", "environment", "model", "dataset")]
    energy = run.passes.get("energy")
    return [*named, ("energy", energy)] if isinstance(energy, Mapping) else named
