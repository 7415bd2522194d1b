"""The energy meter on a virtual clock: windows, rests, what happened in them, and what it says of its instrument."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from fake_counter import FakeClock, FakeCounter, Machine
from layerprof.hooks.energy.absent import AbsentSensor
from layerprof.hooks.energy.clock import HostClock
from layerprof.hooks.energy.meter import EnergyMeter

from layerprof.energy.windows import State
from layerprof.records import Quality


def _meter(**faults: Any) -> tuple[EnergyMeter, Machine, FakeCounter]:
    clock = FakeClock()
    machine = Machine(clock)
    counter = FakeCounter(machine, **faults)
    return EnergyMeter("cuda:0", [counter], clock), machine, counter


def test_the_meter_measures_what_ran_inside_the_window() -> None:
    """2 s at 400 W on a card that lags by 0.1 s, started from idle: 800 J within 1 %."""
    meter, machine, _ = _meter(late_s=0.1)
    with meter, meter.window("bare"):
        start = machine.clock.now()
        machine.run(400.0, 2.0)
        true = machine.energy(start, machine.clock.now())
    found = meter.reading().window("bare")
    assert found.joules == pytest.approx(true, rel=0.01)
    assert found.baseline_w == pytest.approx(80.0, rel=0.02)
    assert found.quality is Quality.MEASURED
    assert meter.reading().period_s == pytest.approx(0.1, rel=0.05)


def test_a_steady_window_does_not_rest() -> None:
    """Inside a load that goes on, resting would be the disturbance."""
    meter, machine, _ = _meter()
    with meter:
        machine.set(300.0)
        machine.clock.sleep(1.0)
        before = machine.clock.now()
        with meter.window("layer", steady=True):
            machine.clock.sleep(3.0)
        assert machine.clock.now() - before == pytest.approx(3.0)
        machine.clock.sleep(0.2)
    found = meter.reading().window("layer")
    assert found.joules == pytest.approx(900.0, rel=0.01)
    assert found.method == "steady"


def test_a_steady_load_goes_on_while_the_counter_is_read_at_the_windows_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is queued on the device covers the slow reads; waiting for it first would leave the card idle meanwhile."""
    meter, _, counter = _meter()
    done: list[str] = []
    state = counter.state

    def read() -> State:
        done.append("read")
        return state()

    monkeypatch.setattr(meter, "_synchronise", lambda: done.append("device idle"))
    monkeypatch.setattr(counter, "state", read)
    with meter.window("layer", steady=True):
        pass
    assert done == ["read", "device idle", "device idle", "read"]
    done.clear()
    with meter.window("bare"):
        pass
    assert done == ["device idle", "read", "device idle", "read"]


def test_a_foreign_process_and_a_power_cap_mark_their_window_only() -> None:
    """Seen by the poller while the window was open, though gone at both of its edges."""
    meter, machine, counter = _meter()
    with meter:
        with meter.window("clean"):
            machine.run(400.0, 3.0)
        now = machine.clock.now()
        counter.foreign_s = counter.throttled_s = (now + 2.0, now + 3.0)
        with meter.window("disturbed"):
            machine.run(400.0, 3.0)
    reading = meter.reading()
    assert reading.window("clean").flags == ()
    assert set(reading.window("disturbed").flags) == {"foreign process", "throttled"}


def test_a_reset_in_the_window_leaves_none() -> None:
    """A driver reload half way."""
    clock = FakeClock()
    machine = Machine(clock)
    counter = FakeCounter(machine, offset_j=5e6, resets_s=(clock.now() + 2.5,))
    meter = EnergyMeter("cuda:0", [counter], clock)
    with meter, meter.window("bare"):
        machine.run(400.0, 3.0)
    found = meter.reading().window("bare")
    assert (found.joules, found.quality) == (None, Quality.UNAVAILABLE)
    assert "counter reset" in found.flags


def test_a_window_whose_body_raised_is_dropped_and_polling_ends() -> None:
    """The error is the caller's; a half window is no measurement."""
    meter, machine, counter = _meter()

    def half_a_run() -> None:
        with meter, meter.window("bare"):
            machine.run(400.0, 1.0)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half_a_run()
    reads = counter.states
    machine.clock.sleep(5.0)
    assert counter.states == reads
    assert meter.reading().windows == ()
    with pytest.raises(KeyError):
        meter.reading().window("bare")


def test_the_host_has_its_own_row() -> None:
    """Card and processor side by side, never added."""
    clock = FakeClock()
    card, host = Machine(clock), Machine(clock, idle_w=50.0)
    rapl_like = FakeCounter(host, period_s=0.001, jitter_s=0.0, source="rapl_powercap", update_s=0.001, lag_s=0.0)
    meter = EnergyMeter("cuda:0", [FakeCounter(card), rapl_like], clock)
    with meter, meter.window("bare"):
        host.set(120.0)
        card.run(400.0, 2.0)
    reading = meter.reading()
    assert reading.window("bare").joules == pytest.approx(800.0, rel=0.01)
    host_side = reading.host_window("bare")
    assert host_side is not None
    assert host_side.source == "rapl_powercap"
    assert host_side.joules == pytest.approx(240.0, rel=0.01)


def test_a_reading_tells_its_instrument() -> None:
    """Sensor, source, step of the counter, clocks, limit and the note on its gain, as plain JSON."""
    meter, machine, _ = _meter()
    with meter, meter.window("bare"):
        machine.run(400.0, 2.0)
    found = json.loads(json.dumps(meter.reading().facts(), allow_nan=False))
    assert (found["source"], found["sm_clock_mhz"], found["power_limit_w"]) == ("nvml_counter", 1980.0, 700.0)
    assert found["counter_period_s"] == pytest.approx(0.1, rel=0.05)
    assert "gain" in found["note"]
    assert found["windows"]["bare"]["estimator"] == "pulse"


def test_a_meter_without_sensor_costs_nothing_and_gives_the_reason() -> None:
    """No rest, no thread, no joules; the reason reaches the reading."""
    clock = FakeClock()
    meter = EnergyMeter("cpu", [AbsentSensor("Some CPU", "no counter", "load intel_rapl_msr")], clock)
    before = clock.now()
    with meter, meter.window("bare"):
        pass
    assert clock.now() == before
    found = meter.reading().window("bare")
    assert (found.joules, found.source, found.reason) == (None, "none", "no counter; load intel_rapl_msr")
    assert not meter.available


def test_a_device_nobody_knows_is_absent_with_a_reason() -> None:
    """An accelerator without a sensor of ours: the user may pass one."""
    meter = EnergyMeter("xpu:0")
    assert not meter.available
    assert "sensors=[" in str(meter.reason)


def test_the_host_clock_repeats_in_the_background_until_stopped() -> None:
    """A thread of its own, which ends."""
    seen = threading.Event()
    threads: set[str] = set()

    def action() -> float:
        threads.add(threading.current_thread().name)
        seen.set()
        return 0.001

    stop = HostClock().repeat(action)
    assert seen.wait(10)
    stop()
    assert threads == {"layerprof-sensor"}
    assert not any(t.name == "layerprof-sensor" and t.is_alive() for t in threading.enumerate())
