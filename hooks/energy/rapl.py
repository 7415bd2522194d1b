"""Intel and AMD processors: RAPL energy counters through powercap (files) or perf (a system call).

Packages are summed, with DRAM beside them where it has an own counter. Cores, uncore and psys are left out: they lie
inside or around the package and would count twice.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from layerprof.hooks.energy.absent import AbsentSensor, NoSensorError

from layerprof.energy.counter import CounterRead, Event, Unwrapper
from layerprof.energy.instruments import Sensor
from layerprof.energy.sensor_record import State

POWERCAP = Path("/sys/class/powercap")
PERF = Path("/sys/bus/event_source/devices/power")
CPUINFO = Path("/proc/cpuinfo")
PARANOID = Path("/proc/sys/kernel/perf_event_paranoid")

MAX_POWER_W = 1500.0
"""More than any package takes; tells a wrap of the counter from a reset."""

UPDATE_S = 0.001
"""RAPL counters update about every millisecond."""


@dataclass
class Zone:
    """One counter: its name, how to read its joules (None: failed), at how many it wraps, and how to close it."""

    name: str
    read: Callable[[], float | None]
    wrap_j: float | None
    close: Callable[[], None] = lambda: None
    unwrapper: Unwrapper = field(init=False)

    def __post_init__(self) -> None:
        self.unwrapper = Unwrapper(self.wrap_j, MAX_POWER_W)


class RaplSensor:
    """The processor packages (and DRAM) of this machine as one counter.

    A read in which one zone fails is failed as a whole; a zone that was reset marks the read.
    """

    def __init__(
        self, zones: Sequence[Zone], source: str, name: str, now: Callable[[], float] = time.perf_counter
    ) -> None:
        self.zones = tuple(zones)
        self.source = source
        self.name = name
        self.scope = " + ".join(z.name for z in self.zones)
        self.available = True
        self.reason: str | None = None
        self.problem = ""
        self.remedy: str | None = None
        self.update_s: float | None = UPDATE_S
        self.duty = 1.0
        self.lag_s = 0.0
        self._now = now

    def read(self) -> CounterRead:
        """Read all zones; joules since the first read."""
        t_s = self._now()
        steps = [zone.unwrapper.feed(t_s, zone.read()) for zone in self.zones]
        events = [s.event for s in steps]
        if "failed" in events:
            return CounterRead(t_s, None, None, "failed")
        joules = sum(s.joules or 0.0 for s in steps)
        event: Event | None = "reset" if "reset" in events else "wrap" if "wrap" in events else None
        return CounterRead(t_s, joules, None, event)

    def foreign_processes(self) -> tuple[int, ...]:
        """Return nobody: a processor always runs others too, and the counter holds them all."""
        return ()

    def state(self) -> State:
        """Return an empty state: clocks of a processor vary by core."""
        return State(self._now())

    def facts(self) -> dict[str, Any]:
        """Return nothing beyond the source and the scope."""
        return {}

    def close(self) -> None:
        """Close the counters; reading afterwards fails."""
        for zone in self.zones:
            zone.close()
        self.available, self.reason = False, "the sensor was closed before it was read"


def find_rapl(powercap: Path = POWERCAP, perf: Path = PERF) -> Sensor:
    """Return the machine's RAPL sensor, or the absent one with the reason for each path tried. Never raises."""
    name = cpu_name()
    refusals = []
    for source, find, root in (("rapl_powercap", powercap_zones, powercap), ("rapl_perf", perf_zones, perf)):
        try:
            zones = find(root)
        except NoSensorError as error:
            refusals.append(error)
            continue
        return RaplSensor(zones, "rapl_virtualised" if is_virtual() else source, name)
    problem = "; ".join(r.problem for r in refusals)
    remedies = dict.fromkeys(r.remedy for r in refusals)
    return AbsentSensor(name, f"no energy counter for the processor: {problem}", "; or ".join(remedies))


def powercap_zones(root: Path = POWERCAP) -> list[Zone]:
    """Return the package and DRAM zones under a powercap folder. Raises NoSensorError."""
    if not root.is_dir():
        raise NoSensorError(f"{root} is not there", _how_to_get_it())
    zones: list[Zone] = []
    refused: list[Path] = []
    # intel-rapl-mmio shows the same packages a second time.
    for folder in sorted(root.glob("intel-rapl:*")):
        label = _text(folder / "name") or ""
        if not (label.startswith("package") or label == "dram"):
            continue
        counter = folder / "energy_uj"
        if _microjoules(counter) is None:
            refused.append(counter)
            continue
        limit = _text(folder / "max_energy_range_uj")
        wrap = float(limit) * 1e-6 if limit and limit.isdigit() else None
        zones.append(Zone(label, partial(_microjoules, counter), wrap))
    if refused:
        raise NoSensorError(
            f"{refused[0]} cannot be read (only root may, since CVE-2020-8694)",
            f"run as root, or let the administrator grant it (chmod -R a+r {root}/intel-rapl:*)",
        )
    if not zones:
        raise NoSensorError(f"{root} holds no RAPL package", _how_to_get_it())
    return _moving(zones)


