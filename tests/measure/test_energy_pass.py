"""The energy pass on a meter whose truth is known: phases by difference, layers by time share, books that close."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest
from fake_card import LingeringMachine, Woken
from fake_counter import FakeClock, FakeCounter
from layerprof.hooks.energy.meter import EnergyMeter
from sessions import ask_setting, assembled, prepared

from layerprof.books.evidence import Read
from layerprof.books.span_sums import gap_phase
from layerprof.energy.amount import Amount, around, ci95_of, joules_of
from layerprof.energy.measured import EnergyData, Repeated, measured
from layerprof.energy.replay_plan import Candidate, Plan, make_plan
from layerprof.energy.replayed import ReplayReading, ReplayRow
from layerprof.energy.sensor_record import SensorRecord
from layerprof.energy.windows import EnergyReading, WindowReading
from layerprof.measure import energy_pass, passes
from layerprof.measure.session import Session
from layerprof.records import Phase, Quality
from layerprof.settings import build

UPTO = {"end to end": 100.0, "up to vision": 20.0, "up to prefill": 50.0, "up to decode": 98.0}


class FakeMeter:
    """A meter that reads the joules of `UPTO` for one walk; `broken` windows and the rest's read nothing."""

    available = True
    reason = None

    def __init__(self, *broken: str) -> None:
        self.broken = broken
        self.labels: list[str] = []
        self.clock = FakeClock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    @contextmanager
    def window(self, label: str, *, steady: bool = False) -> Iterator[None]:
        """Note the window."""
        yield
        self.labels.append(label)

    def reading(self) -> EnergyReading:
        """Return a window each."""
        return EnergyReading(
            windows=tuple(self._window(label) for label in self.labels),
            host=(),
            device_record=SensorRecord("fake", "fake_counter", "board"),
            host_record=None,
            period_s=0.1,
        )

    def _window(self, label: str) -> WindowReading:
        joules = None if label in self.broken else UPTO.get(label)
        return WindowReading(
            label=label,
            start_s=0.0,
            end_s=1.0,
            energy=None if joules is None else around(joules, 1),
            mean_power_w=joules,
            baseline_w=None,
            quality=Quality.UNAVAILABLE if joules is None else Quality.MEASURED,
            source="fake_counter",
            reason="failed reads" if joules is None else None,
        )


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    """Two answered samples with spans; windows of one walk each."""
    monkeypatch.setattr(energy_pass, "WINDOW_S", 0.0)
    settings = build(
        model="demo", dataset="coco", samples=2, max_new_tokens=3, fixed_tokens=True, output=str(tmp_path / "r")
    )
    made = prepared(settings)
    passes.bare_and_latency(made)
    return made


def _run(session: Session, meter: Any) -> Any:
    energy_pass.run(session, meter)
    return assembled(session)


def test_phases_come_by_difference_and_layers_by_time(session: Session) -> None:
    """20 J to vision, 50 to the first token, 98 in all: phases of 20, 30 and 48 J, shared by layers and gaps."""
    run = _run(session, FakeMeter())
    energy = run.totals.energy
    assert (energy.joules, energy.per_sample, energy.quality) == (100.0, 50.0, Quality.MEASURED)
    assert energy.per_output_token == pytest.approx(100.0 / 6)
    assert energy.by_phase == {"vision": 20.0, "prefill": 30.0, "decode": 48.0}
    shared: dict[Phase, float] = dict.fromkeys(Phase, 0.0)
    for row in run.layers:
        assert row.energy_quality is Quality.ATTRIBUTED
        assert row.energy_j is not None
        shared[row.phase] += row.energy_j
    books = run.ledger.energy_j
    gaps = {name: books.rest.get(name, 0.0) for name in session.read.spans.gaps_s} if session.read.spans else {}
    for phase, joules in (("vision", 20.0), ("prefill", 30.0), ("decode", 48.0)):
        own = sum(value for name, value in gaps.items() if gap_phase(name) == phase)
        assert shared[Phase(phase)] + own == pytest.approx(joules)
    assert books.total == 100.0
    assert books.residual == pytest.approx(2.0), "the end-to-end window knows nothing of the phases"


class FakeReplay:
    """Replays every layer at 2 J a call, but one that it refuses; a waiting device draws 10 W."""

    def __init__(self, keys: set[tuple[str, Phase]], refused: tuple[str, Phase]) -> None:
        self.keys, self.refused = keys, refused
        self.caught = 0

    @contextmanager
    def capture(self) -> Iterator[None]:
        """Catch the calls inside."""
        yield
        self.caught += 1

    def plan(self) -> Plan:
        """Return a plan for all of them."""
        return make_plan([Candidate(k, k) for k in range(len(self.keys))], 10_000.0)

    def measure(self, in_situ_s: Mapping[tuple[str, Phase], float], advance: Callable[[], None]) -> ReplayReading:
        """Return what is known of each call that ran in the model."""
        assert set(in_situ_s) == self.keys
        return ReplayReading(rows={key: self._row(key) for key in self.keys}, gap_w=Amount(10.0, (9.0, 11.0)), rounds=5)

    def _row(self, key: tuple[str, Phase]) -> ReplayRow:
        refused = key == self.refused
        return ReplayRow(
            energy=None if refused else Amount(2.0, (1.9, 2.1)),
            active=None,
            hot_j=None,
            seconds=None,
            rounds=5,
            quality=Quality.UNAVAILABLE if refused else Quality.REPLAYED,
            reason="its output changed" if refused else None,
        )


