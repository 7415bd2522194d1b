"""The rests between walks, on a card whose power lingers after each load: they are taken off at their own power."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from fake_card import LingeringMachine, Woken
from fake_counter import FakeClock, FakeCounter
from layerprof.hooks.energy.meter import EnergyMeter

from layerprof.books.evidence import Read
from layerprof.energy.amount import Amount, around, ci95_of, joules_of
from layerprof.energy.measured import EnergyData, Repeated, measured
from layerprof.energy.windows import WindowReading
from layerprof.measure import energy_pass
from layerprof.records import Phase, Quality

LINGER_W, QUIET_W = 140.0, 80.0
SHORT = {"end to end": 0.3, "up to vision": 0.03, "up to prefill": 0.1, "up to decode": 0.3}
"""Seconds of the walks on the card below, which draw 300 W."""
CARD: dict[str, Any] = {"late_s": 0.1}
PROCESSOR: dict[str, Any] = {"lag_s": 0.0, "period_s": 0.001, "update_s": 0.001, "jitter_s": 1e-5}


@dataclass
class Lingering:
    """Short walks on a card that draws `linger_w` for 50 ms after each load, and `QUIET_W` after that.

    `truth` is the card's own integral over one walk, by label. `after_step` is called with the number of each step.
    """

    sensor: dict[str, Any]
    linger_w: float = LINGER_W
    after_step: Callable[[int], None] = lambda _: None
    truth: dict[str, float] = field(default_factory=dict)
    steps: int = 0

    def __post_init__(self) -> None:
        self.clock = FakeClock()
        self.machine = LingeringMachine(self.clock, QUIET_W, self.linger_w)
        self.counter = FakeCounter(self.machine, **self.sensor)

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Callable[[], None]]:
        """Count the steps, as a progress display does; there are as many as were said."""

        def advance() -> None:
            self.steps += 1
            self.after_step(self.steps)

        yield advance
        assert (title, self.steps) == ("energy", total)

    def walks(self, _: Any) -> dict[str, Callable[[], None]]:
        """Return the walks, each a load that doubles half-way."""

        def walk(label: str, seconds: float) -> None:
            start = self.clock.now()
            self.machine.run([200.0, 400.0], seconds)
            self.truth[label] = self.machine.energy(start, self.clock.now())

        return {label: partial(walk, label, seconds) for label, seconds in SHORT.items()}

    def measure(self, monkeypatch: pytest.MonkeyPatch) -> EnergyData:
        """Return what the energy pass reads of it."""
        asked = SimpleNamespace(device="cpu", settings=SimpleNamespace(energy="auto"))
        session: Any = SimpleNamespace(asked=asked, read=Read(), progress=self)
        monkeypatch.setattr(energy_pass, "walks", self.walks)
        with Woken(self.machine):
            energy_pass.run(session, EnergyMeter("cpu", [self.counter], self.clock))
        found: EnergyData = session.read.energy
        return found


def _excess(data: EnergyData, truth: dict[str, float]) -> float:
    """Return by which share of the truth the vision walk's joules are too many."""
    energy = data.upto[Phase.VISION].reading.energy
    assert energy is not None
    return energy.joules / truth["up to vision"] - 1


