"""The energy pass: windows over repeated walks, then, where asked for, the replay of each layer's captured calls.

One `generate()` is shorter than the counter's step, so each window repeats the same batches until it is long enough.
Phases come by difference: vision alone, up to the first token, and the whole answer. The rests between the repetitions
are measured in a window of their own, and taken off.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from layerprof import registry
from layerprof.books.span_sums import outermost, pace, phase_ends, span_calls, span_seconds
from layerprof.energy.amount import Amount, ends_of, joules_of
from layerprof.energy.awake import rest_awake
from layerprof.energy.instruments import METER, REPLAY, Clock, Meter, Replays
from layerprof.energy.measured import EnergyData, Repeated, at_one_speed, mean_power, measured
from layerprof.energy.replay_plan import SETTLE_S
from layerprof.energy.replayed import ReplayReading
from layerprof.energy.typical import Size, Typical, typical
from layerprof.energy.windows import EnergyReading
from layerprof.errors import described
from layerprof.layers.nesting import whole_layers
from layerprof.measure import answering, optimize
from layerprof.measure.session import Session
from layerprof.readings import SpanReading
from layerprof.records import IN_TURN

WINDOW_S = 5.0
"""Least length of a window: 50 steps of a counter that steps every 100 ms."""
JITTER_S = 0.02
"""Longest random pause between walks, so that their period cannot lock to the sensor's."""
UNLIKE = 0.1
"""Share by which a walk under the counter may be shorter or longer than in the bare pass before it is told."""
REST = "rest between walks"
"""The window of such pauses alone: a card that just worked keeps its clocks up and draws more than a quiet one."""
BUDGET_S = 120.0
"""Seconds that replay may take where the settings do not say."""


class _EnoughError(Exception):
    """Ends a generate() once the wanted phases have run."""


def run(session: Session, meter: Meter | None = None, replay: Replays | None = None) -> None:
    """Measure the joules of one walk and of its phases, and with `--energy replay` of each layer on its own.

    Where there is no sensor, the reason is kept. `meter` and `replay` replace the device's own. An interrupt during
    replay keeps the windows and what was replayed.
    """
    asked, read = session.asked, session.read
    meter = meter or registry.load(METER)(asked.device, sensor=asked.settings.energy_sensor)
    if not meter.available:
        read.reasons["energy"] = str(meter.reason)
        return
    try:
        read.energy = data = _windows(session, meter)
    except KeyboardInterrupt:
        read.reasons["energy"] = "interrupted before its windows were measured"
        raise
    if unlike := _other_speed(read.part_s, data.whole.walk_s):
        read.warnings.append(unlike)
    if asked.settings.energy == "replay":
        _replayed(session, data, replay)


def _windows(session: Session, meter: Meter) -> EnergyData:
    """Measure the whole answer, the answer up to the end of each phase, and the rests between answers."""
    counts: dict[str, Repeated] = {}
    repeated = walks(session)
    with meter, session.progress.stage("energy", len(repeated) + 1) as advance:
        for label, walk in repeated.items():
            with meter.window(label):
                counts[label] = _repeat(walk, meter.clock)
            advance()
        _rest(session.asked.device, meter)
        advance()
    return _read(meter.reading(), counts, session.read.spans)


def _read(reading: EnergyReading, counts: dict[str, Repeated], spans: SpanReading | None) -> EnergyData:
    """Scale each window to one walk, less its rests at the power that the window of rests alone has.

    Those that end with a phase are set to the host's speed of the whole, since their differences are the phases.
    """
    rest_w, host_rest_w = mean_power(reading.window(REST)), mean_power(reading.host_window(REST))
    found = [
        measured(reading.window(label), reading.host_window(label), count, rest_w, host_rest_w)
        for label, count in counts.items()
    ]
    facts = reading.facts() | _rest_facts(rest_w)
    if facts["host"] is not None:
        facts["host"] |= _rest_facts(host_rest_w)
    for label, count in counts.items():
        facts["windows"][label] |= {"walks": count.walks, "rest_s": count.paused_s}
    host = reading.host_record
    ends_s = phase_ends(spans, found[0].walk_s) if spans else {}
    return EnergyData(
        whole=found[0],
        upto=at_one_speed(dict(zip(IN_TURN, found[1:], strict=True)), ends_s, rest_w),
        instrument=facts,
        host_reason=host.reason if host else None,
    )


def _other_speed(bare_s: float, walk_s: float | None) -> str | None:
    """Say that the answers took another time under the counter than in the bare pass; None where they did not."""
    if not walk_s or not bare_s or abs(walk_s / bare_s - 1) <= UNLIKE:
        return None
    return (
        f"The answers took {walk_s:.3g} s under the energy counter and {bare_s:.3g} s in the bare pass: this machine "
        "has more than one speed, and latency and energy of the run are of different ones."
    )


def _rest_facts(rest_w: Amount | None) -> dict[str, Any]:
    """Return the power of a rest in watts as plain values, None where its window has no joules."""
    return {"rest_w": joules_of(rest_w), "rest_w_ci95": ends_of(rest_w)}


