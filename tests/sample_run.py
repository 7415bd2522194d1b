"""A small run whose every figure was chosen by hand, so that reports can be checked against plain arithmetic.

Two vision blocks, three decoder layers, three phases, the named rest; four samples in two batches, five decode steps
each. Span: 0.2499 s in rows and gaps of 0.2500 s. FLOPs: 75.001 G, residual 0. Energy: 19 of 20 J. Busy: one of two
batches traced.
"""

from __future__ import annotations

from typing import Any

from layerprof.records import (
    Energy,
    LatencyTotals,
    LayerRow,
    Ledger,
    LedgerColumn,
    Phase,
    Quality,
    Run,
    Sample,
    SpanStatistic,
    Statistic,
    TaskMetric,
    Totals,
    Tower,
    Wer,
)

GIGA, MEGA = 10**9, 10**6
VISION, LANGUAGE = "model.visual", "model.language_model"

# (module path, kind, index, phase, calls, GFLOP, MB, span ms: total, median, p95; busy ms, busy calls, joules)
# fmt: off
_ROWS: tuple[tuple[Any, ...], ...] = (
    (f"{VISION}.patch_embed", "patch_embed", 0, Phase.VISION, 2, 0.1, 8, 1.0, 0.5, 0.6, 0.4, 1, 0.05),
    (f"{VISION}.blocks.0", "vision_block", 0, Phase.VISION, 2, 4.0, 80, 10.0, 5.0, 5.5, 4.0, 1, 0.5),
    (f"{VISION}.blocks.1", "vision_block", 1, Phase.VISION, 2, 4.0, 80, 10.0, 5.0, 5.5, 4.0, 1, 0.5),
    (f"{VISION}.merger", "merger", 0, Phase.VISION, 2, 0.3, 20, 2.0, 1.0, 1.1, 0.8, 1, 0.1),
    (f"{LANGUAGE}.embed_tokens", "embed_tokens", 0, Phase.PREFILL, 2, 0.0, 2, 0.2, 0.1, 0.1, 0.05, 1, None),
    (f"{LANGUAGE}.layers.0", "decoder_layer", 0, Phase.PREFILL, 2, 20.0, 320, 30.0, 15.0, 16.0, 12.0, 1, 2.0),
    (f"{LANGUAGE}.layers.1", "decoder_layer", 1, Phase.PREFILL, 2, 20.0, 320, 30.0, 15.0, 16.0, 12.0, 1, 2.0),
    (f"{LANGUAGE}.layers.2", "decoder_layer", 2, Phase.PREFILL, 2, 20.0, 320, 30.0, 15.0, 16.0, 12.0, 1, 2.0),
    (f"{LANGUAGE}.norm", "norm", 0, Phase.PREFILL, 2, 0.0, 1, 0.2, 0.1, 0.1, 0.1, 1, None),
    ("lm_head", "lm_head", 0, Phase.PREFILL, 2, 0.6, 60, 1.0, 0.5, 0.6, 0.5, 1, 0.15),
    (f"{LANGUAGE}.embed_tokens", "embed_tokens", 0, Phase.DECODE, 10, 0.0, 1, 0.5, 0.05, 0.06, 0.1, 5, None),
    (f"{LANGUAGE}.layers.0", "decoder_layer", 0, Phase.DECODE, 10, 1.0, 1540, 30.0, 3.0, 3.3, 5.0, 5, 2.5),
    (f"{LANGUAGE}.layers.1", "decoder_layer", 1, Phase.DECODE, 10, 1.0, 1540, 60.0, 6.0, 6.9, 5.0, 5, 4.0),
    (f"{LANGUAGE}.layers.2", "decoder_layer", 2, Phase.DECODE, 10, 1.0, 1540, 30.0, 3.0, 3.3, 5.0, 5, 2.5),
    (f"{LANGUAGE}.norm", "norm", 0, Phase.DECODE, 10, 0.0, 1, 1.0, 0.1, 0.12, 0.2, 5, None),
    ("lm_head", "lm_head", 0, Phase.DECODE, 10, 3.0, 600, 6.0, 0.6, 0.7, 2.0, 5, 0.7),
)
# fmt: on
TOO_SHORT = "shorter than one tick of the energy counter"


