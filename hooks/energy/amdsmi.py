"""AMD cards, through AMD's own binding `amdsmi` (it comes with ROCm): energy counter, clocks, heat, other processes.

The counter is `energy_accumulator * counter_resolution` in microjoules since the last restart or reset of the card
(amdsmi's Python reference, `amdsmi_get_energy_count`; before 6.2.1 the first is called `power`). On some cards and
drivers it is not to be believed (ROCm/amdsmi#38, ml-energy/zeus#113), so that it is held against the power that the
card states for half a second before it is used. Of the two dies of an MI250 the first counts for both, the second for
none.

torch calls AMD's cards `cuda:N`. A card is found by its PCI address, never by an index: ROCm and amdsmi count cards in
different orders, and `HIP_VISIBLE_DEVICES` renumbers one of them.
"""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import Callable
from typing import Any

from layerprof.hooks.energy.absent import AbsentSensor, NoSensorError

from layerprof.energy.counter import CounterRead, Unwrapper
from layerprof.energy.fit import LAG_MAX_S
from layerprof.energy.instruments import Sensor
from layerprof.energy.sensor_record import State

CHECK_S = 0.5
"""Seconds for which the counter is held against the stated power."""
BELIEVED = (0.1, 10.0)
"""Counter over stated power times time, between which it is believed: an idle card's power is a coarse mean."""
RANGE = 2**64
"""Counts after which the accumulator, an unsigned 64-bit number, begins anew."""

_NONE = "the card has no energy counter (virtual machines and many cards for desktops have none)"
_ELSEWHERE = "measure on another card, or give its power with --assume-watts W for an estimate"


def load_amdsmi() -> Any:
    """Import amdsmi and initialise it. Raises NoSensorError."""
    try:
        # Where the driver's library is not found it prints, and raises whatever it stumbles over.
        with contextlib.redirect_stdout(io.StringIO()):
            import amdsmi
    except ImportError as error:
        raise NoSensorError(
            "the module amdsmi is missing", "install the one of your ROCm (pip install /opt/rocm/share/amd_smi)"
        ) from error
    except Exception as error:
        raise NoSensorError(
            f"amdsmi cannot be imported ({type(error).__name__}: {error})",
            "install AMD's driver and the amdsmi of the same ROCm; without an AMD card, uninstall amdsmi",
        ) from error
    try:
        amdsmi.amdsmi_init()
    except amdsmi.AmdSmiException as error:
        raise NoSensorError(f"amdsmi answered: {error}", "look whether amd-smi works on this machine") from error
    return amdsmi


def pci_address(device: str) -> str:
    """Return domain, bus and device of a torch device (`0000:c1:00`). Raises NoSensorError where there is none."""
    import torch

    if torch.version.hip is None:
        raise NoSensorError("this torch is built for NVIDIA cards", "use --energy-sensor auto or nvml")
    if not torch.cuda.is_available():
        raise NoSensorError("torch sees no AMD card", "`layerprof doctor` says why")
    found: Any = torch.cuda.get_device_properties(torch.device(device))  # torch's own types lack the address
    return f"{found.pci_domain_id:04x}:{found.pci_bus_id:02x}:{found.pci_device_id:02x}"


