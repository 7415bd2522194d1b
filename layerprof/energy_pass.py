"""The energy pass: windows over repeated walks, and the joules of phases and layers that follow from them.

One `generate()` is shorter than the counter's step, so each window repeats the same batches until it is long enough.
Phases come by difference: vision alone, up to the first token, and the whole answer.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from layerprof import passes, registry
from layerprof.energy import tdp
from layerprof.energy.attribute import Amount, amount, attribute, by_difference
from layerprof.energy.attribute import totals as energy_totals
from layerprof.energy.replayed import ReplayReading
from layerprof.energy.windows import WindowReading
from layerprof.environment import cpu_name
from layerprof.nesting import whole_layers
from layerprof.records import Energy, EnergyEstimate, Phase, Quality, SpanReading
from layerprof.rows import Key, LayerEnergy
from layerprof.session import Session
from layerprof.spans import BEFORE_FIRST
from layerprof.totals import no_energy, output_tokens

WINDOW_S = 5.0
"""Least length of a window: 50 steps of a counter that steps every 100 ms."""
JITTER_S = 0.02
"""Longest random pause between walks, so that their period cannot lock to the sensor's."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One window scaled to one walk over all batches; `host` is what the sensor beside the device's read."""

    reading: WindowReading
    host: WindowReading | None
    walks: int


@dataclass(frozen=True, slots=True)
class EnergyData:
    """What the pass read: the end-to-end window, and one for each prefix of the answer (vision, prefill, decode)."""

    whole: Measured
    upto: dict[Phase, Measured]
    replayed: ReplayReading | None = None

    def phases(self) -> dict[Phase, Amount] | None:
        """Return joules by phase, by difference; None where a window has none, or a difference is not above zero."""
        amounts = [amount(self.upto[phase].reading) for phase in Phase]
        known = [it for it in amounts if it is not None]
        if len(known) < len(amounts):
            return None
        found = by_difference(*known)
        return found if all(it.joules > 0 for it in found.values()) else None


class _EnoughError(Exception):
    """Ends a generate() once the wanted phases have run."""


def run(session: Session, meter: Any = None, replay: Any = None) -> None:
    """Measure the joules of one walk and of its phases, and with `--energy replay` of each layer on its own.

    Where there is no sensor, the reason is kept. `meter` and `replay` replace the device's own.
    """
    meter = meter or registry.load("meter")(session.device)
    if not meter.available:
        session.reasons["energy"] = str(meter.reason)
        return
    counts: list[int] = []
    with meter, session.progress.stage("energy", 4) as advance:
        for label, walk in _walks(session).items():
            with meter.window(label):
                counts.append(_repeat(walk))
            advance()
    reading = meter.reading()
    hosts = reading.host or (None,) * len(reading.windows)
    measured = [
        Measured(_per_walk(window, walks), _per_walk(host, walks) if host else None, walks)
        for window, host, walks in zip(reading.windows, hosts, counts, strict=True)
    ]
    replayed = _replay(session, replay) if session.settings.energy == "replay" else None
    session.energy = EnergyData(measured[0], dict(zip(Phase, measured[1:], strict=True)), replayed)


def _replay(session: Session, replay: Any) -> ReplayReading:
    """Catch the calls of the first batch and measure each of them in a loop of its own."""
    outer = whole_layers(session.layers)
    layers = [layer for layer in session.layers if layer.name in outer]
    replay = replay or registry.load("replay")(
        session.subject.model,
        layers,
        session.device,
        budget_s=session.settings.energy_budget,
        decode_step=max(1, session.max_new_tokens // 2),
        seed=session.settings.seed,
    )
    with replay.capture():
        passes.answer(session, session.batches[0])
    times = span_seconds(session.spans, outer) if session.spans else {}
    calls = span_calls(session.spans, outer) if session.spans else {}
    with session.progress.stage("energy replay", 1) as advance:
        reading: ReplayReading = replay.measure({key: seconds / calls[key] for key, seconds in times.items()})
        advance()
    return reading


def _per_walk(window: WindowReading, walks: int) -> WindowReading:
    joules = None if window.joules is None else window.joules / walks
    ci95 = None if window.ci95 is None else (window.ci95[0] / walks, window.ci95[1] / walks)
    return replace(window, joules=joules, ci95=ci95)


def _walks(session: Session) -> dict[str, Callable[[], None]]:
    """Return what each window repeats: the whole answer, then the answer up to the end of each phase."""

    def whole() -> None:
        for batch in session.batches:
            passes.answer(session, batch)

    def first_token() -> None:
        for batch in session.batches:
            passes.answer(session, batch, max_new_tokens=1)

    def vision() -> None:
        with stopped_at_first_decoder_layer(session):
            for batch in session.batches:
                try:
                    passes.answer(session, batch, max_new_tokens=1)
                except _EnoughError:
                    passes.synchronize(session.device)

    return {"end to end": whole, "up to vision": vision, "up to prefill": first_token, "up to decode": whole}


@contextmanager
def stopped_at_first_decoder_layer(session: Session) -> Iterator[None]:
    """Make every generate() end when the language tower is about to start."""
    first = next((layer for layer in session.layers if layer.kind == "decoder_layer"), None)
    if first is None:
        yield
        return

    def stop(*_: Any) -> None:
        raise _EnoughError

    handle = session.subject.model.get_submodule(first.name).register_forward_pre_hook(stop)
    try:
        yield
    finally:
        handle.remove()


def _repeat(walk: Callable[[], None]) -> int:
    """Repeat the walk for at least `WINDOW_S` seconds, with a random pause in between; return how often it ran."""
    start, count, pause = time.perf_counter(), 0, random.Random(0)
    while count == 0 or time.perf_counter() - start < WINDOW_S:
        walk()
        time.sleep(pause.uniform(0, JITTER_S))
        count += 1
    return count


def end_to_end(session: Session) -> float | None:
    """Return the joules of one walk, from the window that knows nothing of phases; None where there are none."""
    return session.energy.whole.reading.joules if session.energy else None


def totals(session: Session) -> Energy:
    """Return the joules of one walk with how they were obtained, or the reason why there are none."""
    data = session.energy
    if data is None:
        return no_energy(session.reasons.get("energy", "the energy pass did not run"))
    rows = sum(len(batch.examples) for batch in session.batches)
    return energy_totals(data.whole.reading, rows, output_tokens(session.bare), data.whole.host, data.phases())


def estimate(session: Session) -> EnergyEstimate | None:
    """Return the modelled joules of the bare walk where nothing measures them; never part of a measured sum."""
    if session.energy is not None or session.settings.energy == "off":
        return None
    watts = session.settings.assume_watts
    if session.device != "cpu" and watts is None:
        session.reasons["energy_estimate"] = "no estimate without a sensor; give --assume-watts W"
        return None
    rows, wall = sum(walked.rows for walked in session.bare), sum(walked.latency_s for walked in session.bare)
    figure, reason = tdp.estimate(cpu_name(), session.bare_cpu_s, wall, rows, watts)
    if reason:
        session.reasons["energy_estimate"] = reason
    return figure


def layer_energy(session: Session) -> LayerEnergy:
    """Return joules per layer and phase, or why there are none; modelled joules stand in a field of their own."""
    data, spans = session.energy, session.spans
    if data is None or spans is None:
        missing = session.reasons.get("energy", "the energy pass did not run")
        return LayerEnergy({}, Quality.UNAVAILABLE, missing, estimate_j=_modelled(session))
    outer = whole_layers(session.layers)
    if data.replayed is not None:
        return _replayed_energy(data.replayed, span_calls(spans, outer), spans)
    gaps = {(name, gap_phase(name)): seconds for name, seconds in spans.gaps_s.items()}
    times = span_seconds(spans, outer)
    shared = attribute(data.whole.reading, times, phases=data.phases(), phase_gaps_s=gaps)
    joules = {key: row.joules for key, row in shared.rows.items() if row.joules is not None}
    ranges = {key: row.ci95 for key, row in shared.rows.items() if row.ci95 is not None}
    reason = next((row.reason for row in shared.rows.values()), None)
    inner = _inside(spans, outer, joules, times)
    quality = Quality.ATTRIBUTED if joules else Quality.UNAVAILABLE
    return LayerEnergy(joules | inner, quality, reason, ci95=ranges, rest_j=shared.rest)


def _replayed_energy(reading: ReplayReading, calls: Mapping[Key, int], spans: SpanReading) -> LayerEnergy:
    """Return replayed joules a call times the calls of one walk; the gaps at the power of a waiting device."""
    rows = reading.layer_energy(calls)
    rest = {f"gap: {name}": reading.gap_w.joules * s for name, s in spans.gaps_s.items()} if reading.gap_w else {}
    return LayerEnergy(
        {key: row.joules for key, row in rows.items() if row.joules is not None},
        Quality.REPLAYED,
        reading.reason,
        ci95={key: row.ci95 for key, row in rows.items() if row.ci95 is not None},
        rest_j=rest,
        labels={key: (row.quality, row.reason) for key, row in rows.items()},
    )


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


def _modelled(session: Session) -> dict[Key, float]:
    figure = estimate(session)
    wall = sum(walked.latency_s for walked in session.bare)
    if figure is None or session.spans is None or not wall:
        return {}
    names = {layer.name for layer in session.layers}
    return {key: figure.joules / wall * seconds for key, seconds in span_seconds(session.spans, names).items()}
