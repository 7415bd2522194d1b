"""Zeus as a sensor, against fakes of its devices whose joules are known."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from fake_zeus import AMDGPUs, AppleSilicon, FakeGpu, FakeZeus, Jetson, NVIDIAGPUs
from layerprof.hooks.energy import zeus
from layerprof.hooks.energy.meter import EnergyMeter, find_sensors

from layerprof.energy.instruments import Sensor
from layerprof.settings import EnergySensor

UUID = "b5a1c0de-0000-1111-2222-333344445555"


@pytest.fixture
def one_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's `cuda:0` is the card of `UUID`, which pynvml finds by the handle that Zeus has."""
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _index: SimpleNamespace(uuid=UUID))
    monkeypatch.setitem(sys.modules, "pynvml", SimpleNamespace(nvmlDeviceGetUUID=lambda handle: f"GPU-{handle}"))


def found(monkeypatch: pytest.MonkeyPatch, device: str, **devices: Any) -> Sensor:
    """Return the sensor of a device on a machine with these."""
    monkeypatch.setattr(zeus, "load_zeus", lambda: FakeZeus(**devices))
    sensor: Sensor = zeus.find_zeus(device)
    return sensor


@pytest.mark.usefixtures("one_card")
def test_the_card_of_torch_is_found_by_uuid_and_read_in_joules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Zeus lists it second; 1,234 mJ later is 1.234 J."""
    card = FakeGpu(UUID)
    sensor = found(monkeypatch, "cuda:0", gpus=NVIDIAGPUs([FakeGpu("another", millijoules=1), card]))
    assert (sensor.available, sensor.source, sensor.scope) == (True, "zeus_nvml", "board")
    assert sensor.read().joules == 0.0
    card.millijoules = 5_001_234
    assert sensor.read().joules == pytest.approx(1.234)
    card.millijoules = None
    assert sensor.read().joules is None


@pytest.mark.usefixtures("one_card")
def test_a_card_that_zeus_does_not_list_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other card is taken instead."""
    sensor = found(monkeypatch, "cuda:0", gpus=NVIDIAGPUs([FakeGpu("another")]))
    assert not sensor.available
    assert "does not know the card that torch uses" in sensor.problem


def test_amds_cards_are_counted_as_hip_counts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """`cuda:1` of a torch for ROCm is the second."""
    sensor = found(monkeypatch, "cuda:1", gpus=AMDGPUs([FakeGpu(millijoules=1), FakeGpu(millijoules=7_000)]))
    assert sensor.source == "zeus_amdsmi"
    assert not found(monkeypatch, "cuda:2", gpus=AMDGPUs([FakeGpu()])).available


@pytest.mark.usefixtures("one_card")
def test_a_card_without_a_counter_is_an_integral_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """300 W for 2 s are 600 J; label and flag tell that no counter was read."""
    sensor = found(monkeypatch, "cuda:0", gpus=NVIDIAGPUs([FakeGpu(UUID, millijoules=None)]))
    assert isinstance(sensor, zeus.ZeusSensor)
    times = iter([0.0, 0.0, 2.0, 2.0])
    sensor._now = lambda: next(times)
    assert sensor.source == "zeus_nvml_power_integral"
    assert [sensor.read().joules for _ in range(2)] == [0.0, pytest.approx(600.0)]


def test_a_jetson_is_not_called_a_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its total stands for its parts; Zeus looks at its power every 0.1 s, and the windows carry the flag."""
    board = Jetson()
    for device in ("cuda:0", "cpu"):
        sensor = found(monkeypatch, device, soc=board)
        assert (sensor.source, sensor.update_s) == ("zeus_soc_power_integral", 0.1)
    sensor.read()
    board.total_mj = 3_500.0
    assert sensor.read().joules == pytest.approx(2.5)
    with EnergyMeter("cpu", [sensor]) as meter, meter.window("all", quiet_s=0.0):
        pass
    (window,) = meter.reading().windows
    assert "power integrated" in window.flags


def test_apples_chip_is_the_sum_of_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processor, graphics and memory; what it does not state is left out."""
    chip = AppleSilicon()
    sensor = found(monkeypatch, "cpu", soc=chip)
    sensor.read()
    chip.gpu_mj = 2_000.0
    assert sensor.source == "zeus_soc"
    assert sensor.read().joules == pytest.approx(1.0)


def test_the_packages_of_a_processor_are_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two packages, one with memory of its own: 1 J and 2 J more, and 0.5 J."""
    cpus: list[tuple[float, float | None]] = [(1_000.0, 100.0), (5_000.0, None)]
    sensor = found(monkeypatch, "cpu", cpus=cpus)
    sensor.read()
    cpus[:] = [(2_000.0, 600.0), (7_000.0, None)]
    assert sensor.source == "zeus_rapl"
    assert sensor.read().joules == pytest.approx(3.5)


def test_where_zeus_reads_nothing_all_that_was_tried_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine without any of it: an object, every reason, failed reads."""
    sensor = found(monkeypatch, "cpu")
    assert "No observable SoC; zeus found no processors: RAPL unavailable" in sensor.problem
    assert sensor.read().joules is None
    assert "/sys/class/powercap" in str(sensor.remedy)
    assert "doctor" not in str(sensor.remedy)  # which shows this very remedy


def test_a_zeus_that_is_not_there_says_how_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The remedy is a command."""
    monkeypatch.setitem(sys.modules, "zeus", None)
    sensor = zeus.find_zeus("cpu")
    assert (sensor.problem, sensor.remedy) == ("no energy counter for cpu: zeus is not installed", "pip install zeus")


@pytest.mark.parametrize(
    ("device", "sensor", "told"),
    [
        ("cpu", "nvml", "nvml reads cards, and the device is cpu"),
        ("cpu", "amdsmi", "amdsmi reads cards, and the device is cpu"),
        ("cuda:0", "rapl", "rapl reads the processor, and the device is cuda:0"),
        ("xpu:0", "zeus", "knows no energy sensor for a xpu device"),
    ],
)
def test_a_sensor_of_something_else_is_absent(device: str, sensor: EnergySensor, told: str) -> None:
    """Whatever the machine."""
    (absent,) = find_sensors(device, sensor)
    assert told in absent.problem.replace("xpu:0 device", "xpu device")


def test_the_maker_of_the_card_decides_where_nobody_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch for ROCm calls its cards `cuda:0`, too; beside the card stands the host."""
    monkeypatch.setattr("torch.version.hip", "6.4")
    monkeypatch.setattr(
        "layerprof.hooks.energy.amdsmi.find_amdsmi", lambda device: SimpleNamespace(source=f"amd {device}")
    )
    assert find_sensors("cuda:0")[0].source == "amd cuda:0"
    monkeypatch.setattr("torch.version.hip", None)
    monkeypatch.setattr(
        "layerprof.hooks.energy.nvml.find_nvml", lambda device: SimpleNamespace(source=f"nvidia {device}")
    )
    card, host = find_sensors("cuda:0")
    assert card.source == "nvidia cuda:0"
    assert host.name
