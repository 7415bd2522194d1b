"""Replay: joules a call with intervals, representatives, books that close, on a machine whose truth is known."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from fake_counter import FakeClock, FakeCounter, Machine
from layerprof.hooks.energy.absent import AbsentSensor
from layerprof.hooks.energy.capture import CaptureHook
from layerprof.hooks.energy.loop import Loop
from layerprof.hooks.energy.meter import EnergyMeter
from layerprof.hooks.energy.replay import Replay
from torch import Tensor, nn

from layerprof.energy.amount import joules_of
from layerprof.energy.replayed import ReplayReading
from layerprof.readings import Layer
from layerprof.records import Phase, Quality


class Power:
    """What a heater draws on; copies of a heater share it. `last` is whose weights are warm."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.drift: Callable[[float], float] = lambda _t: 1.0
        self.last: Any = None

    def __deepcopy__(self, memo: Any) -> Power:
        return self


class Heater(nn.Module):
    """A layer that takes a time and a power; a third more power where its weights are not warm."""

    def __init__(self, power: Power, watts: float, seconds: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(100))
        self.power, self.watts, self.seconds = power, watts, seconds

    def forward(self, x: Tensor) -> Tensor:
        """Draw the power for the time."""
        power = self.power
        cold = 1.0 if power.last is self else 4 / 3
        power.last = self
        power.machine.run(self.watts * cold * power.drift(power.machine.clock.now()), self.seconds)
        return x * self.weight[0]


class HeaterVlm(nn.Module):
    """Two kinds of vision block, decoder layers, a head."""

    def __init__(self, power: Power) -> None:
        super().__init__()
        self.visual = nn.ModuleList(Heater(power, w, 0.02) for w in (300.0, 300.0, 200.0))
        self.layers = nn.ModuleList(Heater(power, 250.0, 0.01) for _ in range(2))
        self.head = Heater(power, 350.0, 0.015)

    def generate(self, tokens: int = 4) -> None:
        """Encode, read, write."""
        x = torch.ones(1, 6, 4)
        for block in self.visual:
            x = block(x)
        for step in range(tokens):
            y = x if step == 0 else x[:, :1]
            for layer in self.layers:
                y = layer(y)
            self.head(y)


LAYERS = [
    *(Layer(f"visual.{k}", "vision", "vision_block", k) for k in range(3)),
    *(Layer(f"layers.{k}", "language", "decoder_layer", k) for k in range(2)),
    Layer("head", "language", "lm_head", 0),
]
TRUE_COLD = {"visual.0": 8.0, "visual.1": 8.0, "visual.2": 16 / 3, "layers.0": 10 / 3, "layers.1": 10 / 3, "head": 7.0}


def _bench(budget_s: float | None = None, **faults: Any) -> tuple[Replay, HeaterVlm, Power]:
    clock = FakeClock()
    power = Power(Machine(clock))
    model = HeaterVlm(power)
    meter = EnergyMeter("cpu", [FakeCounter(power.machine, late_s=0.1, **faults)], clock)
    replay = Replay(model, LAYERS, budget_s=budget_s, decode_step=2, meter=meter, clock=clock, cache=200)
    with replay.capture():
        model.generate()
    return replay, model, power


@pytest.fixture(scope="module")
def measured() -> ReplayReading:
    """Measure everything under a drift of 4 %."""
    replay, _, power = _bench()
    power.drift = lambda t: 1 + 0.04 * math.sin(t / 37)
    reading: ReplayReading = replay.measure()
    return reading


def test_replay_finds_the_joules_of_every_layer_in_every_phase(measured: ReplayReading) -> None:
    """Watts x seconds of cold weights, within 1.5 %, though the machine drifts by 4 %; label, rounds, no flags."""
    assert len(measured.rows) == 3 + 2 * 3
    for (name, _), row in measured.rows.items():
        assert row.quality is Quality.REPLAYED
        assert joules_of(row.energy) == pytest.approx(TRUE_COLD[name], rel=0.015)
        assert row.rounds >= 5
        assert row.measured_on == name
    assert measured.worst_share < 0.02


