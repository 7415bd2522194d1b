"""The small run of `sample_run` with the whole request around it, every figure chosen by hand.

Twelve samples in six batches were answered; the instruments walked the first four, in two. Seconds of the walk: 0.030
read, 0.105 process, 0.006 copy, 0.750 generate, 0.009 in none, 0.900 in all. Of the four, three answers are right.
"""

from __future__ import annotations

from typing import Any

from sample_run import ledger, sample_run, totals

from layerprof.records import RequestColumn, RequestTotals, Run, Statistic

PREFILLED = 2 * (376 + 94) / 8
"""Positions that a call of prefill is given: two prompts of 12 samples, padding counted."""


def request_column() -> RequestColumn:
    """Return the books of the request."""
    return RequestColumn(read=0.030, process=0.105, copy=0.006, generate=0.750, residual=0.009, total=0.900)


def request_totals() -> RequestTotals:
    """Return what a batch took."""
    return RequestTotals(
        read=Statistic(median=0.005, p95=0.006, ci95=(0.0045, 0.0055), n=6),
        process=Statistic(median=0.0175, p95=0.020, ci95=(0.017, 0.018), n=6),
        copy=Statistic(median=0.001, p95=0.0012, ci95=(0.0009, 0.0011), n=6),
        generate=Statistic(median=0.125, p95=0.140, ci95=(0.110, 0.140), n=6),
    )


def request_run(**changes: Any) -> Run:
    """Return the run, with whole fields replaced by `changes`."""
    old = totals()
    latency = old.latency_s.model_copy(
        update={
            "per_batch": Statistic(median=0.125, p95=0.140, ci95=(0.110, 0.140), n=6),
            "per_sample": Statistic(median=0.0625, p95=0.070, ci95=(0.055, 0.070), n=12),
            "ttft": Statistic(median=0.060, p95=0.064, ci95=(0.056, 0.064), n=6),
            "ttft_request": Statistic(median=0.0835, p95=0.090, ci95=(0.079, 0.088), n=6),
        }
    )
    energy = old.energy.model_copy(update={"per_correct_answer": 20 / 3, "per_correct_answer_ci95": (5.0, 10.0)})
    whole = old.model_copy(
        update={
            "latency_s": latency,
            "energy": energy,
            "request_s": request_totals(),
            "samples_per_s": 12 / 0.900,
            "output_tokens_per_s": 120 / 0.750,
            "output_tokens": 120,
            "prompt_tokens": 3 * 376,
            "pad_tokens": 3 * 94,
            "image_tokens": 3 * 256,
        }
    )
    books = ledger().model_copy(update={"request_s": request_column()})
    given: dict[str, Any] = {"samples": 12, "instrumented": 4, "totals": whole, "ledger": books}
    return sample_run(**(given | changes))
