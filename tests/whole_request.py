"""The small run of `sample_run` with the whole request around it, every figure chosen by hand.

Twelve samples in six batches were answered; the instruments walked the first four, in two. Seconds of the walk: 0.030
read, 0.105 process, 0.006 copy, 0.750 generate, 0.009 in none, 0.900 in all. Of the four, three answers are right.
"""

from __future__ import annotations

from typing import Any

from sample_run import ledger, sample_run, totals

from layerprof.records import LayerRow, LedgerColumn, Phase, RequestColumn, RequestTotals, Run, Statistic

MEGA = 10**6
PATCHES, PREFILLED, CACHED = 512.0, 235.0, 241.0
"""Positions of two images, of two prompts of 117.5 with their padding, and what five steps read in the mean."""
PRUNED, CACHED_OF_PRUNED = 120.0, 126.0
"""Positions of the same two prompts of which a model drops most after its first layer."""

# kind: MB that a call holds at most, MB that it leaves, of these in the KV cache; MB of weights
_MEMORY: dict[tuple[str, Phase], tuple[float, float, float | None, float]] = {
    ("patch_embed", Phase.VISION): (3, 1, None, 2),
    ("vision_block", Phase.VISION): (10, 1, None, 20),
    ("merger", Phase.VISION): (4, 0.5, None, 5),
    ("embed_tokens", Phase.PREFILL): (0.5, 0.5, None, 1),
    ("decoder_layer", Phase.PREFILL): (30, 2, 1.5, 80),
    ("norm", Phase.PREFILL): (0.5, 0.5, None, 0.002),
    ("lm_head", Phase.PREFILL): (1, 0.2, None, 60),
    ("embed_tokens", Phase.DECODE): (0.004, 0.004, None, 1),
    ("decoder_layer", Phase.DECODE): (0.6, 0.012, 0.012, 80),
    ("norm", Phase.DECODE): (0.004, 0.004, None, 0.002),
    ("lm_head", Phase.DECODE): (1, 0.2, None, 60),
}


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
    rows = tuple(row.model_copy(update=_positions(row)) for row in sample_run().layers)
    given: dict[str, Any] = {"samples": 12, "instrumented": 4, "totals": whole, "ledger": books, "layers": rows}
    return sample_run(**(given | changes))


def _positions(row: LayerRow) -> dict[str, float | None]:
    """Return how many positions a call of a layer is given, and how many its attention reads."""
    given = {Phase.VISION: PATCHES, Phase.PREFILL: PREFILLED, Phase.DECODE: 2.0}[row.phase]
    read = {Phase.VISION: PATCHES, Phase.PREFILL: PREFILLED, Phase.DECODE: CACHED}[row.phase]
    blocks = row.kind in ("vision_block", "decoder_layer")
    return {"tokens_per_call": 2.0 if row.kind == "lm_head" else given, "kv_per_call": read if blocks else None}


def pruned_run() -> Run:
    """Return the run of a model that drops positions after its first decoder layer, whose others do half the work."""
    run = request_run()
    rows = []
    for row in run.layers:
        fewer = row.index > 0 if row.kind == "decoder_layer" else row.kind == "norm"
        changes: dict[str, Any] = {}
        if fewer and row.phase is Phase.PREFILL:
            changes = {"tokens_per_call": PRUNED, "flops": (row.flops or 0) // 2}
            changes |= {"kv_per_call": PRUNED} if row.kv_per_call else {}
        elif fewer and row.phase is Phase.DECODE and row.kv_per_call:
            changes = {"kv_per_call": CACHED_OF_PRUNED}
        rows.append(row.model_copy(update=changes))
    flops = run.ledger.flops.model_copy(update={"layers": 51_000 * MEGA, "total": 55_001 * MEGA})
    fewer_flops = {"flops": 55_001 * MEGA, "flops_per_sample": 55_001 * MEGA / 4, "flops_useful": 44_000 * MEGA}
    return request_run(
        layers=tuple(rows),
        ledger=run.ledger.model_copy(update={"flops": flops}),
        totals=run.totals.model_copy(update=fewer_flops),
    )


def memory_run() -> Run:
    """Return the run with its memory: at the peak 386 MB, 280 of them weights of blocks, 33 what their calls held."""
    run = request_run()
    rows = []
    for row in run.layers:
        names = ("memory_peak_bytes", "memory_kept_bytes", "memory_kept_kv_bytes", "weights_bytes")
        figures = (None if one is None else round(one * MEGA) for one in _MEMORY[row.kind, row.phase])
        rows.append(row.model_copy(update=dict(zip(names, figures, strict=True))))
    megabytes = {"patch_embed": 2, "merger": 5, "embed_tokens": 1, "lm_head": 60, "inputs": 4}
    rest: dict[str, float | int] = {name: size * MEGA for name, size in megabytes.items()}
    column = LedgerColumn(layers=313 * MEGA, rest=rest, residual=MEGA, total=386 * MEGA)
    return request_run(layers=tuple(rows), ledger=run.ledger.model_copy(update={"memory_bytes": column}))
