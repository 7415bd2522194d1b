"""Readings to rows: one per layer and phase, each showing the layer with everything inside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import fsum
from typing import Any

from layerprof.books import memory as memory_books
from layerprof.books import not_counted
from layerprof.books.span_sums import seconds_of
from layerprof.books.statistics import median, p95
from layerprof.energy.amount import Amount, ci95_of, joules_of
from layerprof.readings import (
    KernelReading,
    Key,
    Layer,
    MemoryReading,
    Span,
    SpanReading,
    WeightReading,
    Work,
    WorkReading,
)
from layerprof.records import LayerRow, Phase, Quality, SpanStatistic

Roof = Callable[[float, float, float], float | None]
"""(FLOPs, bytes, seconds) of one mean call -> share of the device's roofline that it reaches, None where unknown."""

NOT_MEASURED = {
    "flops": "the flops pass did not run",
    "span_s": "the latency pass did not run",
    "busy_s": "the trace pass did not run",
    "energy_j": "no energy was measured",
}


@dataclass(frozen=True, slots=True)
class LayerEnergy:
    """Joules of each layer in each phase over all its calls, layers inside it included.

    `counted` are those that the books add up, of calls inside no other layer's; None where that is all of them.
    `rest_j` names joules of no layer (gaps between layers, the host). `quality` and `reason` hold for all of them, but
    for those that `labels` gives a quality and a reason of their own. `source` is the sensor behind them. `active_j`,
    `hot_j` and `reconciled_j` are further figures of replayed rows (`records.LayerRow`).
    """

    amounts: Mapping[Key, Amount]
    quality: Quality
    reason: str | None = None
    rest_j: Mapping[str, float] = field(default_factory=dict)
    estimate_j: Mapping[Key, float] = field(default_factory=dict)
    labels: Mapping[Key, tuple[Quality, str | None]] = field(default_factory=dict)
    source: str | None = None
    active_j: Mapping[Key, float] = field(default_factory=dict)
    hot_j: Mapping[Key, float] = field(default_factory=dict)
    reconciled_j: Mapping[Key, float] = field(default_factory=dict)
    counted: Mapping[Key, Amount] | None = None


def rows(
    layers: Sequence[Layer],
    spans: SpanReading | None = None,
    work: WorkReading | None = None,
    kernels: KernelReading | None = None,
    energy: LayerEnergy | None = None,
    *,
    memory: MemoryReading | None = None,
    weights: WeightReading | None = None,
    roof: Roof | None = None,
) -> tuple[LayerRow, ...]:
    """Return one row per layer and phase in which any reading saw it called: vision, prefill, decode; inside, as run.

    `span_s` is over all calls of the latency pass. `busy_s` is over the `busy_calls` calls of the traced batches only,
    and `busy_span_s` is what those calls took, so `busy_share` does not depend on which were traced.
    """
    timed = _by_key(spans)
    done = work.whole if work else {}
    busy = (kernels.whole_s or kernels.busy_s) if kernels else {}
    host = (kernels.host_whole_s or kernels.host_s) if kernels else {}
    missed = not_counted.by_row(work)
    joules = energy.amounts if energy else {}
    held = memory.calls if memory else {}
    resident = memory_books.weights_inside(layers, memory)
    found = {*timed, *done, *missed, *busy, *(kernels.calls if kernels else ()), *joules, *held}
    named = {layer.name: layer for layer in layers}
    keys = [key for key in found if key[0] in named]
    order = _execution_order(layers, timed)
    seen = {
        key: _Seen(
            timed.get(key, []),
            _median_spans(spans, timed.get(key, [])),
            _mixed(spans, timed.get(key, [])),
            done.get(key),
            missed.get(key, {}),
            _Busy.of(kernels, busy, host, timed, key),
            energy,
            memory_books.row_fields(memory, resident, key),
            weights or WeightReading(),
        )
        for key in sorted(keys, key=order.__getitem__)
    }
    return tuple(_row(named[name], phase, it, roof) for (name, phase), it in seen.items())


