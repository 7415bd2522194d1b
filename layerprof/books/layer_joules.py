"""From what the energy pass read to the joules of each layer and phase, and whether the replayed ones close."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import fsum, isfinite

from layerprof.books.evidence import Asked, Read
from layerprof.books.joules import why_none
from layerprof.books.rows import LayerEnergy
from layerprof.books.span_sums import gap_phase, span_calls, span_seconds
from layerprof.energy.amount import TOLERANCE, Amount
from layerprof.energy.closure import Closure
from layerprof.energy.measured import EnergyData
from layerprof.energy.share import attribute
from layerprof.layers.nesting import whole_layers
from layerprof.readings import Key, Layer, SpanReading
from layerprof.records import EnergyClosure, EnergyEstimate, Phase, Quality

RULE = (
    f"passed where |residual_j| <= max({TOLERANCE:g} * total_j, half the width of residual_ci95); "
    "residual_j = total_j - parts_j - gap_j"
)
PART_OF_A_ROW = "replayed as a part of the layer around it"


def layer_energy(asked: Asked, read: Read, modelled: EnergyEstimate | None = None) -> LayerEnergy:
    """Return joules per layer and phase, or why there are none; modelled joules stand in a field of their own."""
    data, spans = read.energy, read.spans
    if data is None or spans is None:
        return LayerEnergy({}, Quality.UNAVAILABLE, why_none(read), estimate_j=_modelled(asked, read, modelled))
    outer = whole_layers(asked.layers)
    return _shared(data, spans, outer) if data.replayed is None else _replayed(data, spans, outer)


def _shared(data: EnergyData, spans: SpanReading, outer: Collection[str]) -> LayerEnergy:
    """Return the joules of each phase, or of the whole, shared by time."""
    whole = data.whole.reading
    gaps = {(name, gap_phase(name)): seconds for name, seconds in spans.gaps_s.items()}
    times = span_seconds(spans, outer)
    shares = attribute(whole.energy, times, gaps, data.phases(), why_none=whole.reason)
    amounts = {key: row.energy for key, row in shares.rows.items() if row.energy}
    reason = next((row.reason for row in shares.rows.values()), None)
    inner = _inside(spans, outer, amounts, times)
    quality = Quality.ATTRIBUTED if amounts else Quality.UNAVAILABLE
    return LayerEnergy(amounts | inner, quality, reason, rest_j=shares.rest, source=whole.source)


def _replayed(data: EnergyData, spans: SpanReading, outer: Collection[str]) -> LayerEnergy:
    """Return replayed joules a call times the calls of one walk; the gaps at the power of a waiting device."""
    reading = data.replayed
    assert reading is not None
    calls = span_calls(spans, outer)
    rows = reading.over_all(calls)
    rest = {name: reading.gap_w.joules * s for name, s in spans.gaps_s.items()} if reading.gap_w else {}
    inner = {(span.layer, span.phase) for span in spans.spans if span.layer not in outer}
    labels = {key: (row.quality, row.reason) for key, row in rows.items()}
    account = _account(data, spans, outer)
    scaled = account.reconciled_j if account else {}
    return LayerEnergy(
        {key: row.energy for key, row in rows.items() if row.energy},
        Quality.REPLAYED,
        reading.reason,
        rest_j=rest,
        labels=labels | dict.fromkeys(inner, (Quality.UNAVAILABLE, PART_OF_A_ROW)),
        source=_replay_source(data),
        active_j=reading.active_j(calls),
        hot_j=reading.hot_j(calls),
        reconciled_j={key: joules for key, joules in scaled.items() if isfinite(joules)},
    )


def _replay_source(data: EnergyData) -> str:
    assert data.replayed is not None
    return str(data.replayed.instrument.get("source") or data.instrument.get("source") or data.whole.reading.source)


def _account(data: EnergyData, spans: SpanReading, outer: Collection[str]) -> Closure | None:
    """Return replayed rows and gaps against the end-to-end window; None where that has no joules above zero."""
    total = data.whole.reading.energy
    if data.replayed is None or total is None or total.joules <= 0:
        return None
    return data.replayed.closure(total, span_calls(spans, outer), gap_s=fsum(spans.gaps_s.values()))


def closure(layers: Sequence[Layer], data: EnergyData | None, spans: SpanReading | None) -> EnergyClosure | None:
    """Return whether the replayed joules of all layers close, None where nothing was replayed or no total was read."""
    if data is None or spans is None or data.replayed is None:
        return None
    outer = whole_layers(layers)
    account = _account(data, spans, outer)
    if account is None:
        return None
    total, residual = account.total, account.residual
    assert total.ci95, "a window's joules have an interval"
    assert residual.ci95, "and so has what is left of them"
    rows = data.replayed.rows
    known = [row.energy for key in span_calls(spans, outer) if (row := rows.get(key)) and row.energy]
    return EnergyClosure(
        quality=Quality.REPLAYED,
        source=_replay_source(data),
        total_j=total.joules,
        total_ci95=total.ci95,
        parts_j=account.parts_j,
        gap_j=account.gap_j,
        residual_j=residual.joules,
        residual_ci95=residual.ci95,
        tolerance=account.tolerance,
        passed=account.passed,
        rule=RULE,
        rows=len(known) + len(account.missing),
        missing=account.missing,
        without_interval=sum(energy.ci95 is None for energy in known),
        stopped=data.replayed.stopped,
    )


def _inside(
    spans: SpanReading, outer: Collection[str], amounts: Mapping[Key, Amount], times: Mapping[Key, float]
) -> dict[Key, Amount]:
    """Return joules of layers inside others, at the mean power of their phase, which has no interval."""
    power = {
        phase: sum(amount.joules for (_, p), amount in amounts.items() if p is phase) / seconds
        for phase in Phase
        if (seconds := sum(s for (_, p), s in times.items() if p is phase))
    }
    nested = {span.layer for span in spans.spans} - set(outer)
    inside = span_seconds(spans, nested) if amounts else {}
    return {key: Amount(seconds * power.get(key[1], 0.0)) for key, seconds in inside.items()}


def _modelled(asked: Asked, read: Read, figure: EnergyEstimate | None) -> dict[Key, float]:
    """Return the modelled joules by layer and phase, shared by time."""
    if figure is None or read.spans is None or not read.wall_s:
        return {}
    names = {layer.name for layer in asked.layers}
    return {key: figure.joules / read.wall_s * s for key, s in span_seconds(read.spans, names).items()}