@pytest.mark.parametrize("seed", range(3))
def test_the_rests_of_a_card_whose_power_lingers_are_not_charged_to_its_walks(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Walks of 30 to 300 ms have the card's own joules within 1 %, their phases too; the rest's power is told."""
    card = Lingering(CARD | {"seed": seed})
    data = card.measure(monkeypatch)
    facts = data.instrument
    assert facts["rest_w"] == pytest.approx(LINGER_W, rel=0.01)
    low, high = facts["rest_w_ci95"]
    assert low < facts["rest_w"] < high
    windows = facts["windows"]
    assert set(windows) == {*SHORT, energy_pass.REST}
    assert windows[energy_pass.REST]["estimator"] == "steady"
    for label, found in zip(SHORT, (data.whole, *data.upto.values()), strict=True):
        assert joules_of(found.reading.energy) == pytest.approx(card.truth[label], rel=0.01)
        assert windows[label]["baseline_w"] == pytest.approx(QUIET_W, rel=0.02)
        assert found.active_j == pytest.approx(card.truth[label] - QUIET_W * SHORT[label], rel=0.015)
        assert found.reading.mean_power_w == pytest.approx(300.0, rel=0.01)
    phases = data.phases()
    assert phases is not None
    assert phases[Phase.PREFILL].joules == pytest.approx(
        card.truth["up to prefill"] - card.truth["up to vision"], rel=0.01
    )


def test_a_sensor_without_lag_reads_short_walks_within_their_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor's counter, which knows no quiet power: the rests are still taken off, at their own."""
    card = Lingering(PROCESSOR)
    data = card.measure(monkeypatch)
    for label, found in zip(SHORT, (data.whole, *data.upto.values()), strict=True):
        assert found.reading.energy is not None
        assert found.reading.energy.ci95 is not None
        low, high = found.reading.energy.ci95
        assert low <= card.truth[label] <= high
        assert high - low < 0.002 * card.truth[label]
        assert found.active_j is None


@pytest.mark.parametrize(("sensor", "excess"), [(CARD, 0.077), (PROCESSOR, 0.177)])
def test_without_the_rests_own_power_the_quiet_one_is_charged_and_without_both_none(
    sensor: dict[str, Any], excess: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the counter fails in the window of rests, a vision walk has 7.7 % too much, or 17.7 % without both.

    Each walk of 30 ms and 9 J is followed by 11.4 ms on average, at 140 W: 80 W of that are known, or nothing is.
    """
    card = Lingering(sensor)
    card.after_step = lambda step: setattr(card.counter, "failing", float(step == len(SHORT)))
    data = card.measure(monkeypatch)
    assert data.instrument["rest_w"] is None
    assert data.instrument["rest_w_ci95"] is None
    assert "failed" in data.instrument["windows"][energy_pass.REST]["reason"]
    assert _excess(data, card.truth) == pytest.approx(excess, abs=0.005)


def test_on_a_card_that_is_quiet_at_once_a_rest_has_the_quiet_power(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both powers agree, and so do the joules at either."""
    card = Lingering(CARD, linger_w=QUIET_W)
    data = card.measure(monkeypatch)
    vision = data.instrument["windows"]["up to vision"]
    assert data.instrument["rest_w"] == pytest.approx(QUIET_W, rel=0.01)
    assert vision["baseline_w"] == pytest.approx(QUIET_W, rel=0.02)
    assert _excess(data, card.truth) == pytest.approx(0.0, abs=0.005)


def _window(baseline_w: float | None) -> WindowReading:
    """Return 10 s of 1000 +- 3 J."""
    return WindowReading(
        label="up to vision",
        start_s=0.0,
        end_s=10.0,
        energy=around(1000.0, 3.0),
        mean_power_w=100.0,
        baseline_w=baseline_w,
        quality=Quality.MEASURED,
        source="fake_counter",
        reason=None,
    )


@pytest.mark.parametrize(
    ("baseline_w", "rest_w", "joules", "half", "power_w", "active_j"),
    [
        (80.0, around(140.0, 2.0), 7.2, 0.05, 90.0, 0.8),  # (1000 - 280) / 100; 3 J and 2 s x 2 W in quadrature: 5 J
        (80.0, around(140.0, 0.0), 7.2, 0.03, 90.0, 0.8),
        (80.0, None, 8.4, 0.03, 105.0, 2.0),
        (None, around(140.0, 2.0), 7.2, 0.05, 90.0, None),
        (None, None, 10.0, 0.03, 100.0, None),
    ],
)
def test_a_walks_interval_grows_with_that_of_the_rest(
    baseline_w: float | None, rest_w: Amount | None, joules: float, half: float, power_w: float, active_j: float | None
) -> None:
    """100 walks in 10 s with 2 s of rest, by hand: joules, interval, mean power and joules above the quiet power."""
    found = measured(_window(baseline_w), _window(None), Repeated(100, 2.0), rest_w, around(40.0, 0.0))
    assert joules_of(found.reading.energy) == pytest.approx(joules)
    assert ci95_of(found.reading.energy) == pytest.approx((joules - half, joules + half))
    assert found.reading.mean_power_w == pytest.approx(power_w)
    assert found.active_j == (None if active_j is None else pytest.approx(active_j))
    assert found.host is not None
    assert joules_of(found.host.energy) == pytest.approx(9.2), "the host rests at its own power"