def test_replayed_joules_are_per_call_times_calls_and_the_books_show_what_is_left(session: Session) -> None:
    """2 J a call: a decoder layer's two decode steps a sample cost 8 J; a refused layer is None with its reason."""
    assert session.read.spans is not None
    keys = {(span.layer, span.phase) for span in session.read.spans.spans}
    refused = ("model.visual.merger", Phase.VISION)
    ask_setting(session, energy="replay")
    fake = FakeReplay(keys, refused)
    energy_pass.run(session, FakeMeter(), fake)
    run = assembled(session)
    assert fake.caught == 1
    rows = {(row.name, row.phase): row for row in run.layers}
    layer = rows["model.language_model.layers.0", Phase.DECODE]
    assert (layer.calls, layer.energy_j, layer.energy_quality) == (4, 8.0, Quality.REPLAYED)
    assert layer.energy_ci95 == pytest.approx((7.6, 8.4))
    assert rows[refused].energy_j is None
    assert rows[refused].energy_quality is Quality.UNAVAILABLE
    assert rows[refused].energy_reason == "its output changed"
    calls = sum(row.calls for key, row in rows.items() if key != refused)
    gaps = 10.0 * sum(session.read.spans.gaps_s.values())
    assert run.ledger.energy_j.residual == pytest.approx(100.0 - 2.0 * calls - gaps)
    assert run.totals.energy.quality is Quality.MEASURED


def test_longer_layers_get_more_joules(session: Session) -> None:
    """Inside a phase, joules go as span."""
    rows = [row for row in _run(session, FakeMeter()).layers if row.phase is Phase.VISION]
    rates = [row.energy_j / row.span_s.total for row in rows]
    assert rates == pytest.approx([rates[0]] * len(rates))


def test_a_phase_window_that_failed_leaves_one_power_for_all(session: Session) -> None:
    """Without phase energies the whole is shared by span, and each row says so."""
    run = _run(session, FakeMeter("up to vision"))
    assert run.totals.energy.by_phase is None
    assert "whole run" in str(run.layers[0].energy_reason)
    assert run.ledger.energy_j.residual == pytest.approx(0.0, abs=1e-9)


def test_no_joules_end_to_end_is_no_joules_anywhere(session: Session) -> None:
    """A window that the counter could not read gives None with its reason, never 0."""
    run = _run(session, FakeMeter("end to end"))
    assert run.totals.energy.joules is None
    assert run.totals.energy.reason == "failed reads"
    assert all(row.energy_j is None and row.energy_quality is Quality.UNAVAILABLE for row in run.layers)


def test_the_vision_walk_stops_before_the_language_tower(session: Session) -> None:
    """`up to vision` runs every vision block and no decoder layer, and leaves no hook behind."""
    model = session.subject.model
    seen: list[str] = []
    handles = [
        model.get_submodule(layer.name).register_forward_hook(lambda *_, kind=layer.kind: seen.append(kind))
        for layer in session.asked.layers
    ]
    energy_pass._walks(session)["up to vision"]()
    for handle in handles:
        handle.remove()
    assert seen.count("vision_block") == 4 * len(session.asked.batches)
    assert "decoder_layer" not in seen
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_without_a_sensor_the_reason_is_kept(session: Session) -> None:
    """The meter's own words reach the ledger."""

    class NoMeter(FakeMeter):
        available = False
        reason = "no counter here; measure on bare metal"  # type: ignore[assignment]  # the fake's None is narrower

    run = _run(session, NoMeter())
    assert run.totals.energy.joules is None
    assert "bare metal" in str(run.totals.energy.reason)
    assert "bare metal" in str(run.ledger.energy_j.reason)


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
        monkeypatch.setattr(energy_pass, "_walks", self.walks)
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


def test_an_interrupt_in_the_window_of_rests_ends_the_pass(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without that window there are no joules, and the reason is kept."""

    class Interrupted(FakeMeter):
        @contextmanager
        def window(self, label: str, *, steady: bool = False) -> Iterator[None]:
            if label == energy_pass.REST:
                raise KeyboardInterrupt
            yield

    with pytest.raises(KeyboardInterrupt):
        energy_pass.run(session, Interrupted())
    assert session.read.energy is None
    assert "interrupted" in session.read.reasons["energy"]
