"""The processor's energy counters from files written by hand: powercap zones, perf events, and why there are none."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from layerprof.hooks.energy import rapl


def _zone(root: Path, folder: str, name: str, microjoules: int, limit: int = 262_143_328_850) -> Path:
    zone = root / folder
    zone.mkdir(parents=True)
    (zone / "name").write_text(f"{name}\n")
    (zone / "energy_uj").write_text(f"{microjoules}\n")
    (zone / "max_energy_range_uj").write_text(f"{limit}\n")
    return zone / "energy_uj"


@pytest.fixture
def moving(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counters that a test writes by hand do not move by themselves."""
    monkeypatch.setattr(rapl, "_moving", lambda zones: zones)
    monkeypatch.setattr(rapl, "is_virtual", lambda: False)


@pytest.mark.usefixtures("moving")
def test_rapl_sums_packages_and_dram_and_leaves_out_what_overlaps(tmp_path: Path) -> None:
    """Cores lie inside the package, psys around it, mmio shows it twice: only packages and DRAM are added."""
    packages = [_zone(tmp_path, f"intel-rapl:{k}", f"package-{k}", 10**6 * k) for k in (0, 1)]
    dram = _zone(tmp_path, "intel-rapl:0:1", "dram", 500)
    for folder, name in (("intel-rapl:0:0", "core"), ("intel-rapl:2", "psys"), ("intel-rapl-mmio:0", "package-0")):
        _zone(tmp_path, folder, name, 7)
    sensor = rapl.find_rapl(tmp_path, tmp_path / "no-perf")
    assert (sensor.source, sensor.scope) == ("rapl_powercap", "package-0 + dram + package-1")
    assert sensor.read().joules == 0.0
    packages[0].write_text("3000000")
    packages[1].write_text("1500000")
    dram.write_text("250500")
    assert sensor.read().joules == pytest.approx(3.0 + 0.5 + 0.25)


@pytest.mark.usefixtures("moving")
def test_rapl_undoes_a_wrap_of_one_package_and_fails_as_a_whole(tmp_path: Path) -> None:
    """One package wraps: its joules go on. One package cannot be read: no sum of the others under the full name."""
    files = [_zone(tmp_path, f"intel-rapl:{k}", f"package-{k}", 99_000_000, 100_000_000) for k in (0, 1)]
    sensor = rapl.find_rapl(tmp_path, tmp_path / "no-perf")
    sensor.read()
    files[0].write_text("1000000")
    files[1].write_text("99500000")
    sample = sensor.read()
    assert sample.joules == pytest.approx(2.5)
    assert sample.event == "wrap"
    files[1].write_text("")
    assert sensor.read().joules is None


@pytest.mark.usefixtures("moving")
def test_rapl_marks_a_reset(tmp_path: Path) -> None:
    """A fall in the middle of the range, confirmed by the next read."""
    counter = _zone(tmp_path, "intel-rapl:0", "package-0", 150_000_000_000)
    sensor = rapl.find_rapl(tmp_path, tmp_path / "no-perf")
    sensor.read()
    counter.write_text("1000")
    assert sensor.read().event == "failed"
    counter.write_text("2000")
    assert sensor.read().event == "reset"


def test_rapl_that_may_not_be_read_names_the_file_and_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root only since CVE-2020-8694: a refusal is not an absence."""
    _zone(tmp_path, "intel-rapl:0", "package-0", 5)
    monkeypatch.setattr(rapl, "_microjoules", lambda path: None)
    sensor = rapl.find_rapl(tmp_path, tmp_path / "no-perf")
    assert not sensor.available
    assert "intel-rapl:0/energy_uj" in str(sensor.reason)
    assert "chmod" in str(sensor.reason)


def test_rapl_that_stands_still_is_no_sensor(tmp_path: Path) -> None:
    """A virtual machine that shows a counter of zero uses energy all the same."""
    _zone(tmp_path, "intel-rapl:0", "package-0", 0)
    sensor = rapl.find_rapl(tmp_path, tmp_path / "no-perf")
    assert not sensor.available
    assert "stand still" in str(sensor.reason)


def test_rapl_reasons_tell_what_was_tried(tmp_path: Path) -> None:
    """Neither interface: both are named, so that a user knows which of them to get."""
    sensor = rapl.find_rapl(tmp_path / "none", tmp_path / "no-perf")
    assert str(tmp_path / "none") in str(sensor.reason)
    assert "perf has no power events" in str(sensor.reason)


def _perf(root: Path) -> Path:
    (root / "events").mkdir(parents=True)
    (root / "type").write_text("14\n")
    (root / "cpumask").write_text("0,32\n")
    (root / "events" / "energy-pkg").write_text("event=0x02\n")
    (root / "events" / "energy-pkg.scale").write_text("2.3283064365386962890625e-10\n")
    return root


@pytest.mark.usefixtures("moving")
def test_rapl_reads_perf_counters_of_every_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Event 2 of type 14 on processors 0 and 32; 2^32 units of 2^-32 J are 1 J each."""
    opened: list[tuple[int, int, int]] = []

    def fake_open(kind: int, config: int, cpu: int) -> int:
        opened.append((kind, config, cpu))
        return os.open(tmp_path / f"counter-{cpu}", os.O_RDWR | os.O_CREAT)

    monkeypatch.setattr(rapl, "_perf_open", fake_open)
    for cpu in (0, 32):
        (tmp_path / f"counter-{cpu}").write_bytes((2**32).to_bytes(8, "little") + (3 * 2**32).to_bytes(8, "little"))
    sensor = rapl.find_rapl(tmp_path / "none", _perf(tmp_path / "power"))
    assert opened == [(14, 2, 0), (14, 2, 32)]
    assert sensor.source == "rapl_perf"
    assert sensor.read().joules == 0.0
    assert sensor.read().joules == pytest.approx(4.0)
    assert sensor.read().joules is None
    sensor.close()


def test_rapl_perf_refused_names_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel's refusal means, in its own setting's name."""
    paranoid = tmp_path / "paranoid"
    paranoid.write_text("4\n")
    monkeypatch.setattr(rapl, "PARANOID", paranoid)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: SimpleNamespace(syscall=lambda *_: -1))
    monkeypatch.setattr("ctypes.get_errno", lambda: errno.EACCES)
    sensor = rapl.find_rapl(tmp_path / "none", _perf(tmp_path / "power"))
    assert "Permission denied; kernel.perf_event_paranoid is 4" in str(sensor.reason)
    assert "CAP_PERFMON" in str(sensor.reason)


def test_a_virtual_machine_is_known_by_its_flag(tmp_path: Path) -> None:
    """And its RAPL, where it has one, is labelled `rapl_virtualised`."""
    info = tmp_path / "cpuinfo"
    info.write_text("model name\t: AMD EPYC 7763\nflags\t\t: fpu hypervisor avx2\n")
    assert rapl.is_virtual(info)
    assert rapl.cpu_name(info) == "AMD EPYC 7763"
    info.write_text("flags\t\t: fpu avx2\n")
    assert not rapl.is_virtual(info)
