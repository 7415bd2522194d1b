"""A request for a sensor, checked before anything is loaded."""

from __future__ import annotations

from typing import Any

import pytest
from fake_counter import FakeClock, FakeCounter, Machine
from layerprof.hooks.energy.absent import AbsentSensor
from layerprof.hooks.energy.meter import EnergyMeter

from layerprof import registry, settings
from layerprof.errors import RequestError
from layerprof.measure.check import check_energy


@pytest.fixture
def asked_for(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Put a machine in place on which only RAPL can be read; list which sensors are looked for."""
    asked: list[tuple[str, str]] = []

    def meter(device: str, *, sensor: str = "auto") -> EnergyMeter:
        asked.append((device, sensor))
        there = FakeCounter(Machine(FakeClock())) if sensor in ("rapl", "auto") else None
        return EnergyMeter(device, [there or AbsentSensor(device, f"no {sensor} here", "get one")])

    monkeypatch.setattr(registry, "load", lambda _kind: meter)
    return asked


def check(device: str, **values: Any) -> str | None:
    """Check the energy of a request for the bundled model."""
    return check_energy(settings.build(model="demo", **values), device)


def test_a_sensor_asked_for_by_name_has_to_be_there(asked_for: list[tuple[str, str]]) -> None:
    """RAPL can be read; Zeus cannot, with its reason; `auto` is not looked for until it is read."""
    assert check("cpu", energy_sensor="rapl") is None
    with pytest.raises(RequestError, match="--energy-sensor zeus cannot be read: no zeus here; get one") as refused:
        check("cpu", energy_sensor="zeus")
    assert "--energy-sensor auto" in str(refused.value)
    assert check("cpu") is None
    assert asked_for == [("cpu", "rapl"), ("cpu", "zeus")]


@pytest.mark.parametrize(("device", "sensor"), [("cpu", "nvml"), ("cpu", "amdsmi"), ("cuda:0", "rapl")])
def test_a_sensor_of_another_kind_of_device_is_one_message(
    asked_for: list[tuple[str, str]], device: str, sensor: str
) -> None:
    """Problem and remedy; no vendor's library is loaded for it."""
    with pytest.raises(RequestError, match=f"--energy-sensor {sensor}: {sensor} reads .*the device is {device}"):
        check(device, energy_sensor=sensor)
    assert asked_for == []


def test_replay_asks_the_sensor_that_was_named(asked_for: list[tuple[str, str]]) -> None:
    """Not the one that would be taken otherwise."""
    assert check("cpu", energy="replay", energy_sensor="rapl") is None
    with pytest.raises(RequestError, match="--energy replay cannot run: no zeus here"):
        check("cpu", energy="replay", energy_sensor="zeus")
    assert asked_for == [("cpu", "rapl"), ("cpu", "zeus")]


def test_what_has_no_effect_is_told(asked_for: list[tuple[str, str]]) -> None:
    """Without energy nothing is looked for."""
    assert check("cpu", energy="off", energy_sensor="nvml") == "--energy-sensor has no effect with --energy off."
    told = check("cpu", energy="off", energy_sensor="rapl", energy_budget=60.0)
    assert told == "--energy-sensor and --energy-budget have no effect with --energy off."
    assert "--energy replay" in str(check("cpu", energy_budget=60.0))
    assert asked_for == []