def test_replay_gives_the_warm_figure_beside_one_layer_of_each_kind(measured: ReplayReading) -> None:
    """A quarter less where the same weights are called again."""
    hot = {key: row.hot_j / row.energy.joules for key, row in measured.rows.items() if row.hot_j and row.energy}
    assert {key[0] for key in hot} == {"visual.0", "visual.2", "layers.0", "head"}
    assert all(share == pytest.approx(0.75, rel=0.03) for share in hot.values())


def test_replay_gives_active_joules_above_the_idle_model(measured: ReplayReading) -> None:
    """80 W idle, 15 ms a call: 1.2 J less."""
    row = measured.rows["head", Phase.DECODE]
    assert measured.context_w is not None
    assert measured.context_w.joules == pytest.approx(80.0, rel=0.01)
    assert row.energy is not None
    assert joules_of(row.active) == pytest.approx(row.energy.joules - 80 * 0.015, rel=0.01)


def test_replayed_layers_close_against_the_end_to_end_counter() -> None:
    """Calls x joules against a window of real answers in which the weights were as cold; the rest of it idle."""
    replay, model, power = _bench()
    reading = replay.measure()
    machine = power.machine
    meter = EnergyMeter("cpu", [FakeCounter(machine, late_s=0.1, seed=3)], machine.clock)
    answers = 30
    with meter, meter.window("whole"):
        start = machine.clock.now()
        for _ in range(answers):
            model.generate()
            machine.clock.sleep(0.05)
        true = machine.energy(start, machine.clock.now())
    total = meter.reading().window("whole").energy
    assert total is not None
    assert total.joules == pytest.approx(true, rel=0.01)
    calls = {(name, Phase.VISION): answers for name in ("visual.0", "visual.1", "visual.2")}
    for name in ("layers.0", "layers.1", "head"):
        calls[name, Phase.PREFILL] = answers
        calls[name, Phase.DECODE] = 3 * answers
    found = reading.closure(total, calls, gap_s=0.05 * answers)
    assert found.passed
    assert abs(found.residual.joules) < 0.02 * found.total.joules
    rows = reading.over_all(calls)
    assert sum(joules_of(r.energy) or 0 for r in rows.values()) == pytest.approx(found.parts_j)
    forgotten = reading.closure(total, {**calls, ("x", Phase.DECODE): 1})
    assert forgotten.missing == (("x", Phase.DECODE),)


def test_what_was_replayed_can_be_written_to_a_file(measured: ReplayReading) -> None:
    """Plain JSON: every row with its label, both baselines, and why it ended."""
    found = json.loads(json.dumps(measured.facts(), allow_nan=False))
    assert {(row["name"], row["phase"]) for row in found["rows"]} == {(n, str(p)) for n, p in measured.rows}
    assert {row["quality"] for row in found["rows"]} == {"replayed"}
    assert found["context_w"]["watts"] == pytest.approx(80, rel=0.01)
    assert found["stopped"] == measured.stopped


def test_a_small_budget_measures_representatives_and_says_so() -> None:
    """All decoder layers get the figure of one, with that reason; the time is kept."""
    replay, _, power = _bench(budget_s=70.0)
    before = power.machine.clock.now()
    reading = replay.measure()
    assert power.machine.clock.now() - before < 70.0 * 1.05
    lent = [row for key, row in reading.rows.items() if row.measured_on != key[0]]
    assert lent
    assert all("class representative" in str(row.reason) for row in lent)
    assert reading.rows["layers.1", Phase.DECODE].energy == reading.rows["layers.0", Phase.DECODE].energy
    assert reading.rows["layers.1", Phase.DECODE].measured_on == "layers.0"


