"""A card behind the interface of pynvml, set by hand."""

# ruff: noqa: N801, N802, N815, N818  # names are the binding's own

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

UUID = "b5a1c0de-0000-1111-2222-333344445555"


class NVMLError(Exception):
    """Base of the fake binding's errors."""


class NVMLError_NotFound(NVMLError):
    """No such card."""


class NVMLError_NotSupported(NVMLError):
    """The card cannot do this."""


class FakeNvml:
    """The part of pynvml that the sensor uses, for one H100 whose counter is set by hand."""

    NVMLError = NVMLError
    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0
    NVML_FI_DEV_POWER_INSTANT, NVML_SUCCESS = 186, 0
    NVML_DEVICE_ARCH_TURING, NVML_DEVICE_ARCH_AMPERE, NVML_DEVICE_ARCH_ADA, NVML_DEVICE_ARCH_HOPPER = 6, 7, 8, 9
    nvmlClocksEventReasonGpuIdle, nvmlClocksEventReasonSwPowerCap = 1, 4
    nvmlClocksEventReasonHwThermalSlowdown = 64

    def __init__(self, **behaviour: Any) -> None:
        self.millijoules: int | None = 5_000_000
        self.milliwatts = 300_000
        self.pids: list[int] = []
        self.reasons = 0
        self.mig = 0
        self.mig_uuid = False
        self.name: Any = b"NVIDIA H100 80GB HBM3"
        self.architecture = self.NVML_DEVICE_ARCH_HOPPER
        self.closed = 0
        self.__dict__.update(behaviour)

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        """Know one card, or one slice of it."""
        if uuid == (f"MIG-{UUID}" if self.mig_uuid else f"GPU-{UUID}"):
            return "card"
        raise NVMLError_NotFound(uuid)

    def nvmlDeviceGetTotalEnergyConsumption(self, _card: str) -> int:
        """Answer what the test set, or refuse."""
        if self.millijoules is None:
            raise NVMLError_NotSupported
        return self.millijoules

    def __getattr__(self, name: str) -> Any:
        answers = {
            "nvmlDeviceGetMigMode": lambda _c: [self.mig, self.mig],
            "nvmlDeviceGetName": lambda _c: self.name,
            "nvmlDeviceGetArchitecture": lambda _c: self.architecture,
            "nvmlDeviceGetFieldValues": lambda _c, _f: [
                SimpleNamespace(nvmlReturn=0, value=SimpleNamespace(uiVal=self.milliwatts))
            ],
            "nvmlDeviceGetComputeRunningProcesses": lambda _c: [SimpleNamespace(pid=p) for p in self.pids],
            "nvmlDeviceGetGraphicsRunningProcesses": lambda _c: [],
            "nvmlDeviceGetClockInfo": lambda _c, which: 1980 if which == self.NVML_CLOCK_SM else 2619,
            "nvmlDeviceGetTemperature": lambda _c, _s: 61,
            "nvmlDeviceGetEnforcedPowerLimit": lambda _c: 700_000,
            "nvmlDeviceGetCurrentClocksEventReasons": lambda _c: self.reasons,
            "nvmlSystemGetDriverVersion": lambda: "580.95",
            "nvmlShutdown": self._shut,
        }
        try:
            return answers[name]
        except KeyError:
            raise AttributeError(name) from None

    def _shut(self) -> None:
        self.closed += 1
