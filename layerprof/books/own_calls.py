"""The run of a user's own model and loop: layers, books and latency; no quality, since nothing was asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from layerprof.books import ledger, not_counted, recurrence, rows, totals
from layerprof.books.assemble import now
from layerprof.books.device import roof, surroundings
from layerprof.books.shown import shown
from layerprof.flops.formulas import CONVENTION
from layerprof.readings import Layer, SpanReading, WeightReading, WorkReading
from layerprof.records import Run


@dataclass(frozen=True, slots=True)
class OwnCalls:
    """What was called: the model's facts, its layers and those that get rows, and the rows of all outermost calls.

    `accepted_per_step` is how many tokens a row kept of a decode step, where drafts were checked.
    """

    model: dict[str, Any]
    layers: tuple[Layer, ...]
    selected: tuple[Layer, ...]
    selector: str
    device: str
    dtype: str
    rows: int
    accepted_per_step: float | None = None
    weights: WeightReading | None = None


def run(
    calls: OwnCalls,
    spans: SpanReading,
    work: WorkReading | None,
    *,
    why_no_work: str = "",
    failed: bool = False,
    warnings: tuple[str, ...] = (),
    counting: dict[str, Any] | None = None,
) -> Run:
    """Return the run. `why_no_work` is the reason for FLOPs of None, `failed` whether the block raised.

    `counting` says how many passes through the model were watched, and what that took.
    """
    every = rows.rows(calls.layers, spans, work, weights=calls.weights, roof=roof(calls.device, calls.dtype))
    ended = totals.of_windows(spans, work, calls.rows, calls.accepted_per_step)
    unseen = not_counted.weights_warning(calls.weights)
    books = ledger.close(calls.layers, spans, work, reasons={"flops": why_no_work} if why_no_work else {})
    return Run(
        created=now(),
        status="failed" if failed else "done",
        settings={"layers": calls.selector, "device": calls.device, "dtype": calls.dtype, "convention": CONVENTION},
        environment=surroundings(calls.device, calls.dtype),
        model=calls.model,
        dataset={"name": "own calls"},
        samples=calls.rows,
        totals=ended.model_copy(update={"bytes_at_least": unseen is not None}),
        layers=shown(every, calls.selected, spans, work),
        ledger=books,
        passes={"decode_by_step": rows.decode_by_step(spans)} | ({"counting": counting} if counting else {}),
        uncounted_ops=work.uncounted_calls() if work else {},
        warnings=(
            *warnings,
            *filter(None, (not_counted.warning(books.flops), unseen, recurrence.warning(calls.layers, spans, work))),
        ),
    )