def _replayed(session: Session, data: EnergyData, replay: Replays | None) -> None:
    """Replay every layer; where that fails, the layers' joules are shared by time instead, and a warning says so."""
    read = session.read
    try:
        reading, captured = _replay(session, data, replay)
    except Exception as error:
        read.warnings.append(
            f"The energy replay failed ({described(error)}); layers' joules are shared by time instead."
        )
        return
    read.energy = replace(data, replayed=reading, captured=captured)
    if unfair := captured.unfair():
        read.warnings.append(unfair)
    if reading.interrupted:
        # What was replayed is kept; the run is to end here.
        raise KeyboardInterrupt


def _replay(session: Session, data: EnergyData, replay: Replays | None) -> tuple[ReplayReading, Typical]:
    """Catch the calls of the batch that is nearest to the mean, and measure each of them in a loop of its own.

    Their times in the model are those of the latency pass at the pace of the window whose joules they are to make up.
    """
    asked, read = session.asked, session.read
    outer = _replayable(session)
    layers = [layer for layer in asked.layers if layer.name in outer]
    chosen = representative(session)
    replay = replay or registry.load(REPLAY)(
        session.subject.model,
        layers,
        asked.device,
        budget_s=asked.settings.energy_budget or BUDGET_S,
        decode_step=chosen.step,
        seed=asked.settings.seed,
        sensor=asked.settings.energy_sensor,
    )
    (batch,) = asked.batches.some((chosen.batch,))
    with replay.capture(), optimize.called(session):
        answering.answer(session, batch)
    del batch
    times = span_seconds(read.spans, outer) if read.spans else {}
    calls = span_calls(read.spans, outer) if read.spans else {}
    plan = replay.plan()
    with session.progress.stage("energy replay", max(1, len(plan.measured) * plan.rounds[1])) as advance:
        share = pace(read.spans, data.whole.walk_s) if read.spans else 1.0
        in_situ = {key: share * seconds / calls[key] for key, seconds in times.items()}
        reading = replay.measure(in_situ, advance=advance)
    return reading, chosen


def _replayable(session: Session) -> set[str]:
    """Return the layers whose calls, each with all that it calls, make up the answer: no one is only called by another.

    Where no spans were read, by their place in the model.
    """
    layers, spans = session.asked.layers, session.read.spans
    found = whole_layers([layer for layer in layers if layer.found])
    return {span.layer for span in outermost(spans, layers).spans} if spans else found


def representative(session: Session) -> Typical:
    """Return the batch and the decode step whose calls stand for all, by what the bare pass answered."""
    return typical(
        [
            Size(
                rows=walked.rows,
                length=questions.length,
                steps=max(walked.generated.new_tokens, default=1) - 1,
            )
            for walked, questions in zip(session.read.part, session.read.questions, strict=False)
        ]
    )


def walks(session: Session) -> dict[str, Callable[[], None]]:
    """Return what each window repeats: the whole answer, then the answer up to the end of each phase.

    The instrumented batches are made before and held for as long: no joule of a window is to be of their making.
    """
    asked = session.asked
    batches = tuple(asked.batches.some(asked.part))

    def whole() -> None:
        for batch in batches:
            answering.answer(session, batch)

    def first_token() -> None:
        for batch in batches:
            answering.answer(session, batch, max_new_tokens=1)

    def vision() -> None:
        with stopped_at_first_decoder_layer(session):
            for batch in batches:
                try:
                    answering.answer(session, batch, max_new_tokens=1)
                except _EnoughError:
                    answering.synchronize(asked.device)

    return {"end to end": whole, "up to vision": vision, "up to prefill": first_token, "up to decode": whole}


@contextmanager
def stopped_at_first_decoder_layer(session: Session) -> Iterator[None]:
    """Make every generate() end when the language tower is about to start."""
    first = next((layer for layer in session.asked.layers if layer.kind == "decoder_layer"), None)
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


def _repeat(walk: Callable[[], None], clock: Clock) -> Repeated:
    """Repeat the walk for at least `WINDOW_S` seconds, with a random rest in between; return how often it ran."""
    start, rested, count, pause = clock.now(), 0.0, 0, random.Random(0)
    while count == 0 or clock.now() - start < WINDOW_S:
        walk()
        before = clock.now()
        clock.sleep(pause.uniform(0, JITTER_S))
        rested += clock.now() - before
        count += 1
    return Repeated(count, rested)


def _rest(device: str, meter: Meter) -> None:
    """Measure rests like those of `_repeat` for `WINDOW_S` seconds, with next to nothing between them, not a walk.

    They begin `SETTLE_S` before the window: what a quiet device does at first is not in it.
    """
    import torch

    pause, mark = random.Random(0), torch.zeros(1, device=device)

    def rests(seconds: float) -> None:
        rest_awake(meter.clock, seconds, lambda: pause.uniform(0, JITTER_S), lambda: mark.add_(1))

    rests(SETTLE_S)
    with meter.window(REST, steady=True):
        rests(WINDOW_S)
