"""Devices behind the interface of `zeus.device`, set by hand: classes bear Zeus' own names, by which it tells them."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any


class ZeusError(Exception):
    """What stands for Zeus' errors."""


class FakeGpu:
    """A card. `millijoules` None: it has no counter; `milliwatts` None: it states no power."""

    def __init__(self, uuid: str = "", **behaviour: Any) -> None:
        self.handle = uuid
        self.millijoules: int | None = 5_000_000
        self.milliwatts: int | None = 300_000
        self.__dict__.update(behaviour)

    def get_name(self) -> str:
        """Return the card's name."""
        return "A card"

    def supports_get_total_energy_consumption(self) -> bool:
        """Tell whether there is a counter."""
        return self.millijoules is not None

    def get_total_energy_consumption(self) -> int:
        """Return the counter, or refuse."""
        if self.millijoules is None:
            raise ZeusError
        return self.millijoules

    def get_instant_power_usage(self) -> int:
        """Return the power, or refuse."""
        if self.milliwatts is None:
            raise ZeusError
        return self.milliwatts

    def get_average_power_usage(self) -> int:
        """Return the power, or refuse."""
        return self.get_instant_power_usage()


@dataclass
class NVIDIAGPUs:
    """NVIDIA's cards."""

    gpus: list[FakeGpu]


@dataclass
class AMDGPUs:
    """AMD's cards."""

    gpus: list[FakeGpu]


@dataclass
class Jetson:
    """A Jetson, with a total of its board."""

    total_mj: float = 1_000.0

    def get_total_energy_consumption(self) -> SimpleNamespace:
        """Return what it states: a total, which holds its parts."""
        return SimpleNamespace(total_energy_mj=self.total_mj, cpu_energy_mj=300.0, gpu_energy_mj=500.0)


@dataclass
class AppleSilicon:
    """Apple's chip, which states its parts."""

    gpu_mj: float = 1_000.0

    def get_total_energy_consumption(self) -> SimpleNamespace:
        """Return what it states."""
        return SimpleNamespace(cpu_total_mj=500.0, gpu_mj=self.gpu_mj, dram_mj=None)


class FakeZeus:
    """The module `zeus.device` of a machine with these devices."""

    def __init__(self, gpus: Any = None, soc: Any = None, cpus: list[tuple[float, float | None]] | None = None) -> None:
        self.gpus, self.soc = gpus, soc
        self.cpus = cpus

    def get_gpus(self) -> Any:
        """Return the cards, or refuse."""
        if self.gpus is None:
            raise ZeusError("NVML and AMDSMI unavailable.")
        return self.gpus

    def get_soc(self) -> Any:
        """Return the chip, or refuse."""
        if self.soc is None:
            raise ZeusError("No observable SoC.")
        return self.soc

    def get_cpus(self) -> Any:
        """Return the packages, or refuse."""
        if self.cpus is None:
            raise ZeusError("RAPL unavailable.")

        def read(index: int) -> Any:
            assert self.cpus is not None
            cpu_mj, dram_mj = self.cpus[index]
            return SimpleNamespace(cpu_mj=cpu_mj, dram_mj=dram_mj)

        packages = [SimpleNamespace(get_total_energy_consumption=lambda i=i: read(i)) for i in range(len(self.cpus))]
        return SimpleNamespace(cpus=packages)
