"""The run end to end, from the bare pass: latency, quality, work and energy, each with its counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from layerprof import statistics
from layerprof.records import LatencyTotals, Statistic

if TYPE_CHECKING:
    from layerprof.session import Walked


def latency(walked: Sequence[Walked]) -> LatencyTotals:
    """Return end-to-end seconds per batch, per sample, to the first token, and per further output token.

    A token's time is (batch latency - time to first token) / (steps - 1): what a user waits for between tokens. Batches of
    one step have none. The interval is a seeded bootstrap of the median over batches.
    """
    per_token = [
        (batch.latency_s - batch.generated.first_token_s) / (steps - 1)
        for batch in walked
        if (steps := max(batch.generated.new_tokens, default=0)) > 1 and batch.generated.first_token_s is not None
    ]
    first = [batch.generated.first_token_s for batch in walked if batch.generated.first_token_s is not None]
    return LatencyTotals(
        per_batch=statistics.summary([batch.latency_s for batch in walked]),
        per_sample=statistics.summary([batch.latency_s / batch.rows for batch in walked]),
        ttft=_maybe(first),
        per_output_token=_maybe(per_token),
    )


def overhead_ratio(bare: Sequence[Walked], hooked: Sequence[Walked]) -> float | None:
    """Return hooked / bare as the median over batches of the paired ratio; None where no batch was answered in both."""
    ratios = [b.latency_s / a.latency_s for a, b in zip(bare, hooked, strict=False)]
    return float(np.median(ratios)) if ratios else None


def output_tokens(walked: Sequence[Walked]) -> int:
    """Return how many tokens were answered, end marks included, padding after them not."""
    return sum(sum(batch.generated.new_tokens) for batch in walked)


def _maybe(values: Sequence[float]) -> Statistic | None:
    return statistics.summary(values) if values else None
