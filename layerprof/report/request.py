"""The way of a batch from the image file to its answer, as plain data: its parts with their times and shares."""

from __future__ import annotations

from dataclasses import dataclass

from layerprof.records import Run, Statistic
from layerprof.report import units

PARTS = ("read", "process", "copy", "generate")
RESIDUAL = "residual"


@dataclass(frozen=True, slots=True)
class RequestPart:
    """A part of the request: seconds of all batches together with their share of the walk, and those of one batch.

    The residual is of all batches together only. What was not measured is None.
    """

    name: str
    total_s: float | None
    share: float | None
    each: Statistic | None


def parts(run: Run) -> list[RequestPart]:
    """Return the parts in their order, then the residual; empty where the run timed none of them."""
    column, totals = run.ledger.request_s, run.totals.request_s
    found = []
    for name in (*PARTS, RESIDUAL):
        seconds = getattr(column, name) if column else None
        share = seconds / column.total if column and column.total and seconds is not None else None
        found.append(RequestPart(name, seconds, share, getattr(totals, name, None)))
    return found if any(part.total_s is not None or part.each for part in found) else []


def lines(run: Run) -> list[str]:
    """Return each part in a few words, e.g. `read: 5.00 ms a batch, 3.3 % of the request`."""
    said = []
    for part in parts(run):
        each = f"{units.seconds(part.each.median)} a batch" if part.each else units.seconds(part.total_s)
        said.append(f"{part.name}: {each}" + (f", {units.percent(part.share)} of the request" if part.share else ""))
    return said


def told(run: Run) -> str:
    """Return what the parts are of: from where to where, and of how many samples in how many batches."""
    totals = run.totals.request_s
    batches = f" in {units.many(totals.generate.n, 'batch', 'es')}" if totals and totals.generate.n else ""
    return f"from the image file to the answer, {units.many(run.samples, 'sample')}{batches}, nothing attached"
