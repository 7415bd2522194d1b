"""From what the energy pass read to the joules of each layer and phase, and whether the replayed ones close."""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum, isfinite

from layerprof.books.evidence import Asked, Read
from layerprof.books.joules import why_none
from layerprof.books.rows import LayerEnergy
from layerprof.books.span_sums import gap_phase, outermost, pace, span_calls, span_seconds
from layerprof.energy.amount import TOLERANCE, joules_of
from layerprof.energy.closure import Closure
from layerprof.energy.measured import EnergyData
from layerprof.energy.replayed import TIME_RATIO
from layerprof.energy.share import attribute
from layerprof.readings import Key, Layer, SpanReading
from layerprof.records import EnergyClosure, EnergyEstimate, Quality

RULE = (
    f"passed where |residual_j| <= max({TOLERANCE:g} * total_j, half the width of residual_ci95); "
    "residual_j = total_j - parts_j - gap_j"
)
PART_OF_A_ROW = "not replayed on its own: its joules are in those of the layers around or inside it"


def layer_energy(asked: Asked, read: Read, modelled: EnergyEstimate | None = None) -> LayerEnergy:
    """Return joules per layer and phase, or why there are none; modelled joules stand in a field of their own."""
    data, spans = read.energy, read.spans
    if data is None or spans is None:
        return LayerEnergy({}, Quality.UNAVAILABLE, why_none(read), estimate_j=_modelled(asked, read, modelled))
    outer = outermost(spans, asked.layers)
    return _shared(data, spans, outer) if data.replayed is None else _replayed(data, spans, outer)


def _shared(data: EnergyData, spans: SpanReading, outer: SpanReading) -> LayerEnergy:
    """Return the joules of each phase, or of the whole, shared by time; a call inside another has its time's share."""
    whole = data.whole.reading
    gaps = {(name, gap_phase(name)): seconds for name, seconds in spans.gaps_s.items()}
    times, every = span_seconds(outer), span_seconds(spans)
    shares = attribute(whole.energy, times, gaps, data.phases(), why_none=whole.reason)
    counted = {key: row.energy for key, row in shares.rows.items() if row.energy}
    watts = {key[1]: amount * (1 / times[key]) for key, amount in counted.items() if times[key] > 0}
    amounts = {key: watts[key[1]] * seconds for key, seconds in every.items() if key[1] in watts}
    reason = next((row.reason for row in shares.rows.values()), None)
    quality = Quality.ATTRIBUTED if amounts else Quality.UNAVAILABLE
    return LayerEnergy(counted | amounts, quality, reason, rest_j=shares.rest, source=whole.source, counted=counted)


def _replayed(data: EnergyData, spans: SpanReading, outer: SpanReading) -> LayerEnergy:
    """Return replayed joules a call times the calls of one walk; the gaps at the power of a waiting device.

    Calls and gaps are as long as in the window whose joules they are to make up, not as in the latency pass.
    The books take only the calls that no other layer's call held, since a replayed call holds all that ran inside it.
    """
    reading = data.replayed
    assert reading is not None
    part_of_the_books = span_calls(outer)
    names = {name for name, _ in part_of_the_books}
    calls = span_calls(spans, names)
    rows, counted = reading.over_all(calls), reading.over_all(part_of_the_books)
    watts = reading.gap_w.joules * pace(spans, data.whole.walk_s) if reading.gap_w else 0.0
    rest = {name: watts * s for name, s in spans.gaps_s.items()} if reading.gap_w else {}
    inner = {(span.layer, span.phase) for span in spans.spans if span.layer not in names}
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
        reconciled_j={
            key: joules * calls[key] / part_of_the_books[key] for key, joules in scaled.items() if isfinite(joules)
        },
        counted={key: row.energy for key, row in counted.items() if row.energy},
    )


def _replay_source(data: EnergyData) -> str:
    assert data.replayed is not None
    return str(data.replayed.instrument.get("source") or data.instrument.get("source") or data.whole.reading.source)


def _account(data: EnergyData, spans: SpanReading, outer: SpanReading) -> Closure | None:
    """Return replayed rows and gaps against the end-to-end window; None where that has no joules above zero."""
    total = data.whole.reading.energy
    if data.replayed is None or total is None or total.joules <= 0:
        return None
    gap_s = fsum(spans.gaps_s.values()) * pace(spans, data.whole.walk_s)
    return data.replayed.closure(total, span_calls(outer), gap_s=gap_s)


def closure(layers: Sequence[Layer], data: EnergyData | None, spans: SpanReading | None) -> EnergyClosure | None:
    """Return whether the replayed joules of all layers close, None where nothing was replayed or no total was read."""
    if data is None or spans is None or data.replayed is None:
        return None
    outer = outermost(spans, layers)
    account = _account(data, spans, outer)
    if account is None:
        return None
    total, residual = account.total, account.residual
    assert total.ci95, "a window's joules have an interval"
    assert residual.ci95, "and so has what is left of them"
    rows = data.replayed.rows
    kept = [row for key in span_calls(outer) if (row := rows.get(key)) and row.energy]
    known = [row.energy for row in kept if row.energy]
    ratios = [row.seconds / row.place.seconds for row in kept if row.place and row.seconds and TIME_RATIO in row.flags]
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
        pace=pace(spans, data.whole.walk_s) if data.whole.walk_s else None,
        unlike=len(ratios),
        unlike_ratios=(min(ratios), max(ratios)) if ratios else None,
        waiting_w=joules_of(data.replayed.gap_w),
    )


def _modelled(asked: Asked, read: Read, figure: EnergyEstimate | None) -> dict[Key, float]:
    """Return the modelled joules by layer and phase, shared by time."""
    if figure is None or read.spans is None or not read.part_s:
        return {}
    names = {layer.name for layer in asked.layers}
    return {key: figure.joules / read.part_s * s for key, s in span_seconds(read.spans, names).items()}
