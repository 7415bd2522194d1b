"""The energy pass: windows over repeated walks, then, where asked for, the replay of each layer's captured calls.

One `generate()` is shorter than the counter's step, so each window repeats the same batches until it is long enough.
Phases come by difference: vision alone, up to the first token, and the whole answer.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from layerprof import passes, registry
from layerprof.energy.data import EnergyData, Repeated, measured
from layerprof.energy.replayed import ReplayReading
from layerprof.energy.typical import Size, Typical, typical
from layerprof.energy_books import span_calls, span_seconds
from layerprof.errors import RequestError
from layerprof.nesting import whole_layers
from layerprof.records import Phase
from layerprof.session import Session
from layerprof.settings import Settings

WINDOW_S = 5.0
"""Least length of a window: 50 steps of a counter that steps every 100 ms."""
JITTER_S = 0.02
"""Longest random pause between walks, so that their period cannot lock to the sensor's."""
BUDGET_S = 120.0
"""Seconds that replay may take where the settings do not say."""


class _EnoughError(Exception):
    """Ends a generate() once the wanted phases have run."""


def check(settings: Settings, device: str) -> str | None:
    """Refuse a replay without a sensor before anything heavy is loaded; return a remark on settings without effect.

    Raises RequestError with what was tried.
    """
    if settings.energy != "replay":
        if settings.energy_budget is None:
            return None
        return f"--energy-budget has no effect with --energy {settings.energy}; replay takes it: --energy replay."
    with registry.load("meter")(device) as meter:
        if not meter.available:
            raise RequestError(
                f"--energy replay cannot run: {meter.reason}.",
                "With --energy auto everything else is measured; `layerprof doctor` shows what this machine has.",
            )
    return None


def run(session: Session, meter: Any = None, replay: Any = None) -> None:
    """Measure the joules of one walk and of its phases, and with `--energy replay` of each layer on its own.

    Where there is no sensor, the reason is kept. `meter` and `replay` replace the device's own. An interrupt during
    replay keeps the windows and what was replayed.
    """
    meter = meter or registry.load("meter")(session.device)
    if not meter.available:
        session.reasons["energy"] = str(meter.reason)
        return
    try:
        session.energy = _windows(session, meter)
    except KeyboardInterrupt:
        session.reasons["energy"] = "interrupted before its windows were measured"
        raise
    if session.settings.energy == "replay":
        _replayed(session, replay)


def _windows(session: Session, meter: Any) -> EnergyData:
    """Measure the whole answer and the answer up to the end of each phase."""
    counts: list[Repeated] = []
    with meter, session.progress.stage("energy", 4) as advance:
        for label, walk in _walks(session).items():
            with meter.window(label):
                counts.append(_repeat(walk, meter.clock))
            advance()
    reading = meter.reading()
    hosts = reading.host or (None,) * len(reading.windows)
    found = [measured(*each) for each in zip(reading.windows, hosts, counts, strict=True)]
    facts = reading.facts()
    for window, count in zip(reading.windows, counts, strict=True):
        facts["windows"][window.label]["walks"] = count.walks
    host = reading.host_record
    return EnergyData(
        whole=found[0],
        upto=dict(zip(Phase, found[1:], strict=True)),
        instrument=facts,
        host_reason=host.reason if host else None,
    )


def _replayed(session: Session, replay: Any) -> None:
    """Replay every layer; where that fails, the layers' joules are shared by time instead, and a warning says so."""
    try:
        reading, captured = _replay(session, replay)
    except Exception as error:
        session.warnings.append(
            f"The energy replay failed ({type(error).__name__}: {error}); layers' joules are shared by time instead."
        )
        return
    session.energy = replace(session.energy, replayed=reading, captured=captured)
    if unfair := captured.unfair():
        session.warnings.append(unfair)
    if reading.interrupted:
        # What was replayed is kept; the run is to end here.
        raise KeyboardInterrupt


def _replay(session: Session, replay: Any) -> tuple[ReplayReading, Typical]:
    """Catch the calls of the batch that is nearest to the mean, and measure each of them in a loop of its own."""
    outer = whole_layers(session.layers)
    layers = [layer for layer in session.layers if layer.name in outer]
    chosen = representative(session)
    replay = replay or registry.load("replay")(
        session.subject.model,
        layers,
        session.device,
        budget_s=session.settings.energy_budget or BUDGET_S,
        decode_step=chosen.step,
        seed=session.settings.seed,
    )
    with replay.capture():
        passes.answer(session, session.batches[chosen.batch])
    times = span_seconds(session.spans, outer) if session.spans else {}
    calls = span_calls(session.spans, outer) if session.spans else {}
    plan = replay.plan()
    with session.progress.stage("energy replay", max(1, len(plan.measured) * plan.rounds[1])) as advance:
        in_situ = {key: seconds / calls[key] for key, seconds in times.items()}
        reading: ReplayReading = replay.measure(in_situ, advance=advance)
    return reading, chosen


def representative(session: Session) -> Typical:
    """Return the batch and the decode step whose calls stand for all, by what the bare pass answered."""
    return typical(
        [
            Size(
                rows=walked.rows,
                length=max(real + pad for real, pad in zip(batch.prompt_tokens, batch.pad_tokens, strict=True)),
                steps=max(walked.generated.new_tokens, default=1) - 1,
            )
            for walked, batch in zip(session.bare, session.batches, strict=False)
        ]
    )


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


def _repeat(walk: Callable[[], None], clock: Any) -> Repeated:
    """Repeat the walk for at least `WINDOW_S` seconds, with a random rest in between; return how often it ran."""
    start, rested, count, pause = clock.now(), 0.0, 0, random.Random(0)
    while count == 0 or clock.now() - start < WINDOW_S:
        walk()
        before = clock.now()
        clock.sleep(pause.uniform(0, JITTER_S))
        rested += clock.now() - before
        count += 1
    return Repeated(count, rested)
