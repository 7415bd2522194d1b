"""AMD's counter against a fake binding whose joules are known."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from fake_amdsmi import ADDRESS, RESOLUTION_UJ, FakeAmdSmi
from layerprof.hooks.energy.absent import NoSensorError
from layerprof.hooks.energy.amdsmi import AmdSmiSensor, find_amdsmi, load_amdsmi


def sensor(**behaviour: Any) -> tuple[AmdSmiSensor, FakeAmdSmi]:
    """Return the sensor of a fake card, and the card."""
    smi = FakeAmdSmi(**behaviour)
    return AmdSmiSensor(ADDRESS, smi, now=smi.now, sleep=smi.sleep), smi


@pytest.mark.parametrize("old", [False, True])
def test_counts_times_their_resolution_are_microjoules(old: bool) -> None:
    """200 W for 3 s are 600 J since the first read, also as bindings before 6.2.1 name the accumulator."""
    found, smi = sensor(old=old)
    assert found.read().joules == 0.0
    smi.sleep(3.0)
    assert found.read().joules == pytest.approx(600.0, abs=1e-3)
    assert (found.source, found.scope) == ("amdsmi_counter", "board")


def test_an_accumulator_that_begins_anew_is_continued() -> None:
    """An unsigned number of 64 bits: 100 J before its end, and 500 J after it."""
    end_j = 2**64 * RESOLUTION_UJ * 1e-6
    found, smi = sensor(start_j=end_j - 200.0)
    found.read()
    smi.start_j -= end_j
    smi.sleep(3.0)
    read = found.read()
    assert read.event == "wrap"
    assert read.joules == pytest.approx(600.0, abs=1.0)  # doubles of this size are 0.06 J apart


def test_a_read_that_fails_is_none_and_the_next_goes_on() -> None:
    """Never 0."""
    found, smi = sensor()
    found.read()
    smi.failing = True
    failed = found.read()
    assert (failed.joules, failed.event) == (None, "failed")
    smi.failing = False
    smi.sleep(1.0)
    assert found.read().joules == pytest.approx(200.0, abs=1e-3)


@pytest.mark.parametrize(("gain", "believed"), [(0.05, False), (0.2, True), (5.0, True), (20.0, False)])
def test_a_counter_far_from_the_stated_power_is_not_believed(gain: float, believed: bool) -> None:
    """Held against it for half a second: a tenth to ten times is what an idle card's coarse mean explains."""
    if believed:
        assert sensor(gain=gain)[0].checked == pytest.approx(gain, rel=1e-3)
    else:
        with pytest.raises(NoSensorError, match="not to be believed"):
            sensor(gain=gain)


@pytest.mark.parametrize(
    ("behaviour", "told"),
    [
        ({"failing": True}, "no energy counter"),
        ({"stated": "N/A"}, "states no power"),
        ({"stated": 0, "name": "AMD Instinct MI250X"}, "second die of an MI250"),
        ({"bdfs": ["0000:05:00.0"]}, "does not know the card"),
        ({"bdfs": [f"{ADDRESS}.0", f"{ADDRESS}.1"]}, "split into partitions"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_its_reason(behaviour: dict[str, Any], told: str) -> None:
    """Each is a message with a remedy, and no figure."""
    with pytest.raises(NoSensorError, match=told):
        sensor(**behaviour)


def test_the_state_is_in_our_units() -> None:
    """MHz, degrees and watts out of MHz, thousandths of a degree and microwatts."""
    state = sensor()[0].state()
    assert (state.sm_clock_mhz, state.memory_clock_mhz) == (2100, 1300)
    assert (state.temperature_c, state.power_limit_w) == (61.0, 750.0)


def test_others_on_the_card_are_told_where_this_process_is_known() -> None:
    """In a container ids are the host's: then nobody is accused."""
    assert sensor(pids=[os.getpid(), 77])[0].foreign_processes() == (77,)
    assert sensor(pids=[77])[0].foreign_processes() == ()


def test_it_is_closed_once() -> None:
    """The binding is shut down, and the sensor says that it is closed."""
    found, smi = sensor()
    found.close()
    found.close()
    assert (smi.closed, found.available) == (1, False)


def test_a_binding_without_its_driver_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its import raises whatever it stumbles over, a KeyError among it; none is a traceback here."""

    class Broken:
        def find_spec(self, name: str, *_: Any) -> None:
            if name == "amdsmi":
                raise KeyError("ROCM_PATH")

    monkeypatch.delitem(sys.modules, "amdsmi", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(NoSensorError, match=r"cannot be imported \(KeyError") as caught:
        load_amdsmi()
    assert "uninstall amdsmi" in caught.value.remedy


def test_without_an_amd_card_the_sensor_is_absent_and_says_why() -> None:
    """On a torch for NVIDIA cards: an object, a reason, failed reads."""
    found = find_amdsmi("cuda:0")
    assert not found.available
    assert "built for NVIDIA cards" in found.problem
    assert found.read().joules is None


def test_the_card_of_torch_is_found_by_its_pci_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's `cuda:0` on ROCm: domain, bus and device of its properties."""
    smi = FakeAmdSmi()
    place = SimpleNamespace(pci_domain_id=0, pci_bus_id=0xC1, pci_device_id=0)
    monkeypatch.setattr("torch.version.hip", "6.4")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _device: place)
    monkeypatch.setattr("layerprof.hooks.energy.amdsmi.load_amdsmi", lambda: smi)
    monkeypatch.setattr("layerprof.hooks.energy.amdsmi.CHECK_S", 0.0)
    monkeypatch.setattr("layerprof.hooks.energy.amdsmi.BELIEVED", (-1.0, 1.0))
    found = find_amdsmi("cuda:0")
    assert found.available
    assert found.facts()["pci"] == ADDRESS
