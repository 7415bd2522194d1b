"""What the doctor says about a machine, from sensors and devices whose state is known."""

from __future__ import annotations

import http.server
import io
import json
import os
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from fake_counter import FakeClock, FakeCounter, Machine
from fake_nvml import UUID, FakeNvml
from fake_profiler import FakeProfiler, probed
from layerprof.hooks.energy.absent import AbsentSensor, NoSensorError
from layerprof.hooks.energy.nvml import NvmlSensor
from layerprof.hooks.energy.selftest import square_wave
from rich.console import Console

from layerprof.doctor import examine, network, profiler, room
from layerprof.doctor.findings import Answer, Examination, Finding
from layerprof.energy.counter import CounterRead
from layerprof.energy.selftest import SelfTest
from layerprof.registry import Kind
from layerprof.report import doctor as view


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test may ask the network."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def _load(monkeypatch: pytest.MonkeyPatch, **instruments: Any) -> None:
    def load(kind: Kind[Any]) -> Any:
        return instruments[kind.name]

    monkeypatch.setattr("layerprof.registry.load", load)


def _finding(result: Examination, group: str, name: str) -> Finding:
    return next(f for f in result.findings if (f.group, f.name) == (group, name))


def _answer(result: Examination, quantity: str) -> Answer:
    return next(a for a in result.answers if a.quantity == quantity)


@pytest.mark.usefixtures("offline")
def test_a_machine_without_counters_is_told_what_was_tried_and_what_would_help(monkeypatch: pytest.MonkeyPatch) -> None:
    """Energy: no, with problem and remedy; FLOPs and latency: yes all the same."""
    absent = AbsentSensor("Some CPU", "/sys/class/powercap is not there", "measure on bare metal")
    _load(monkeypatch, rapl=lambda: absent)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    result = examine.examine()
    host = _finding(result, "energy", "host")
    assert (host.state, host.detail, host.remedy) == ("no", absent.problem, absent.remedy)
    assert _answer(result, "energy of the device").state == "no"
    assert _answer(result, "energy per layer").state == "no"
    assert _answer(result, "FLOPs and bytes").state == "yes"
    assert _answer(result, "latency per layer").how == "host clock"


@pytest.mark.usefixtures("offline")
def test_a_working_host_counter_makes_energy_measurable_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host is the device: its counter is the answer, with its source."""
    machine = Machine(FakeClock())
    _load(monkeypatch, rapl=lambda: FakeCounter(machine, source="rapl_powercap", scope="package-0"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    result = examine.examine()
    assert _answer(result, "energy of the device").how == "rapl_powercap: package-0"
    assert "replay" in _answer(result, "energy per layer").how


@pytest.mark.usefixtures("offline")
def test_a_check_that_breaks_is_a_finding_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that throws something nobody foresaw: its own words, no traceback."""

    def broken() -> None:
        raise OSError("the bus is on fire")

    _load(monkeypatch, rapl=broken)
    result = examine.examine()
    host = _finding(result, "energy", "host")
    assert host.state == "unknown"
    assert "the bus is on fire" in host.detail
    assert _finding(result, "machine", "disk").state in ("yes", "partly")


@pytest.mark.usefixtures("offline")
def test_offline_by_setting_is_told_apart_and_names_the_ways_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """HF_HUB_OFFLINE is a choice, not a fault."""
    _load(monkeypatch)
    hub = _finding(examine.examine(), "network", "hub")
    assert "HF_HUB_OFFLINE" in hub.detail
    assert "--source bundled" in str(hub.remedy)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("version", [None, "0.16.0"])
def test_zeus_is_named_with_what_it_reads_here(monkeypatch: pytest.MonkeyPatch, version: str | None) -> None:
    """Installed: its sensor, with the option that takes it; not installed: what installs it."""
    machine = Machine(FakeClock())
    jetson = FakeCounter(machine, source="zeus_soc_power_integral", name="Jetson")
    _load(monkeypatch, rapl=lambda: AbsentSensor("CPU", "none", "none"), zeus=lambda device: jetson)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("layerprof.doctor.energy.package_version", lambda _name: version)
    found = _finding(examine.examine(), "energy", "zeus")
    if version is None:
        assert (found.state, found.remedy) == ("info", "pip install 'layerprof[zeus]'")
    else:
        assert found.state == "yes"
        assert "zeus_soc_power_integral of Jetson" in found.detail
        assert "--energy-sensor zeus" in found.detail


