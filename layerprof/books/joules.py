"""From what the energy pass read to records: totals, joules per layer, whether they close, and the facts in files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from math import fsum, isfinite
from typing import Any

from layerprof.books.evidence import Asked, Read
from layerprof.books.rows import Key, LayerEnergy
from layerprof.books.spans import BEFORE_FIRST
from layerprof.books.totals import no_energy, output_tokens
from layerprof.energy import tdp
from layerprof.energy.closure import TOLERANCE, Closure
from layerprof.energy.measured import EnergyData
from layerprof.energy.share import amount, attribute
from layerprof.energy.share import totals as whole_totals
from layerprof.layers.nesting import whole_layers
from layerprof.machine.environment import cpu_name
from layerprof.readings import Layer, SpanReading
from layerprof.records import Energy, EnergyClosure, EnergyEstimate, Phase, Quality

ENERGY_FILE = "energy.json"
RULE = (
    f"passed where |residual_j| <= max({TOLERANCE:g} * total_j, half the width of residual_ci95); "
    "residual_j = total_j - parts_j - gap_j"
)
PART_OF_A_ROW = "replayed as a part of the layer around it"


def end_to_end(data: EnergyData | None) -> float | None:
    """Return the joules of one walk, from the window that knows nothing of phases; None where there are none."""
    return data.whole.reading.joules if data else None


def totals(asked: Asked, read: Read) -> Energy:
    """Return the joules of one walk with how they were obtained, or the reason why there are none."""
    data = read.energy
    if data is None:
        return no_energy(_why_none(read))
    rows = sum(len(batch.examples) for batch in asked.batches)
    host = data.whole.host
    record = whole_totals(data.whole.reading, rows, output_tokens(read.bare), host, data.phases())
    more = {
        "active_j": data.whole.active_j,
        "by_phase_reason": None if record.joules is None else data.phases_reason(),
        "host_reason": host.reason if host else data.host_reason,
    }
    return record.model_copy(update=more)


def estimate(asked: Asked, read: Read) -> tuple[EnergyEstimate | None, str | None]:
    """Return the modelled joules of the bare walk where nothing measures them, or None and the reason, if it has one.

    Never part of a measured sum.
    """
    settings = asked.settings
    if read.energy is not None or settings.energy == "off":
        return None, None
    if asked.device != "cpu" and settings.assume_watts is None:
        return None, "no estimate without a sensor; give --assume-watts W"
    return tdp.estimate(cpu_name(), read.bare_cpu_s, read.wall_s, read.rows, settings.assume_watts)


def layer_energy(asked: Asked, read: Read, modelled: EnergyEstimate | None = None) -> LayerEnergy:
    """Return joules per layer and phase, or why there are none; modelled joules stand in a field of their own."""
    data, spans = read.energy, read.spans
    if data is None or spans is None:
        return LayerEnergy({}, Quality.UNAVAILABLE, _why_none(read), estimate_j=_modelled(asked, read, modelled))
    outer = whole_layers(asked.layers)
    if data.replayed is not None:
        return _replayed_energy(data, spans, outer)
    gaps = {(name, gap_phase(name)): seconds for name, seconds in spans.gaps_s.items()}
    times = span_seconds(spans, outer)
    shared = attribute(data.whole.reading, times, gaps, data.phases())
    joules = {key: row.joules for key, row in shared.rows.items() if row.joules is not None}
    ranges = {key: row.ci95 for key, row in shared.rows.items() if row.ci95 is not None}
    reason = next((row.reason for row in shared.rows.values()), None)
    inner = _inside(spans, outer, joules, times)
    quality = Quality.ATTRIBUTED if joules else Quality.UNAVAILABLE
    source = data.whole.reading.source
    return LayerEnergy(joules | inner, quality, reason, ci95=ranges, rest_j=shared.rest, source=source)


def _replayed_energy(data: EnergyData, spans: SpanReading, outer: Collection[str]) -> LayerEnergy:
    """Return replayed joules a call times the calls of one walk; the gaps at the power of a waiting device."""
    reading = data.replayed
    assert reading is not None
    calls = span_calls(spans, outer)
    rows = reading.layer_energy(calls)
    rest = {name: reading.gap_w.joules * s for name, s in spans.gaps_s.items()} if reading.gap_w else {}
    inner = {(span.layer, span.phase) for span in spans.spans if span.layer not in outer}
    labels = {key: (row.quality, row.reason) for key, row in rows.items()}
    account = _account(data, spans, outer)
    scaled = account.reconciled_j if account else {}
    return LayerEnergy(
        {key: row.joules for key, row in rows.items() if row.joules is not None},
        Quality.REPLAYED,
        reading.reason,
        ci95={key: row.ci95 for key, row in rows.items() if row.ci95 is not None},
        rest_j=rest,
        labels=labels | dict.fromkeys(inner, (Quality.UNAVAILABLE, PART_OF_A_ROW)),
        source=_replay_source(data),
        active_j=reading.over_calls("active_j", calls),
        hot_j=reading.over_calls("hot_j", calls),
        reconciled_j={key: joules for key, joules in scaled.items() if isfinite(joules)},
    )


def _replay_source(data: EnergyData) -> str:
    assert data.replayed is not None
    return str(data.replayed.instrument.get("source") or data.instrument.get("source") or data.whole.reading.source)


def _account(data: EnergyData, spans: SpanReading, outer: Collection[str]) -> Closure | None:
    """Return replayed rows and gaps against the end-to-end window; None where that has no joules above zero."""
    total = amount(data.whole.reading)
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
    known = [row for key in span_calls(spans, outer) if (row := data.replayed.rows.get(key)) and row.joules is not None]
    return EnergyClosure(
        quality=Quality.REPLAYED,
        source=_replay_source(data),
        total_j=account.total.joules,
        total_ci95=account.total.ci95,
        parts_j=account.parts_j,
        gap_j=account.gap_j,
        residual_j=account.residual.joules,
        residual_ci95=account.residual.ci95,
        tolerance=account.tolerance,
        passed=account.passed,
        rule=RULE,
        rows=len(known) + len(account.missing),
        missing=account.missing,
        without_interval=sum(row.ci95 is None for row in known),
        stopped=data.replayed.stopped,
    )


def facts(data: EnergyData | None) -> dict[str, Any] | None:
    """Return the instruments and the replay for `run.json`, without what has a line a row; None without a reading."""
    if data is None:
        return None
    found: dict[str, Any] = {"instrument": dict(data.instrument)}
    if data.replayed is not None:
        replayed = data.replayed.facts()
        rows = replayed.pop("rows")
        windows = replayed["instrument"].pop("windows", {})
        found["replay"] = replayed | {
            "captured": data.captured.facts() if data.captured else None,
            "rows": len(rows),
            "rows_without_figure": sum(row["joules"] is None for row in rows),
            "windows": len(windows),
            "windows_flagged": dict(Counter(flag for window in windows.values() for flag in window["flags"])),
            "file": ENERGY_FILE,
        }
    return found


def details(data: EnergyData | None) -> dict[str, Any] | None:
    """Return every replayed row and window, for the file beside the run; None where nothing was replayed."""
    if data is None or data.replayed is None:
        return None
    replayed = data.replayed.facts() | {"captured": data.captured.facts() if data.captured else None}
    return {"format": 1, "instrument": dict(data.instrument), "replay": replayed}


def gap_phase(name: str) -> Phase:
    """Return the phase whose window holds a gap: a gap before a phase starts is spent on the way to it."""
    if name == BEFORE_FIRST:
        return Phase.VISION
    return next((phase for phase in Phase if name.endswith(f" {phase}")), Phase.DECODE)


def span_seconds(spans: SpanReading, names: Collection[str]) -> dict[Key, float]:
    """Return seconds of these layers by layer and phase, what runs inside them included."""
    found: dict[Key, float] = {}
    for span in spans.spans:
        if span.layer in names:
            key = (span.layer, span.phase)
            found[key] = found.get(key, 0.0) + span.end_s - span.start_s
    return found


def span_calls(spans: SpanReading, names: Collection[str]) -> dict[Key, int]:
    """Return how often these layers were called, by layer and phase."""
    return dict(Counter((span.layer, span.phase) for span in spans.spans if span.layer in names))


def _inside(
    spans: SpanReading, outer: Collection[str], joules: Mapping[Key, float], times: Mapping[Key, float]
) -> dict[Key, float]:
    """Return joules of layers inside others, at the mean power of their phase."""
    power = {
        phase: sum(j for (_, p), j in joules.items() if p is phase) / seconds
        for phase in Phase
        if (seconds := sum(s for (_, p), s in times.items() if p is phase))
    }
    nested = {span.layer for span in spans.spans} - set(outer)
    return {key: seconds * power.get(key[1], 0.0) for key, seconds in span_seconds(spans, nested).items() if joules}


def _modelled(asked: Asked, read: Read, figure: EnergyEstimate | None) -> dict[Key, float]:
    """Return the modelled joules by layer and phase, shared by time."""
    if figure is None or read.spans is None or not read.wall_s:
        return {}
    names = {layer.name for layer in asked.layers}
    return {key: figure.joules / read.wall_s * s for key, s in span_seconds(read.spans, names).items()}


def _why_none(read: Read) -> str:
    return read.reasons.get("energy", "the energy pass did not run")