def perf_zones(root: Path = PERF) -> list[Zone]:
    """Open `energy-pkg` (and `energy-ram`) on each package through perf. Raises NoSensorError."""
    kind = _text(root / "type")
    if kind is None:
        raise NoSensorError("perf has no power events", _how_to_get_it())
    zones: list[Zone] = []
    for event, label in (("energy-pkg", "package"), ("energy-ram", "dram")):
        config, scale = _text(root / "events" / event), _text(root / "events" / f"{event}.scale")
        if config is None or scale is None:
            continue
        for cpu in _cpus(_text(root / "cpumask") or "0"):
            opened = _perf_open(int(kind), int(config.split("=")[1], 16), cpu)
            reader = _perf_reader(opened, float(scale))
            zones.append(Zone(f"{label}-{len(zones)}", reader, None, partial(os.close, opened)))
    if not any(z.name.startswith("package") for z in zones):
        raise NoSensorError("perf has power events but none for the package", _how_to_get_it())
    return _moving(zones)


def is_virtual(cpuinfo: Path = CPUINFO) -> bool:
    """Whether the processor says that a hypervisor runs it."""
    text = _text(cpuinfo) or ""
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return "hypervisor" in flags.split()


def cpu_name(cpuinfo: Path = CPUINFO) -> str:
    """Return the processor's marketing name."""
    for line in (_text(cpuinfo) or "").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _how_to_get_it() -> str:
    if platform.system() != "Linux":
        return f"RAPL is read on Linux only, this is {platform.system()}"
    if platform.machine() not in ("x86_64", "AMD64", "i686"):
        return f"only Intel and AMD processors have it, this is {platform.machine()}"
    if is_virtual():
        return "a virtual machine gets energy counters only if its host passes them on: measure on bare metal"
    return "load the driver (modprobe intel_rapl_msr), or give the container /sys/class/powercap"


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _microjoules(path: Path) -> float | None:
    """Joules in a counter file; None for a failed read, never 0."""
    try:
        return int(path.read_text()) * 1e-6
    except (OSError, ValueError):
        return None


def _moving(zones: list[Zone], patience_s: float = 0.05) -> list[Zone]:
    """Return the zones if they move: a processor that runs this line uses energy every millisecond."""
    first = [z.read() for z in zones]
    deadline = time.perf_counter() + patience_s
    while time.perf_counter() < deadline:
        if [z.read() for z in zones] != first:
            return zones
    for zone in zones:
        zone.close()
    raise NoSensorError("the RAPL counters stand still, as virtual machines show them", "measure on the host itself")


def _cpus(mask: str) -> list[int]:
    """Processors of a kernel list such as `0,64` or `0-1`."""
    found: list[int] = []
    for part in mask.split(","):
        low, _, high = part.partition("-")
        found.extend(range(int(low), int(high or low) + 1))
    return found


def _perf_open(kind: int, config: int, cpu: int) -> int:
    """Open one system-wide perf event (perf_event_open(2)) and return its descriptor. Raises NoSensorError."""
    number = {"x86_64": 298, "AMD64": 298, "i686": 336}.get(platform.machine())
    if number is None:
        raise NoSensorError("perf has no power events", _how_to_get_it())
    attributes = struct.pack("=IIQ", kind, 64, config).ljust(64, b"\0")
    libc = ctypes.CDLL(None, use_errno=True)
    opened = libc.syscall(number, ctypes.c_char_p(attributes), -1, cpu, -1, 0)
    if opened >= 0:
        return int(opened)
    error = os.strerror(ctypes.get_errno())
    raise NoSensorError(
        f"perf refused its power events ({error}; kernel.perf_event_paranoid is {_text(PARANOID) or 'unknown'})",
        "set it to 0 or lower (sysctl kernel.perf_event_paranoid=0), or give the process CAP_PERFMON",
    )


def _perf_reader(descriptor: int, scale: float) -> Callable[[], float | None]:
    def read() -> float | None:
        with contextlib.suppress(OSError, struct.error):
            return float(struct.unpack("=Q", os.read(descriptor, 8))[0]) * scale
        return None

    return read