def test_a_budget_too_small_for_anything_leaves_rows_with_the_remedy() -> None:
    """No joules rather than joules from half a second."""
    replay, _, _ = _bench(budget_s=4.0)
    reading = replay.measure()
    assert {row.energy for row in reading.rows.values()} == {None}
    assert all("--energy-budget" in str(row.reason) for row in reading.rows.values())


def test_without_a_sensor_every_row_says_why() -> None:
    """Nothing is run, nothing is measured."""
    clock = FakeClock()
    model = HeaterVlm(Power(Machine(clock)))
    meter = EnergyMeter("cpu", [AbsentSensor("cpu", "no counter", "get one")], clock)
    replay = Replay(model, LAYERS, meter=meter, clock=clock)
    with replay.capture():
        model.generate()
    reading = replay.measure()
    assert {(r.energy, r.quality, r.reason) for r in reading.rows.values()} == {
        (None, Quality.UNAVAILABLE, "no counter; get one")
    }


def test_an_interrupt_keeps_what_was_measured() -> None:
    """Ctrl-C in the second round: the first round's figures stand, without intervals where there is one value."""
    replay, _, _ = _bench()
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        if done == 12:
            raise KeyboardInterrupt

    reading = replay.measure(advance=advance)
    assert reading.interrupted
    assert all(row.energy for row in reading.rows.values())


def test_calls_unlike_those_in_the_model_are_flagged() -> None:
    """Clocks or caches differ: a replayed call that takes 20 ms where the model's took 30 ms."""
    replay, _, _ = _bench(budget_s=70.0)
    reading = replay.measure(in_situ_s={("visual.0", Phase.VISION): 0.03, ("head", Phase.DECODE): 0.015})
    assert "time unlike in the model" in reading.rows["visual.0", Phase.VISION].flags
    assert reading.rows["head", Phase.DECODE].flags == ()


class Waiting(nn.Module):
    """A layer of 4 ms of work at 300 W whose host then lets the device wait, as long as `waits` says."""

    def __init__(self, machine: Machine, waits: Callable[[float], float]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(100))
        self.machine, self.waits = machine, waits

    def __deepcopy__(self, memo: Any) -> Waiting:
        return Waiting(self.machine, self.waits)

    def forward(self, x: Tensor) -> Tensor:
        """Work, then wait."""
        self.machine.run(300.0, 0.004)
        self.machine.clock.sleep(self.waits(self.machine.clock.now()))
        return x * self.weight[0]


def _waiting(waits: Callable[[float], float]) -> ReplayReading:
    """Return the replay of one such layer, which takes 10 ms a call in the model."""
    clock = FakeClock()
    machine = Machine(clock)
    model = nn.ModuleDict({"a": Waiting(machine, waits)})
    meter = EnergyMeter("cpu", [FakeCounter(machine, late_s=0.1)], clock)
    replay = Replay(model, [Layer("a", "vision", "vision_block", 0)], meter=meter, clock=clock, cache=200)
    with replay.capture():
        model["a"](torch.ones(1, 2, 2))
    reading: ReplayReading = replay.measure(in_situ_s={("a", Phase.VISION): 0.01})
    return reading


def test_a_call_that_waits_twice_as_long_in_its_loop_has_the_waiting_of_the_model() -> None:
    """1.2 J of work in 4 ms; 16 ms of waiting in the loop at 80 W, 6 in the model: 1.68 J there, not 2.48."""
    row = _waiting(lambda _t: 0.016).rows["a", Phase.VISION]
    assert row.seconds == pytest.approx(0.02, rel=0.01)
    assert joules_of(row.energy) == pytest.approx(1.2 + 80 * 0.016, rel=0.01)
    assert joules_of(row.in_model) == pytest.approx(1.2 + 80 * 0.006, rel=0.01)
    assert "time unlike in the model" in row.flags
    assert "2.00 of its time in the model; the difference is waiting at 80 W" in str(row.reason)
    facts = row.facts()["in_model"]
    assert (facts["seconds"], facts["joules"]) == (0.01, joules_of(row.in_model))