def _row(row: tuple[Any, ...]) -> LayerRow:
    name, kind, index, phase, calls, gflop, megabytes, total_ms, median_ms, p95_ms, busy_ms, busy_calls, joules = row
    tower: Tower = "vision" if phase is Phase.VISION else "language"
    return LayerRow(
        name=name,
        tower=tower,
        kind=kind,
        index=index,
        phase=phase,
        calls=calls,
        flops=round(gflop * GIGA),
        bytes=megabytes * MEGA,
        span_s=SpanStatistic(total=total_ms / 1e3, median=median_ms / 1e3, p95=p95_ms / 1e3),
        busy_s=busy_ms / 1e3,
        busy_calls=busy_calls,
        busy_span_s=total_ms / calls * busy_calls / 1e3,
        busy_share=(busy_ms / busy_calls) / (total_ms / calls),
        roof_share=0.5 if kind == "decoder_layer" else None,
        top_kernels=(("gemm_f16", busy_ms / 2e3),) if kind == "decoder_layer" else (),
        energy_j=joules,
        energy_ci95=None,
        energy_quality=Quality.UNAVAILABLE if joules is None else Quality.ATTRIBUTED,
        energy_reason=TOO_SHORT if joules is None else "shared out by time within each phase",
    )


def ledger() -> Ledger:
    """Return the books of the rows above, added up by hand."""
    return Ledger(
        flops=LedgerColumn(
            layers=71 * GIGA,
            rest={
                "patch_embed": 100 * MEGA,
                "merger": 300 * MEGA,
                "embed_tokens": 0,
                "norm": 0,
                "lm_head": 3600 * MEGA,
                "outside layers: rotary_emb": 1 * MEGA,
            },
            residual=0,
            total=75_001 * MEGA,
        ),
        span_s=LedgerColumn(
            layers=0.2300,
            rest={
                "patch_embed": 0.0010,
                "merger": 0.0020,
                "embed_tokens": 0.0007,
                "norm": 0.0012,
                "lm_head": 0.0070,
                "before the first layer": 0.0020,
                "within decode": 0.0010,
                "between decode steps": 0.0050,
            },
            residual=0.0001,
            total=0.2500,
        ),
        busy_s=LedgerColumn(
            layers=0.0590,
            rest={
                "patch_embed": 0.0004,
                "merger": 0.0008,
                "embed_tokens": 0.00015,
                "norm": 0.0003,
                "lm_head": 0.0025,
                "outside layers": 0.0010,
                "no launch seen": 0.0,
                "graph launch": 0.0,
            },
            residual=0.0,
            total=0.06415,
        ),
        energy_j=LedgerColumn(
            layers=16.0,
            rest={"patch_embed": 0.05, "merger": 0.1, "lm_head": 0.85, "gaps": 2.0},
            residual=1.0,
            total=20.0,
        ),
    )


def totals() -> Totals:
    """Return the end-to-end block: 4 samples, 40 answer tokens, 20 J."""
    return Totals(
        wer=Wer(
            corpus_min=0.25,
            corpus_first=0.375,
            mean_clipped=0.3,
            mer=0.22,
            substitutions=1,
            deletions=0,
            insertions=1,
            reference_words=8,
            hypothesis_words=9,
            truncated_share=0.25,
            unscored=0,
            ci95=(0.1, 0.4),
        ),
        task_metric=TaskMetric(name="vqa_accuracy", value=0.75, ci95=(0.5, 1.0)),
        latency_s=LatencyTotals(
            per_batch=Statistic(median=0.125, p95=0.140, ci95=(0.110, 0.140), n=2),
            per_sample=Statistic(median=0.0625, p95=0.070, ci95=(0.055, 0.070), n=4),
            ttft=Statistic(median=0.060, p95=0.064, ci95=(0.056, 0.064), n=2),
            per_output_token=Statistic(median=0.0130, p95=0.0150, ci95=(0.0125, 0.0140), n=10),
        ),
        flops=75_001 * MEGA,
        flops_per_sample=75_001 * MEGA / 4,
        flops_useful=60_000 * MEGA,
        bytes=6434 * MEGA,
        energy=Energy(
            joules=20.0,
            per_sample=5.0,
            per_output_token=0.5,
            quality=Quality.MEASURED,
            source="nvml_counter",
            mean_power_w=80.0,
        ),
        peak_memory_bytes=512 * MEGA,
        overhead_ratio=1.008,
        overhead_ci95=(1.003, 1.014),
        output_tokens=40,
        prompt_tokens=376,
        pad_tokens=94,
        image_tokens=256,
    )