@dataclass(frozen=True, slots=True)
class _Busy:
    """Busy seconds of the traced calls, and what those calls took."""

    seconds: float | None = None
    calls: int | None = None
    span: float | None = None
    top: tuple[tuple[str, float], ...] = ()

    @classmethod
    def of(
        cls,
        kernels: KernelReading | None,
        busy: Mapping[Key, float],
        host: Mapping[Key, float],
        timed: Mapping[Key, Sequence[Span]],
        key: Key,
    ) -> _Busy:
        if kernels is None or (key not in busy and key not in kernels.calls):
            return cls()
        calls = kernels.calls.get(key)
        span = _traced_span(kernels, timed.get(key, ()), calls) if kernels.device == "cuda" else host.get(key)
        known = span if key not in kernels.graph_s else None
        return cls(busy.get(key, 0.0), calls, known, kernels.top.get(key, ()))

    @property
    def share(self) -> float | None:
        return self.seconds / self.span if self.seconds is not None and self.span else None


def _traced_span(kernels: KernelReading, spans: Sequence[Span], calls: int | None) -> float | None:
    """Return the latency pass's time of the traced calls, which ran there without the profiler.

    A profiler makes the host slower, and with it the idle gaps of a layer that waits for the host, but hardly the
    kernels. The batches are the same ones, since others have other shapes.
    """
    same = [s for s in spans if s.batch < kernels.batches] or spans
    return fsum(s.end_s - s.start_s for s in same) / len(same) * calls if same and calls else None


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the readings say of one layer in one phase. `quiet` are the spans that nothing else disturbed.

    `mixed` are the positions of prompts and of answers that entered in its mixed steps, None where it has none.
    """

    spans: Sequence[Span]
    quiet: Sequence[Span]
    mixed: tuple[int, int] | None
    work: Work | None
    uncounted: Mapping[str, int]
    busy: _Busy
    energy: LayerEnergy | None
    memory: Mapping[str, Any]
    weights: WeightReading


def _row(layer: Layer, phase: Phase, seen: _Seen, roof: Roof | None) -> LayerRow:
    unseen = dict(seen.weights.unseen_inside.get(layer.name, {}))
    return LayerRow(
        name=layer.name,
        tower=layer.tower,
        kind=layer.kind,
        index=layer.index,
        phase=phase,
        calls=len(seen.spans) or (seen.work.calls if seen.work else 0) or seen.busy.calls or 0,
        span_s=_span_statistic(seen.spans, seen.quiet),
        busy_s=seen.busy.seconds,
        busy_calls=seen.busy.calls,
        busy_span_s=seen.busy.span,
        busy_share=seen.busy.share,
        top_kernels=seen.busy.top,
        mixed_prefill_tokens=seen.mixed[0] if seen.mixed else None,
        mixed_decode_tokens=seen.mixed[1] if seen.mixed else None,
        roof_share=None if seen.uncounted or unseen else _roof_share(roof, seen.work, seen.quiet),
        weights_dtype=seen.weights.formats.get(layer.name),
        unseen_weights=unseen,
        uncounted=dict(seen.uncounted),
        **_work_fields(seen.work, unknown=bool(seen.uncounted)),
        **seen.memory,
        **_energy_fields(seen.energy, (layer.name, phase)),
    )


def _work_fields(work: Work | None, *, unknown: bool) -> dict[str, Any]:
    """Return the fields of a row's work. Where operators are `unknown` and nothing else was counted, no FLOPs are."""
    names = ["bytes", "bytes_weights", "bytes_activations", "bytes_kv"]
    flops = ("flops", "flops_useful", "flops_causal")
    known = work is not None and (work.flops or not unknown)
    per_call = ("tokens_per_call", "kv_per_call")
    return {name: getattr(work, name) if work else None for name in (*names, *per_call)} | {
        name: getattr(work, name) if known else None for name in flops
    }


