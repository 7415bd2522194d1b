"""The figures of a cell: those of its run, or the medians over its repeats with their range."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from layerprof.books.ledger import Sum, sums
from layerprof.records import LayerRow, Phase, RequestTotals, Run, Statistic
from layerprof.report import request

Ends = tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Figures:
    """A cell's figures in SI units, medians over its repeats; None where not measured. Energy and FLOPs are per sample.

    `weights` are the bytes that all weights lie in, told where the memory pass ran.

    A field that ends in `_ci` is the interval of one run's figure, or the range over repeats. Work, energy and layers
    are of the `instrumented` samples, all else of all `samples`. `read_s`, `process_s`, `copy_s` and `generate_s` are
    parts of a batch's request. `vision_span_s` are the seconds of a sample in the layers of the vision tower,
    `prefill_span_s` and `decode_span_s` in those of the language tower; None where not every layer has a row.
    """

    samples: int
    instrumented: int
    repeats: int
    wer: float | None
    wer_ci: Ends
    wer_first: float | None
    metric_name: str | None
    metric: float | None
    latency_s: float
    latency_ci: Ends
    ttft_s: float | None
    ttft_ci: Ends
    ttft_request_s: float | None
    ttft_request_ci: Ends
    token_s: float | None
    token_ci: Ends
    read_s: float | None
    read_ci: Ends
    process_s: float | None
    process_ci: Ends
    copy_s: float | None
    copy_ci: Ends
    generate_s: float | None
    generate_ci: Ends
    vision_span_s: float | None
    vision_span_ci: Ends
    prefill_span_s: float | None
    prefill_span_ci: Ends
    decode_span_s: float | None
    decode_span_ci: Ends
    samples_per_s: float | None
    output_tokens_per_s: float | None
    accepted_per_step: float | None
    energy_j: float | None
    energy_quality: str
    energy_reason: str | None
    correct_j: float | None
    correct_ci: Ends
    correct_reason: str | None
    flops: float | None
    flops_at_least: bool
    bytes: float | None
    bytes_at_least: bool
    weights: int | None
    memory: int | None


def figures(runs: Sequence[Run]) -> Figures:
    """Return the figures of a cell's repeats."""
    totals = [run.totals for run in runs]
    first = totals[0]
    wers = [total.wer for total in totals if total.wer]
    latency, latency_ci = _times([total.latency_s.per_batch for total in totals])
    assert latency is not None, "a run has at least one batch"
    correct, correct_ci = _joined(
        [(total.energy.per_correct_answer, total.energy.per_correct_answer_ci95) for total in totals]
    )
    return Figures(
        samples=runs[0].samples,
        instrumented=runs[0].walked,
        repeats=len(runs),
        wer=_median([wer.corpus_min for wer in wers]),
        wer_ci=_joined([(wer.corpus_min, wer.ci95) for wer in wers])[1],
        wer_first=_median([wer.corpus_first for wer in wers]),
        metric_name=first.task_metric.name if first.task_metric else None,
        metric=_median([total.task_metric.value for total in totals if total.task_metric]),
        latency_s=latency,
        latency_ci=latency_ci,
        **_named("ttft", [total.latency_s.ttft for total in totals]),
        **_named("ttft_request", [total.latency_s.ttft_request for total in totals]),
        **_named("token", [total.latency_s.per_output_token for total in totals]),
        **_parts([total.request_s for total in totals]),
        **_spans(runs),
        samples_per_s=_median([total.samples_per_s for total in totals]),
        output_tokens_per_s=_median([total.output_tokens_per_s for total in totals]),
        accepted_per_step=_median([total.accepted_per_step for total in totals]),
        energy_j=_median([total.energy.per_sample for total in totals]),
        energy_quality=first.energy.quality.value,
        energy_reason=first.energy.reason,
        correct_j=correct,
        correct_ci=correct_ci,
        correct_reason=first.energy.per_correct_answer_reason,
        flops=_median([total.flops_per_sample for total in totals]),
        flops_at_least=any(total.flops_at_least for total in totals),
        bytes=_median([run.totals.bytes / run.walked if run.totals.bytes and run.walked else None for run in runs]),
        bytes_at_least=any(total.bytes_at_least for total in totals),
        weights=weights_bytes(runs[0]),
        memory=first.peak_memory_bytes,
    )


def _spans(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the time in the layers of each tower, that of the language tower by phase, per sample that was walked."""
    groups: dict[str, Callable[[LayerRow], bool]] = {
        "vision": lambda row: row.tower == "vision",
        "prefill": lambda row: row.tower == "language" and row.phase is Phase.PREFILL,
        "decode": lambda row: row.tower == "language" and row.phase is Phase.DECODE,
    }
    found: dict[str, Any] = {}
    for name, belongs in groups.items():
        seconds = [_seconds(run, belongs) for run in runs]
        value, ends = _joined([(one, None) for one in seconds])
        found |= {f"{name}_span_s": value, f"{name}_span_ci": ends}
    return found


def _seconds(run: Run, belongs: Callable[[LayerRow], bool]) -> float | None:
    if not run.walked or run.settings.get("layers", "all") != "all":
        return None
    total = sums(run.layers, belongs).get(True, Sum()).span_s
    return None if total is None else total / run.walked


def _parts(found: Sequence[RequestTotals | None]) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for name in request.PARTS:
        named |= _named(name, [getattr(one, name) if one else None for one in found])
    return named


def _named(name: str, found: Sequence[Statistic | None]) -> dict[str, Any]:
    seconds, ci95 = _times(found)
    return {f"{name}_s": seconds, f"{name}_ci": ci95}


def _times(found: Sequence[Statistic | None]) -> tuple[float | None, Ends]:
    return _joined([(one.median, one.ci95) for one in found if one])


def _joined(found: Sequence[tuple[float | None, Ends]]) -> tuple[float | None, Ends]:
    """Return the median of a figure over repeats with their range, or the one figure with its own interval."""
    known = [(value, ci95) for value, ci95 in found if value is not None]
    if len(known) == 1:
        return known[0]
    values = [value for value, _ in known]
    return _median(values), (min(values), max(values)) if values else None


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def weights_bytes(run: Run) -> int | None:
    """Return the bytes that a run's weights lie in, shared ones once, where its memory pass has told them."""
    found = run.passes.get("memory")
    known = found.get("weights_bytes") if isinstance(found, Mapping) else None
    return int(known) if isinstance(known, (int, float)) else None