class _Answering(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_response(self.server.status)  # type: ignore[attr-defined]  # set by the fixture
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[http.server.HTTPServer]:
    """Serve a hub on this machine."""
    server = http.server.HTTPServer(("127.0.0.1", 0), _Answering)
    server.status = 200  # type: ignore[attr-defined]  # read by the handler
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("status", "state"), [(200, "yes"), (503, "no")])
def test_a_hub_that_answers_is_told_from_one_that_refuses(
    monkeypatch: pytest.MonkeyPatch, hub: http.server.HTTPServer, status: int, state: str
) -> None:
    """The endpoint is that of HF_ENDPOINT, as for the downloads themselves."""
    hub.status = status  # type: ignore[attr-defined]  # read by the handler
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{hub.server_port}/")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    asked = network.Hub()
    asked.start()
    (found,) = asked.findings()
    assert found.state == state
    assert str(status) in found.detail


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "nonsense"])
def test_a_hub_that_cannot_be_reached_is_offline(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """A closed port, an endpoint that is no address: said, not thrown."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    asked = network.Hub()
    asked.start()
    (found,) = asked.findings()
    assert found.state == "no"
    assert found.detail.startswith("offline")


@pytest.mark.usefixtures("offline")
def test_the_examination_reads_the_same_as_json_and_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every finding and every remedy in both; narrow terminals lose no word."""
    absent = AbsentSensor("Some CPU", "no [powercap] here", "modprobe intel_rapl_msr")
    _load(monkeypatch, rapl=lambda: absent)
    result = examine.examine()
    loaded = json.loads(examine.to_json(result))
    assert [f["name"] for f in loaded["findings"]] == [f.name for f in result.findings]
    out = io.StringIO()
    view.render(result, Console(file=out, width=60))
    shown = " ".join(out.getvalue().split())
    assert "no [powercap] here" in shown
    assert "remedy: modprobe intel_rapl_msr" in shown
    assert all(a.quantity in shown for a in result.answers)


@pytest.mark.usefixtures("offline")
def test_a_card_with_a_counter_is_examined_by_its_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shared card under a power cap, whose counter passed the square wave: each is a finding of its own."""
    card = SimpleNamespace(name="NVIDIA H100", uuid=UUID, multi_processor_count=132, major=9, minor=0)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _index: card)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _index: (60e9, 80e9))
    nvml = FakeNvml(pids=[os.getpid(), 77], reasons=4)
    passed = SelfTest(0.1, 0.05, 80.0, 600.0, 1.01, 0.002, 90, 0)
    _load(
        monkeypatch,
        rapl=lambda: AbsentSensor("CPU", "none", "none"),
        nvml=lambda device, power: NvmlSensor(UUID, nvml, power=power, own_context=lambda: True),
        selftest=lambda device, sensor: passed,
    )
    result = examine.examine()
    counter = _finding(result, "energy", "cuda:0")
    assert (counter.state, counter.facts["uuid"]) == ("yes", f"GPU-{UUID}")
    assert "power cap" in _finding(result, "energy", "cuda:0 clocks").detail
    assert "77" in _finding(result, "energy", "cuda:0 sharing").detail
    assert "100 ms" in _finding(result, "energy", "cuda:0 square wave").detail
    assert _answer(result, "energy per layer").state == "yes"
    assert _answer(result, "latency per layer").how == "CUDA events"
    assert json.loads(examine.to_json(result))


@pytest.mark.usefixtures("offline")
def test_a_card_split_by_mig_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Energy: no; the rest of the card is as good as ever."""
    card = SimpleNamespace(name="NVIDIA H100 MIG 1g", uuid=UUID, multi_processor_count=16, major=9, minor=0)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _index: card)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _index: (4e9, 10e9))
    _load(monkeypatch, rapl=lambda: AbsentSensor("CPU", "none", "none"), nvml=_mig)
    result = examine.examine()
    assert "MIG" in _finding(result, "energy", "cuda:0").detail
    assert "nvidia-smi -mig 0" in str(_finding(result, "energy", "cuda:0").remedy)
    assert _finding(result, "device", "cuda:0").state == "partly"


