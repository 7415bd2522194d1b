"""NVIDIA cards: the energy counter, instant power, clocks, throttling and other processes. All NVML calls are here.

The card is found by the UUID of the torch device, never by an index: NVML and CUDA count cards in different orders, and
`CUDA_VISIBLE_DEVICES` renumbers one of them.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from typing import Any

from layerprof.hooks.energy.absent import AbsentSensor, NoSensorError
from layerprof.hooks.energy.integral import PowerIntegral

from layerprof.energy.counter import CounterRead, Unwrapper
from layerprof.energy.fit import LAG_MAX_S
from layerprof.energy.instruments import Sensor
from layerprof.energy.sensor_record import State

QUARTER_DUTY = 0.25
"""A100 and H100 look at the power for 25 ms of every 100 ms (Yang et al., arXiv:2312.02741)."""

_EXPLAINED = {
    "LibraryNotFound": (
        "no NVIDIA driver library (libnvidia-ml.so.1) was found",
        "install the driver, or start the container with the NVIDIA runtime (--gpus all, "
        "NVIDIA_DRIVER_CAPABILITIES=compute,utility)",
    ),
    "DriverNotLoaded": ("the NVIDIA kernel driver is not loaded", "load it (modprobe nvidia), or reboot"),
    "LibRmVersionMismatch": (
        "the NVIDIA driver and its library differ in version",
        "reboot after the update, or restart the container",
    ),
    "NoPermission": (
        "NVML refused access",
        "run as a user of the video group, or give the container the NVIDIA devices",
    ),
    "NotSupported": (
        "the card or virtual GPU has no energy counter (cards before Volta, many vGPUs and WSL have none)",
        "measure on another card, or give its power with --assume-watts W for an estimate",
    ),
    "GpuIsLost": ("the card has fallen off the bus", "reboot the machine"),
    "NotFound": (
        "NVML does not know the card that torch uses",
        "give this process access to it (--gpus, NVIDIA_VISIBLE_DEVICES)",
    ),
}

_MIG = (
    "the card is split by MIG, and NVML has one energy counter for the whole board, which cannot be divided honestly",
    "run on a whole card (nvidia-smi -mig 0), or take another one",
)

_HELD_BACK = {
    "SwPowerCap": "power cap",
    "HwSlowdown": "hardware slowdown",
    "SwThermalSlowdown": "heat (software)",
    "HwThermalSlowdown": "heat (hardware)",
    "HwPowerBrakeSlowdown": "power brake",
}


def explain(error: BaseException) -> NoSensorError:
    """Return what an NVML error means for a user and what helps."""
    kind = type(error).__name__.removeprefix("NVMLError_")
    known = _EXPLAINED.get(kind, (f"NVML answered: {error}", "look whether nvidia-smi works on this machine"))
    return NoSensorError(*known)


def load_nvml() -> Any:
    """Import pynvml (of nvidia-ml-py) and initialise NVML. Raises NoSensorError."""
    try:
        import pynvml  # type: ignore[import-untyped]  # nvidia-ml-py ships no types
    except ImportError as error:
        raise NoSensorError("the module pynvml is missing", "pip install nvidia-ml-py") from error
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise explain(error) from error
    return pynvml


def device_uuid(device: str) -> str:
    """Return the UUID (without `GPU-`) of a torch device like `cuda:0`. Raises NoSensorError where there is none."""
    import torch

    if torch.version.hip is not None:
        raise NoSensorError("this torch is built for AMD cards", "use --energy-sensor auto or amdsmi")
    if not torch.cuda.is_available():
        raise NoSensorError("torch sees no CUDA device", "`layerprof doctor` says why")
    return str(torch.cuda.get_device_properties(torch.device(device)).uuid)


def _torch_context() -> bool:
    import torch

    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]  # torch has no types here


class NvmlSensor:
    """The counter of one card: `nvml_counter`, or, where it has none, its instant power integrated over the reads.

    `uuid` is the card's, with or without `GPU-`. `nvml` is the pynvml module, initialised (a fake in tests). Raises
    NoSensorError where nothing can be read.
    """

    def __init__(
        self,
        uuid: str,
        nvml: Any = None,
        *,
        power: bool = False,
        own_context: Callable[[], bool] = _torch_context,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._nvml = load_nvml() if nvml is None else nvml
        # What a binding newer than the driver raises of some functions; no NVMLError.
        self._mismatch: type[Exception] = getattr(self._nvml, "NVMLLibraryMismatchError", self._nvml.NVMLError)
        self._now = now
        self._own_context = own_context
        self._handle = self._find(uuid.removeprefix("GPU-"))
        self.uuid = f"GPU-{uuid.removeprefix('GPU-')}"
        card = self._text("nvmlDeviceGetName") or "NVIDIA card"
        self.name = f"{card} ({self.uuid})"
        self._unwrapper = Unwrapper()
        self._integral = PowerIntegral()
        self._counts = self._call("nvmlDeviceGetTotalEnergyConsumption") is not None
        self.source = "nvml_counter" if self._counts else "nvml_power_integral"
        # On Grace superchips the counter covers processor and memory too.
        self.scope = "module" if any(n in card for n in ("GH200", "GB200", "GB300")) else "board"
        self.with_power = power or not self._counts
        if not self._counts and self._power() is None:
            raise NoSensorError(*_EXPLAINED["NotSupported"])
        self.available = True
        self.reason: str | None = None
        self.problem = ""
        self.remedy: str | None = None
        self.update_s: float | None = None
        self.duty = self._duty(card)
        self.lag_s = LAG_MAX_S

    def read(self) -> CounterRead:
        """Read joules (and, if asked for, instant watts); the time is the middle of the call, which takes a while."""
        before = self._now()
        power = self._power() if self.with_power else None
        raw = self._joules() if self._counts else self._integral.add(before, power)
        t_s = (before + self._now()) / 2
        step = self._unwrapper.feed(t_s, raw)
        return CounterRead(t_s, step.joules, power, step.event)

    def foreign_processes(self) -> tuple[int, ...]:
        """Return process ids of others on the card.

        Inside a container the ids are the host's, so that one's own is not recognised; with a live context one unknown
        entry is then taken for it.
        """
        listed: set[int] = set()
        for name in ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses"):
            listed.update(int(p.pid) for p in self._call(name) or ())
        if os.getpid() in listed:
            return tuple(sorted(listed - {os.getpid()}))
        own = 1 if listed and self._own_context() else 0
        return tuple(sorted(listed)[own:])

    def state(self) -> State:
        """Return clocks, temperature, what holds the card back, and its power limit."""
        nvml = self._nvml
        limit = self._call("nvmlDeviceGetEnforcedPowerLimit")
        return State(
            t_s=self._now(),
            sm_clock_mhz=self._call("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM),
            memory_clock_mhz=self._call("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_MEM),
            temperature_c=self._call("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU),
            throttle=self._throttle(),
            power_limit_w=None if limit is None else limit / 1000,
        )

    def facts(self) -> dict[str, Any]:
        """Return what describes the card beside its state: driver, VBIOS, PCI id, persistence, ECC, default limit."""
        pci = self._call("nvmlDeviceGetPciInfo")
        driver = None
        with contextlib.suppress(self._nvml.NVMLError):
            driver = _decoded(self._nvml.nvmlSystemGetDriverVersion())
        limit = self._call("nvmlDeviceGetPowerManagementDefaultLimit")
        ecc = self._call("nvmlDeviceGetEccMode")
        return {
            "name": self.name,
            "uuid": self.uuid,
            "pci": _decoded(pci.busId) if pci is not None else None,
            "driver": driver,
            "vbios": self._text("nvmlDeviceGetVbiosVersion"),
            "persistence": _truth(self._call("nvmlDeviceGetPersistenceMode")),
            "ecc": _truth(ecc[0] if ecc else None),
            "default_power_limit_w": None if limit is None else limit / 1000,
            "scope": self.scope,
            "duty": self.duty,
        }

    def close(self) -> None:
        """Shut NVML down; it counts its users, so others go on."""
        if self.available:
            self.available = False
            self.reason = "the sensor was closed before it was read"
            with contextlib.suppress(self._nvml.NVMLError):
                self._nvml.nvmlShutdown()

    def _find(self, uuid: str) -> Any:
        nvml = self._nvml
        try:
            handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        except nvml.NVMLError as error:
            with contextlib.suppress(nvml.NVMLError):
                nvml.nvmlDeviceGetHandleByUUID(f"MIG-{uuid}")
                raise NoSensorError(*_MIG) from error
            raise explain(error) from error
        mode = None
        with contextlib.suppress(nvml.NVMLError):
            mode = nvml.nvmlDeviceGetMigMode(handle)
        if mode and mode[0] == 1:
            raise NoSensorError(*_MIG)
        return handle

    def _call(self, name: str, *more: Any) -> Any:
        """Call an NVML function on the card; None where the card, the driver or the binding does not know it."""
        function = getattr(self._nvml, name, None)
        if function is None:
            return None
        try:
            return function(self._handle, *more)
        except (self._nvml.NVMLError, self._mismatch):
            return None

    def _text(self, name: str) -> str | None:
        found = self._call(name)
        return None if found is None else _decoded(found)

    def _joules(self) -> float | None:
        millijoules = self._call("nvmlDeviceGetTotalEnergyConsumption")
        return None if millijoules is None else millijoules / 1000

    def _power(self) -> float | None:
        """Instant watts: field 186; `nvmlDeviceGetPowerUsage` is a one-second mean on most cards since Ampere."""
        values = self._call("nvmlDeviceGetFieldValues", [self._nvml.NVML_FI_DEV_POWER_INSTANT])
        if values is not None and values[0].nvmlReturn == self._nvml.NVML_SUCCESS:
            return float(values[0].value.uiVal) / 1000
        milliwatts = self._call("nvmlDeviceGetPowerUsage")
        return None if milliwatts is None else milliwatts / 1000

    def _throttle(self) -> tuple[str, ...]:
        nvml = self._nvml
        for word in ("Event", "Throttle"):
            bits = self._call(f"nvmlDeviceGetCurrentClocks{word}Reasons")
            if bits is not None:
                names = {n: getattr(nvml, f"nvmlClocks{word}Reason{n}", 0) for n in _HELD_BACK}
                return tuple(_HELD_BACK[n] for n, bit in names.items() if bits & bit)
        return ()

    def _duty(self, card: str) -> float:
        architecture = self._call("nvmlDeviceGetArchitecture")
        older = [getattr(self._nvml, f"NVML_DEVICE_ARCH_{n}", None) for n in ("TURING", "ADA")]
        ampere = architecture == getattr(self._nvml, "NVML_DEVICE_ARCH_AMPERE", -1)
        full = architecture in older or (ampere and not any(n in card for n in ("A100", "A800", "A30")))
        # A card nobody has looked at is taken to look as rarely as the worst known.
        return 1.0 if full else QUARTER_DUTY


def _decoded(text: Any) -> str:
    return text.decode() if isinstance(text, bytes) else str(text)


def _truth(value: Any) -> bool | None:
    return None if value is None else bool(value)


def find_nvml(device: str = "cuda:0", *, power: bool = False) -> Sensor:
    """Return the sensor of a torch device, or the absent one with its reason. Never raises."""
    try:
        nvml = load_nvml()
        return NvmlSensor(device_uuid(device), nvml, power=power)
    except NoSensorError as error:
        return AbsentSensor(device, f"no energy counter for {device}: {error.problem}", error.remedy)