def test_a_host_of_two_speeds_widens_no_interval() -> None:
    """It is slower by 60 % for 7 s of every 20: rounds differ in joules by what they waited, not in what they did."""
    reading = _waiting(lambda t: 0.016 if t % 20 < 7 else 0.01)
    row = reading.rows["a", Phase.VISION]
    assert reading.worst_share < 0.02
    assert joules_of(row.in_model) == pytest.approx(1.2 + 80 * 0.006, rel=0.02)


def test_windows_of_a_failing_counter_have_reasons_not_figures() -> None:
    """A counter whose every read fails in the rounds: unavailable, with the counter's own reason."""
    replay, _, _ = _bench(budget_s=70.0, failing=1.0)
    reading = replay.measure()
    assert {row.energy for row in reading.rows.values()} == {None}
    assert all(row.reason for row in reading.rows.values())


def test_a_loop_ends_near_its_time_however_short_a_call_is() -> None:
    """Chunks follow the call's own length."""
    clock = FakeClock()
    power = Power(Machine(clock))
    model = nn.ModuleDict({"a": Heater(power, 100.0, 0.0005)})
    hook = CaptureHook(model, [Layer("a", "vision", "vision_block", 0)])
    with hook, hook.batch(0):
        model["a"](torch.ones(1, 2, 2))
    (captured,) = hook.calls.values()
    loop = Loop(captured, (captured.module,), "cpu", clock)
    loop.calibrate()
    before = clock.now()
    count = loop.run(1.0)
    assert clock.now() - before == pytest.approx(1.0, abs=0.03)
    assert count == pytest.approx((clock.now() - before) / 0.0005, abs=2)


@pytest.mark.parametrize(("device_s", "waited"), [(0.0004, True), (0.004, False)])
def test_a_loop_tells_which_of_the_two_waits(device_s: float, waited: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host of 1 ms a call, and a device that takes less, or more and has two chunks still to do at the end."""
    clock = FakeClock()
    free_s = [0.0]

    class Event:
        def record(self, _stream: object) -> None:
            self.done_s = free_s[0]

        def synchronize(self) -> None:
            clock.sleep(max(0.0, self.done_s - clock.now()))

    class Launching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            clock.sleep(0.001)
            free_s[0] = max(free_s[0], clock.now()) + device_s
            return x

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: clock.sleep(max(0.0, free_s[0] - clock.now())))
    model = nn.ModuleDict({"a": Launching()})
    hook = CaptureHook(model, [Layer("a", "vision", "vision_block", 0)])
    with hook, hook.batch(0):
        model["a"](torch.ones(1, 2, 2))
    (captured,) = hook.calls.values()
    loop = Loop(captured, (captured.module,), "cuda:0", clock)
    loop.calibrate()
    loop.run(1.0)
    assert loop.drain() is waited


def test_a_host_that_is_the_device_waits_for_nobody() -> None:
    """So nothing is known of it."""
    assert _waiting(lambda _t: 0.006).rows["a", Phase.VISION].host_bound is None


def test_the_loop_waits_for_the_device_that_it_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Marks go on the stream of the model's GPU, which need not be torch's current one, and lie two chunks back."""
    waited: list[str] = []

    class Event:
        def record(self, stream: str) -> None:
            self.stream = stream

        def synchronize(self) -> None:
            waited.append(self.stream)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    clock = FakeClock()
    model = nn.ModuleDict({"a": Heater(Power(Machine(clock)), 100.0, 0.02)})
    hook = CaptureHook(model, [Layer("a", "vision", "vision_block", 0)])
    with hook, hook.batch(0):
        model["a"](torch.ones(1, 2, 2))
    (captured,) = hook.calls.values()
    assert Loop(captured, (captured.module,), "cuda:1", clock).run(0.09) == 5
    assert waited == ["stream of cuda:1"] * 3