def test_memory_is_what_programs_can_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 16 GB, 3 lie idle and 9 more only cache files, which the system gives up when it is asked."""
    memory = SimpleNamespace(total=16_000_000_000, free=3_000_000_000, available=12_000_000_000)
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)
    (found,) = room.memory()
    assert found.detail == "12.0 of 16.0 GB free"
    assert found.facts == {"total": 16_000_000_000, "free": 12_000_000_000}


def _mig(device: str, power: bool) -> AbsentSensor:
    with pytest.raises(NoSensorError) as caught:
        NvmlSensor(UUID, FakeNvml(mig=1), power=power)
    return AbsentSensor(device, caught.value.problem, caught.value.remedy)


# --- the square wave ---------------------------------------------------------------------------------------------


class _WithPower(FakeCounter):
    """A counter that also states its instant power."""

    def read(self) -> CounterRead:
        """Read, with the machine's power now."""
        found = super().read()
        return CounterRead(found.t_s, found.joules, self.machine.energy(found.t_s - 1e-3, found.t_s) * 1e3, found.event)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("card", "state", "detail", "remedy"),
    [
        (FakeProfiler(), "yes", "traces can be trusted: 80 launches in 2 recordings, none lost", None),
        (FakeProfiler(slows=0.2), "yes", "afterwards work takes +20 %", "recorded nothing"),
        (FakeProfiler(per_session=20), "partly", "traces are not whole", "every run counts"),
        (FakeProfiler(blind=True), "no", "none of it was recorded", "another profiler"),
    ],
)
def test_a_profiler_is_probed_and_the_doctor_says_whether_traces_can_be_trusted(
    card: FakeProfiler, state: str, detail: str, remedy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CUDA machine: the verdict, what would help, and the figures of every recording."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    _load(monkeypatch, probe=lambda device: probed(card))
    (found,) = profiler.profiler()
    assert (found.name, found.state) == ("CUPTI", state)
    assert detail in found.detail
    assert found.remedy is None if remedy is None else remedy in str(found.remedy)
    assert len(found.facts["sessions"]) == 5


@pytest.mark.parametrize("late_s", [0.0, 0.1])
def test_the_square_wave_finds_period_lag_levels_and_gain(late_s: float) -> None:
    """A counter of 0.1 s steps, 80 W idle, 400 W load, known lag."""
    clock = FakeClock()
    machine = Machine(clock)
    test = square_wave(_WithPower(machine, late_s=late_s), lambda s: machine.run(400.0, s), clock)
    assert test.period_s == pytest.approx(0.1, rel=0.05)
    assert test.lag_s == pytest.approx(late_s, abs=0.015)
    assert test.idle_w == pytest.approx(80, rel=0.05)
    assert test.load_w == pytest.approx(400, rel=0.02)
    assert test.gain == pytest.approx(1.0, abs=0.03)
    assert test.verdict == "good"


@pytest.mark.parametrize(
    ("faults", "word"),
    [({"gain": 0.8}, "0.80 times"), ({"late_s": 0.4}, "lags by"), ({"stale": 1.0}, "did not move")],
)
def test_the_square_wave_says_what_is_wrong_with_a_counter(faults: dict[str, float], word: str) -> None:
    """A wrong gain, a lag beyond what windows allow for, a counter that stands still."""
    clock = FakeClock()
    machine = Machine(clock)
    test = square_wave(_WithPower(machine, **faults), lambda s: machine.run(400.0, s), clock)  # type: ignore[arg-type]  # free settings
    assert word in test.verdict


def test_the_square_wave_notices_the_counter_of_another_card() -> None:
    """The load runs here, the counter counts there."""
    clock = FakeClock()
    other = FakeCounter(Machine(clock))
    assert "belong" in square_wave(other, clock.sleep, clock).verdict