def _energy_fields(energy: LayerEnergy | None, key: Key) -> dict[str, Any]:
    amount = energy.amounts.get(key) if energy else None
    own = energy.labels.get(key) if energy else None
    quality, reason = own or ((energy.quality, energy.reason) if energy else (None, NOT_MEASURED["energy_j"]))
    if amount is None and reason is None:
        reason = "not measured for this layer in this phase"
    return {
        "energy_j": joules_of(amount),
        "energy_ci95": ci95_of(amount),
        "energy_quality": quality if quality and amount else Quality.UNAVAILABLE,
        "energy_reason": reason,
        "energy_source": energy.source if energy and amount else None,
        "energy_active_j": energy.active_j.get(key) if energy else None,
        "energy_hot_j": energy.hot_j.get(key) if energy else None,
        "energy_reconciled_j": energy.reconciled_j.get(key) if energy else None,
        "energy_estimate_j": energy.estimate_j.get(key) if energy else None,
    }


def _span_statistic(spans: Sequence[Span], quiet: Sequence[Span]) -> SpanStatistic | None:
    if not spans:
        return None
    one = [s.end_s - s.start_s for s in quiet]
    return SpanStatistic(total=seconds_of(spans), median=median(one), p95=p95(one))


def _mixed(reading: SpanReading | None, spans: Sequence[Span]) -> tuple[int, int] | None:
    """Add up what entered in the mixed steps of some spans, each step once."""
    steps = {(span.batch, span.step) for span in spans if span.phase is Phase.MIXED}
    if reading is None or not steps:
        return None
    found = [reading.mixed[step] for step in steps if step in reading.mixed]
    return (sum(prompt for prompt, _ in found), sum(answer for _, answer in found)) if found else None


def _median_spans(reading: SpanReading | None, spans: Sequence[Span]) -> Sequence[Span]:
    return reading.undisturbed(spans) if reading else spans


def _roof_share(roof: Roof | None, work: Work | None, spans: Sequence[Span]) -> float | None:
    if roof is None or work is None or not work.calls or not spans:
        return None
    seconds = fsum(s.end_s - s.start_s for s in spans) / len(spans)
    return roof(work.flops / work.calls, work.bytes / work.calls, seconds) if seconds > 0 else None


def _execution_order(layers: Sequence[Layer], timed: Mapping[Key, list[Span]]) -> dict[Key, tuple[Any, ...]]:
    """Sort keys: phase, then first start; a layer that was never timed stands behind its predecessor in `layers`."""
    order: dict[Key, tuple[Any, ...]] = {}
    for rank, phase in enumerate(Phase):
        last = (-1, -1.0)
        for position, layer in enumerate(layers):
            spans = timed.get((layer.name, phase))
            last = min((s.batch, s.start_s) for s in spans) if spans else last
            order[layer.name, phase] = (rank, *last, position)
    return order


def _by_key(reading: SpanReading | None) -> dict[Key, list[Span]]:
    grouped: dict[Key, list[Span]] = {}
    for span in reading.spans if reading else ():
        grouped.setdefault((span.layer, span.phase), []).append(span)
    return grouped


def decode_by_step(reading: SpanReading) -> list[dict[str, float | int]]:
    """Return, for each decode step, how long all layers took together: median and p95 over batches, in seconds.

    The growth over the steps is the price of a longer KV cache. Time outside layers is not in it.
    """
    spent: dict[tuple[int, int], float] = {}
    for span in reading.spans:
        if span.phase is Phase.DECODE:
            spent[span.step, span.batch] = spent.get((span.step, span.batch), 0.0) + span.self_s
    by_step: dict[int, list[float]] = {}
    for (step, _), seconds in sorted(spent.items()):
        by_step.setdefault(step, []).append(seconds)
    return [
        {"step": step, "median_s": median(seconds), "p95_s": p95(seconds), "batches": len(seconds)}
        for step, seconds in by_step.items()
    ]
