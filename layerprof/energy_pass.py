"""The energy pass: windows over repeated walks, and the joules of phases and layers that follow from them.

One `generate()` is shorter than the counter's step, so each window repeats the same batches until it is long enough. Phases
come by difference: vision alone, up to the first token, and the whole answer.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from layerprof import passes, registry
from layerprof.records import Energy, EnergyEstimate, Phase, Quality
from layerprof.rows import LayerEnergy
from layerprof.session import Session
from layerprof.totals import no_energy

if TYPE_CHECKING:
    from layerprof.energy.windows import WindowReading

WINDOW_S = 5.0
"""Least length of a window: 50 steps of a counter that steps every 100 ms."""
JITTER_S = 0.02
"""Longest random pause between walks, so that their period cannot lock to the sensor's."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One window: what the meter read, and how many walks over all batches it held."""

    window: WindowReading
    host: WindowReading | None
    walks: int

    @property
    def joules(self) -> float | None:
        """Joules of one walk over all batches."""
        return None if self.window.joules is None else self.window.joules / self.walks


@dataclass(frozen=True, slots=True)
class EnergyData:
    """What the pass read: the end-to-end window, and one window for each prefix of the answer (vision, prefill, decode)."""

    whole: Measured
    upto: dict[Phase, Measured]


class _Enough(Exception):
    """Ends a generate() once the wanted phases have run."""


def run(session: Session) -> None:
    """Measure the joules of one walk and of its phases; where there is no sensor, keep the reason."""
    meter = registry.load("meter")(session.device)
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
    measured = [Measured(*parts) for parts in zip(reading.windows, hosts, counts, strict=True)]
    session.energy = EnergyData(measured[0], dict(zip(Phase, measured[1:], strict=True)))


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
                except _Enough:
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
        raise _Enough

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
    return session.energy.whole.joules if session.energy else None


def layer_energy(session: Session) -> LayerEnergy:
    """Return joules per layer and phase, or the reason why there are none."""
    reason = session.reasons.get("energy", "the energy pass did not run")
    return LayerEnergy({}, Quality.UNAVAILABLE, reason)


def totals(session: Session) -> Energy:
    """Return the joules of one walk with how they were obtained, or the reason why there are none."""
    return no_energy(session.reasons.get("energy", "the energy pass did not run"))


def estimate(session: Session) -> EnergyEstimate | None:
    """Return assumed watts x measured seconds, where the user assumed watts; never part of the measured figures."""
    return None