class AmdSmiSensor:
    """The counter of one card, `amdsmi_counter`.

    `address` is its PCI address without the function; `smi` is the module amdsmi, initialised (a fake in tests). The
    counter is checked for `CHECK_S` seconds first. Raises NoSensorError where nothing can be read, or not be believed.
    """

    source = "amdsmi_counter"
    scope = "board"

    def __init__(
        self,
        address: str,
        smi: Any,
        *,
        power: bool = False,
        now: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._smi, self._now = smi, now
        self._handle = self._find(address)
        card = _told(self._call("amdsmi_get_gpu_asic_info"), "market_name") or "AMD card"
        self.name = f"{card} ({address})"
        self.address = address
        self.with_power = power
        self._check(str(card), sleep)
        self._unwrapper = Unwrapper(RANGE * self._resolution * 1e-6)
        self.available = True
        self.reason: str | None = None
        self.problem = ""
        self.remedy: str | None = None
        self.update_s: float | None = None
        self.duty = 1.0
        self.lag_s = LAG_MAX_S

    def read(self) -> CounterRead:
        """Read joules (and, if asked for, the stated watts); the time is the middle of the call."""
        before = self._now()
        power = self._power() if self.with_power else None
        raw = self._joules()
        t_s = (before + self._now()) / 2
        step = self._unwrapper.feed(t_s, raw)
        return CounterRead(t_s, step.joules, power, step.event)

    def foreign_processes(self) -> tuple[int, ...]:
        """Return process ids of others on the card, where this process is among those listed; else nobody is told."""
        listed = self._call("amdsmi_get_gpu_process_list") or ()
        pids = {pid for entry in listed if isinstance(pid := _told(entry, "pid"), int)}
        return tuple(sorted(pids - {os.getpid()})) if os.getpid() in pids else ()

    def state(self) -> State:
        """Return clocks, the temperature of the hottest spot, and the power limit."""
        smi = self._smi
        heat = self._call("amdsmi_get_temp_metric", *_named(smi, "AmdSmiTemperatureType.HOTSPOT", _CURRENT))
        cap = _number(_told(self._call("amdsmi_get_power_cap_info"), "power_cap"))
        return State(
            t_s=self._now(),
            sm_clock_mhz=self._clock("GFX"),
            memory_clock_mhz=self._clock("MEM"),
            temperature_c=None if _number(heat) is None else float(heat) / 1000,
            power_limit_w=None if cap is None else cap * 1e-6,
        )

    def facts(self) -> dict[str, Any]:
        """Return what describes the card beside its state: driver, PCI address, resolution, default limit."""
        limit = _number(_told(self._call("amdsmi_get_power_cap_info"), "default_power_cap"))
        return {
            "name": self.name,
            "pci": self.address,
            "driver": _told(self._call("amdsmi_get_gpu_driver_info"), "driver_version"),
            "resolution_uj": self._resolution,
            "default_power_limit_w": None if limit is None else limit * 1e-6,
            "counter_over_power": self.checked,
            "scope": self.scope,
            "duty": self.duty,
        }

    def close(self) -> None:
        """Shut amdsmi down."""
        if self.available:
            self.available = False
            self.reason = "the sensor was closed before it was read"
            with contextlib.suppress(self._smi.AmdSmiException):
                self._smi.amdsmi_shut_down()

    def _find(self, address: str) -> Any:
        handles = [
            handle
            for handle in self._smi.amdsmi_get_processor_handles()
            if str(self._smi.amdsmi_get_gpu_device_bdf(handle)).lower().rpartition(".")[0] == address
        ]
        if not handles:
            raise NoSensorError(
                "amdsmi does not know the card that torch uses",
                "give this process access to it (the devices /dev/kfd and /dev/dri, groups video and render)",
            )
        if len(handles) > 1:
            raise NoSensorError(
                "the card is split into partitions, and has one energy counter for all of them",
                "run on a whole card (amd-smi set --compute-partition SPX), or take another one",
            )
        return handles[0]

    def _check(self, card: str, sleep: Callable[[float], None]) -> None:
        """Hold the counter against the stated power."""
        found = self._call("amdsmi_get_energy_count")
        resolution = _number(_told(found, "counter_resolution"))
        if not resolution:
            raise NoSensorError(_NONE, _ELSEWHERE)
        self._resolution = resolution
        first, power, start = self._joules(), self._power(), self._now()
        sleep(CHECK_S)
        last, seconds = self._joules(), self._now() - start
        if first is None or last is None or not power:
            if "MI250" in card:
                raise NoSensorError(
                    "the second die of an MI250 has no counter, the first counts for both",
                    "run on the other die of the pair, and remember that its joules are of both",
                )
            raise NoSensorError(
                "the card states no power, against which its counter could be checked" if not power else _NONE,
                _ELSEWHERE,
            )
        self.checked = (last - first) / (power * seconds)
        if not BELIEVED[0] < self.checked < BELIEVED[1]:
            raise NoSensorError(
                f"the card's counter is not to be believed: over {CHECK_S:g} s it showed {self.checked:.3g} times "
                "its stated power",
                "update ROCm, or measure on another card",
            )

    def _joules(self) -> float | None:
        found = self._call("amdsmi_get_energy_count")
        count = _number(_told(found, "energy_accumulator"))
        count = _number(_told(found, "power")) if count is None else count
        return None if count is None else count * self._resolution * 1e-6

    def _power(self) -> float | None:
        """Watts as the card states them: instant where it does, else its mean."""
        told = self._call("amdsmi_get_power_info")
        names = ("current_socket_power", "average_socket_power", "socket_power")
        return next((found for name in names if (found := _number(_told(told, name)))), None)

    def _clock(self, which: str) -> float | None:
        return _number(_told(self._call("amdsmi_get_clock_info", *_named(self._smi, f"AmdSmiClkType.{which}")), "clk"))

    def _call(self, name: str, *more: Any) -> Any:
        """Call a function on the card; None where the card, the driver or the binding does not know it."""
        function = getattr(self._smi, name, None)
        if function is None:
            return None
        try:
            return function(self._handle, *more)
        except (self._smi.AmdSmiException, TypeError, KeyError):
            return None


_CURRENT = "AmdSmiTemperatureMetric.CURRENT"


def _named(smi: Any, *paths: str) -> list[Any]:
    """Return members of the binding's enumerations; shorter where it has no such one, so that the call fails."""
    kinds = [(getattr(smi, kind, None), member) for kind, member in (path.split(".") for path in paths)]
    return [getattr(kind, member) for kind, member in kinds if hasattr(kind, member)]


def _told(found: Any, name: str) -> Any:
    return found.get(name) if isinstance(found, dict) else None


def _number(value: Any) -> float | None:
    """Return a number; None for the `N/A` that stands for what a card does not tell."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def find_amdsmi(device: str = "cuda:0", *, power: bool = False) -> Sensor:
    """Return the sensor of a torch device, or the absent one with its reason. Never raises."""
    try:
        address = pci_address(device)
        return AmdSmiSensor(address, load_amdsmi(), power=power)
    except NoSensorError as error:
        return AbsentSensor(device, f"no energy counter for {device}: {error.problem}", error.remedy)
