"""The run end to end, from the bare pass: latency, quality, work and energy, each with its counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from layerprof.books import statistics
from layerprof.readings import SpanReading, Walked, WorkReading
from layerprof.records import Energy, LatencyTotals, Quality, Statistic, Totals

LEAST_PAIRS = 6
"""Of five values not even the smallest and the largest are 95 % sure to hold the median: 1 - 2 / 2^5 = 94 %."""


def latency(walked: Sequence[Walked], from_file_s: Sequence[float] = ()) -> LatencyTotals:
    """Return end-to-end seconds per batch, per sample, to the first token, and per further output token.

    A token's time is (batch latency - time to first token) / (steps - 1): what a user waits for between tokens.
    Batches of one step have none. `from_file_s` are the times to the first token with what came before. The interval
    is a seeded bootstrap of the median over batches.
    """
    per_token = [
        (batch.latency_s - batch.generated.first_token_s) / (steps - 1)
        for batch in walked
        if (steps := max(batch.generated.new_tokens, default=0)) > 1 and batch.generated.first_token_s is not None
    ]
    first = [batch.generated.first_token_s for batch in walked if batch.generated.first_token_s is not None]
    return LatencyTotals(
        per_batch=_of([batch.latency_s for batch in walked]),
        per_sample=_of([batch.latency_s / batch.rows for batch in walked]),
        ttft=_maybe(first),
        per_output_token=_maybe(per_token),
        ttft_request=_maybe(from_file_s),
    )


def overhead(bare: Sequence[Walked], hooked: Sequence[Walked]) -> tuple[float | None, tuple[float, float] | None]:
    """Return hooked / bare as the median over batches of the paired ratio, and its bootstrap 95 % interval.

    None where no batch was answered in both; the interval also below `LEAST_PAIRS`.
    """
    ratios = [b.latency_s / a.latency_s for a, b in zip(bare, hooked, strict=False)]
    if not ratios:
        return None, None
    return float(np.median(ratios)), statistics.median_ci(ratios) if len(ratios) >= LEAST_PAIRS else None


def output_tokens(walked: Sequence[Walked]) -> int:
    """Return how many tokens were answered, end marks included, padding after them not."""
    return sum(sum(batch.generated.new_tokens) for batch in walked)


def of_windows(
    spans: SpanReading, work: WorkReading | None, rows: int, accepted_per_step: float | None = None
) -> Totals:
    """Return the totals of a user's own calls: one batch is one outermost call, and only the latency is end to end.

    Of calls without a row (an empty batch) the time of all of them stands for one.
    """
    windows, quiet = spans.windows_s, spans.undisturbed_windows_s()
    return Totals(
        wer=None,
        task_metric=None,
        latency_s=LatencyTotals(
            per_batch=_of(quiet),
            per_sample=_of([seconds * len(windows) / max(rows, 1) for seconds in quiet]),
            ttft=None,
            per_output_token=None,
        ),
        **of_work(work, rows),
        energy=no_energy("LayerProfiler measures no energy; use `layerprof profile`"),
        peak_memory_bytes=None,
        overhead_ratio=None,
        accepted_per_step=accepted_per_step,
        output_tokens=None,
        prompt_tokens=None,
        pad_tokens=None,
        image_tokens=None,
    )


def of_work(work: WorkReading | None, rows: int | None) -> dict[str, Any]:
    """Return the fields of `Totals` that are of work; `rows` is None where FLOPs are not of all samples.

    Where operators without a formula ran, FLOPs are a lower bound, and None where nothing else was counted.
    """
    if work is None:
        return dict.fromkeys(("flops", "flops_per_sample", "flops_useful", "flops_causal", "bytes"))
    parts = [*work.layers.values(), *work.outside.values()]
    known = bool(work.total_flops) or not work.uncounted
    return {
        "flops": work.total_flops if known else None,
        "flops_per_sample": work.total_flops / rows if known and rows else None,
        "flops_at_least": bool(work.uncounted),
        "flops_useful": sum(part.flops_useful for part in parts) if known else None,
        "flops_causal": sum(part.flops_causal for part in parts) if known else None,
        "bytes": sum(part.bytes for part in parts),
    }


def no_energy(reason: str) -> Energy:
    """Return the record that says that there are no joules, and why."""
    return Energy(
        joules=None,
        per_sample=None,
        per_output_token=None,
        quality=Quality.UNAVAILABLE,
        source="none",
        reason=reason,
    )


def _of(values: Sequence[float]) -> Statistic:
    found = statistics.describe(values)
    assert found is not None, "a run has at least one batch"
    return found


def _maybe(values: Sequence[float]) -> Statistic | None:
    return statistics.describe(values) if values else None