def sample_run(**changes: Any) -> Run:
    """Return the run, with whole fields replaced by `changes`."""
    values: dict[str, Any] = {
        "created": "2026-01-02T03:04:05+00:00",
        "settings": {
            "model": "demo",
            "weights": "pretrained",
            "dataset": "textvqa",
            "device": "cuda:0",
            "dtype": "fp16",
            "optimization": "eager",
            "batch_size": 2,
            "image_size": 224,
            "max_input_len": 200,
            "max_new_tokens": 16,
        },
        "environment": {
            "device": "cuda:0",
            "device_name": "Imaginary GPU",
            "python": "3.11.4",
            "torch": "2.12.0",
            "transformers": "5.23.0",
            "gpu": {"name": "Imaginary GPU", "driver": "600.1", "power_limit_w": "300"},
        },
        "model": {"name": "demo", "provenance": "pretrained"},
        "dataset": {"name": "textvqa", "source": "bundled"},
        "samples": 4,
        "totals": totals(),
        "layers": tuple(_row(row) for row in _ROWS),
        "ledger": ledger(),
        "warnings": ("The answers of one sample were cut at 16 tokens.",),
        "files": {"run": "run.json", "layers": "layers.csv"},
    }
    return Run(**(values | changes))


def bare_run() -> Run:
    """Return a run that measured next to nothing: no trace, no energy, no spans, no scores, one sample."""
    none = LedgerColumn(layers=None, rest={}, residual=None, total=None, reason="the pass was switched off")
    rows = tuple(
        row.model_copy(
            update={
                "span_s": None,
                "busy_s": None,
                "busy_calls": None,
                "busy_span_s": None,
                "busy_share": None,
                "roof_share": None,
                "top_kernels": (),
                "energy_j": None,
                "energy_quality": Quality.UNAVAILABLE,
                "energy_reason": "no sensor",
            }
        )
        for row in sample_run().layers
    )
    energy = Energy(
        joules=None,
        per_sample=None,
        per_output_token=None,
        quality=Quality.UNAVAILABLE,
        source="none",
        reason="this machine has no energy sensor that may be read",
    )
    once = Statistic(median=0.5, p95=0.5, ci95=None, n=1)
    few = totals().model_copy(
        update={
            "wer": None,
            "task_metric": None,
            "energy": energy,
            "latency_s": LatencyTotals(per_batch=once, per_sample=once, ttft=None, per_output_token=None),
            "peak_memory_bytes": None,
            "overhead_ratio": None,
            "overhead_ci95": None,
        }
    )
    books = Ledger(flops=ledger().flops, span_s=none, busy_s=none, energy_j=none)
    return sample_run(layers=rows, ledger=books, totals=few, warnings=(), files={}, samples=1)


def large_run(vision: int = 32, language: int = 36) -> Run:
    """Return a run shaped like a 3B model, in which every eighth vision block is slower."""
    source = {(row.kind, row.phase): row for row in sample_run().layers}
    rows: list[LayerRow] = []
    for (kind, _), row in source.items():
        repeats = {"vision_block": vision, "decoder_layer": language}.get(kind, 1)
        for index in range(repeats):
            slow = 1.6 if kind == "vision_block" and index % 8 == 7 else 1.0
            span = row.span_s
            assert span is not None
            slower = SpanStatistic(total=span.total * slow, median=span.median * slow, p95=span.p95 * slow)
            name = row.name.rsplit(".", 1)[0] + f".{index}" if repeats > 1 else row.name
            rows.append(row.model_copy(update={"name": name, "index": index, "span_s": slower}))
    return sample_run(layers=tuple(rows), ledger=_large_books(rows))


def _large_books(rows: list[LayerRow]) -> Ledger:
    blocks = [row for row in rows if row.kind in ("vision_block", "decoder_layer")]
    spent, inside = (sum(row.span_s.total for row in part if row.span_s) for part in (rows, blocks))
    flops, flops_inside = (sum(row.flops or 0 for row in part) for part in (rows, blocks))
    joules, joules_inside = (sum(row.energy_j or 0 for row in part) for part in (rows, blocks))
    return ledger().model_copy(
        update={
            "flops": LedgerColumn(layers=flops_inside, rest={"rest": flops - flops_inside}, residual=0, total=flops),
            "span_s": LedgerColumn(
                layers=inside,
                rest={"rest": spent - inside, "between decode steps": 0.1},
                residual=0.004,
                total=spent + 0.104,
            ),
            "energy_j": LedgerColumn(
                layers=joules_inside, rest={"rest": joules - joules_inside}, residual=10.0, total=joules + 10.0
            ),
        }
    )


def samples() -> tuple[Sample, ...]:
    """Return two scored samples, one with characters that reports must not let through."""
    common: dict[str, Any] = {"batch": 0, "truncated": False, "prompt_tokens": 30, "image_tokens": 64, "pad_tokens": 0}
    return (
        Sample(id="a", prompt="What does it say?", references=("stop",), answer="stop", answer_tokens=(5, 2), **common),
        Sample(id="b", prompt="<script>x</script>", references=(), answer="ügly\n", answer_tokens=(), **common),
    )
