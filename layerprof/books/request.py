"""The request: a batch's way from the image file to the answer, and books of their own for its parts."""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum

from layerprof.books import statistics
from layerprof.readings import Made, Walked
from layerprof.records import RequestColumn, RequestTotals, Statistic

NOT_TIMED = "what comes before generate() was not timed"
Part = tuple[float, float, float, float]
"""Seconds of a batch: read, process, copy, generate."""


def totals(made: Sequence[Made], bare: Sequence[Walked]) -> RequestTotals | None:
    """Return seconds a batch of each part, over the batches of the bare pass; None where they were not timed."""
    parts = _parts(made, bare)
    if not parts:
        return None
    read, process, copy, generate = (_statistic(values) for values in zip(*parts, strict=True))
    return RequestTotals(read=read, process=process, copy=copy, generate=generate)


def close(made: Sequence[Made], bare: Sequence[Walked]) -> RequestColumn:
    """Return the sums of the parts against the wall time of the bare walk, from each batch's turn to its answer.

    The wall is taken around the making of a batch and around its answering, by clocks that know nothing of the parts.
    """
    parts = _parts(made, bare)
    if not parts:
        return RequestColumn(
            read=None, process=None, copy=None, generate=None, residual=None, total=None, reason=NOT_TIMED
        )
    read, process, copy, generate = (fsum(values) for values in zip(*parts, strict=True))
    total = fsum(one.wall_s for one in made[: len(parts)]) + fsum(
        walked.latency_s if walked.wall_s is None else walked.wall_s for walked in bare[: len(parts)]
    )
    residual = total - fsum((read, process, copy, generate))
    return RequestColumn(read=read, process=process, copy=copy, generate=generate, residual=residual, total=total)


def to_first_token(made: Sequence[Made], bare: Sequence[Walked]) -> list[float]:
    """Return the seconds from a batch's turn to its first token: all of its making, then the time inside `generate()`.

    Batches whose first token was not timed have none.
    """
    pairs = zip(made, bare, strict=False)
    return [
        one.wall_s + walked.generated.first_token_s
        for one, walked in pairs
        if walked.generated.first_token_s is not None
    ]


def _parts(made: Sequence[Made], bare: Sequence[Walked]) -> list[Part]:
    return [(m.read_s, m.process_s, m.copy_s, walked.latency_s) for m, walked in zip(made, bare, strict=False)]


def _statistic(values: Sequence[float]) -> Statistic:
    found = statistics.describe(values)
    assert found is not None, "there is at least one batch"
    return found
