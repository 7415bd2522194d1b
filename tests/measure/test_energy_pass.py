"""The energy pass on a meter whose truth is known: phases by difference, layers by time share, books that close."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest
from fake_counter import FakeClock
from sessions import ask_setting, assembled, prepared

from layerprof.books.span_sums import gap_phase
from layerprof.energy.amount import Amount, around
from layerprof.energy.replay_plan import Candidate, Plan, make_plan
from layerprof.energy.replayed import ReplayReading, ReplayRow
from layerprof.energy.sensor_record import SensorRecord
from layerprof.energy.windows import EnergyReading, WindowReading
from layerprof.measure import bare_walk, energy_pass
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
    bare_walk.bare_and_latency(made)
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
    # Gaps are as long as under the counter, in a window of 1 s without its rest, not as in the latency pass.
    whole = run.passes["energy"]["instrument"]["windows"]["end to end"]
    share = (1.0 - whole["rest_s"]) / sum(session.read.spans.windows_s)
    gaps = 10.0 * share * sum(session.read.spans.gaps_s.values())
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
    energy_pass.walks(session)["up to vision"]()
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
