"""NVIDIA's energy counter through a fake of its interface: what it tells, refuses, and fails at."""

from __future__ import annotations

import os
from typing import Any

import pytest
from fake_nvml import UUID, FakeNvml, NVMLError
from layerprof.hooks.energy.absent import NoSensorError
from layerprof.hooks.energy.nvml import NvmlSensor, explain, find_nvml


def _sensor(context: bool = True, **behaviour: Any) -> tuple[NvmlSensor, FakeNvml]:
    nvml = FakeNvml(**behaviour)
    return NvmlSensor(UUID, nvml, own_context=lambda: context), nvml


def test_nvml_reads_millijoules_as_joules_since_the_first_read() -> None:
    """5,000,000 mJ is where it begins, 1,234 mJ later is 1.234 J."""
    sensor, nvml = _sensor()
    assert sensor.read().joules == 0.0
    nvml.millijoules = 5_001_234
    assert sensor.read().joules == pytest.approx(1.234)
    assert (sensor.source, sensor.scope, sensor.duty) == ("nvml_counter", "board", 0.25)


def test_nvml_failed_read_is_none_and_the_next_goes_on() -> None:
    """A card that stops answering for a moment."""
    sensor, nvml = _sensor()
    sensor.read()
    nvml.millijoules = None
    failed = sensor.read()
    assert (failed.joules, failed.event) == (None, "failed")
    nvml.millijoules = 5_002_000
    assert sensor.read().joules == pytest.approx(2.0)


def test_nvml_without_counter_integrates_the_instant_power() -> None:
    """Before Volta: 300 W read at 0, 1 and 2 s are 600 J, and the label says that it is an integral."""
    times = iter([0.0, 0.0, 0.0, 1.0, 1.0, 2.0, 2.0])
    sensor = NvmlSensor(UUID, FakeNvml(millijoules=None), own_context=lambda: True, now=lambda: next(times))
    assert sensor.source == "nvml_power_integral"
    next(times)
    joules = [sensor.read().joules for _ in range(3)]
    assert joules == pytest.approx([0.0, 300.0, 600.0])


@pytest.mark.parametrize("behaviour", [{"mig": 1}, {"mig_uuid": True}])
def test_nvml_refuses_a_card_split_by_mig(behaviour: dict[str, Any]) -> None:
    """One counter for all slices cannot be divided honestly; both the card's mode and a slice's UUID are seen."""
    with pytest.raises(NoSensorError, match="MIG"):
        _sensor(**behaviour)


def test_nvml_finds_the_card_by_uuid_only() -> None:
    """A UUID that NVML does not know is refused, with what to do; no other card is taken instead."""
    with pytest.raises(NoSensorError, match="does not know the card"):
        NvmlSensor("00000000-0000-0000-0000-000000000000", FakeNvml())


def test_nvml_tells_other_processes_from_its_own() -> None:
    """Own pid known: the rest are foreign. In a container (own pid unknown, context live) one entry is one's own."""
    assert _sensor(pids=[os.getpid(), 77])[0].foreign_processes() == (77,)
    assert _sensor(pids=[os.getpid()])[0].foreign_processes() == ()
    assert _sensor(pids=[77])[0].foreign_processes() == ()
    assert len(_sensor(pids=[77, 78])[0].foreign_processes()) == 1
    assert _sensor(context=False, pids=[77])[0].foreign_processes() == (77,)


def test_nvml_goes_on_where_the_driver_is_older_than_the_binding() -> None:
    """The binding then raises an error that is none of NVML's, of the process list among others; joules are read."""

    class Mismatch(Exception):  # noqa: N818  # as the binding's own
        pass

    def refuse(_card: str) -> None:
        raise Mismatch

    sensor, _ = _sensor(NVMLLibraryMismatchError=Mismatch, nvmlDeviceGetComputeRunningProcesses=refuse)
    assert sensor.foreign_processes() == ()
    assert sensor.read().joules == 0.0


def test_nvml_state_names_what_holds_the_card_back() -> None:
    """A power cap and heat count, idling does not; clocks in MHz, limit in watts."""
    state = _sensor(reasons=1 | 4 | 64)[0].state()
    assert state.throttle == ("power cap", "heat (hardware)")
    assert (state.sm_clock_mhz, state.memory_clock_mhz, state.power_limit_w) == (1980, 2619, 700.0)
    assert _sensor(reasons=1)[0].state().throttle == ()


@pytest.mark.parametrize(
    ("name", "architecture", "duty"),
    [
        (b"NVIDIA A100-SXM4-40GB", 7, 0.25),
        ("NVIDIA RTX A6000", 7, 1.0),
        ("NVIDIA L4", 8, 1.0),
        ("NVIDIA B200", 10, 0.25),
    ],
)
def test_nvml_knows_which_cards_look_a_quarter_of_the_time(name: Any, architecture: int, duty: float) -> None:
    """GA100 and Hopper do; a card nobody has looked at is taken to."""
    assert _sensor(name=name, architecture=architecture)[0].duty == duty


def test_nvml_closes_once_and_a_grace_module_says_so() -> None:
    """NVML counts its users; and a module's joules are not a board's."""
    sensor, nvml = _sensor(name="NVIDIA GH200 480GB")
    assert sensor.scope == "module"
    sensor.close()
    sensor.close()
    assert nvml.closed == 1


def test_an_error_nobody_foresaw_is_passed_on() -> None:
    """Not swallowed into a false explanation."""
    assert "Strange" in explain(NVMLError("Strange")).problem


def test_without_a_driver_the_sensor_is_absent_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine without GPU: an object, a reason, failed samples; no exception."""

    def refuse() -> None:
        raise NoSensorError("no NVIDIA driver library", "install it")

    monkeypatch.setattr("layerprof.hooks.energy.nvml.load_nvml", refuse)
    sensor = find_nvml("cuda:0")
    assert not sensor.available
    assert "no NVIDIA driver library" in str(sensor.reason)
    assert sensor.read().joules is None
