"""Cards behind the interface of AMD's binding amdsmi, set by hand."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

ADDRESS = "0000:c1:00"
RESOLUTION_UJ = 15.259
"""Microjoules a count, as MI200 and MI300 have it."""


class AmdSmiException(Exception):  # noqa: N818  # the binding's own name
    """Base of the fake binding's errors."""


class FakeAmdSmi:
    """The part of amdsmi that the sensor uses, for one MI300X; its accumulator grows with `watts` as time passes.

    `gain` is what its counter shows of the joules that are used. `old` answers as before 6.2.1.
    """

    AmdSmiException = AmdSmiException
    AmdSmiTemperatureType = SimpleNamespace(HOTSPOT="hotspot")
    AmdSmiTemperatureMetric = SimpleNamespace(CURRENT="current")
    AmdSmiClkType = SimpleNamespace(GFX="gfx", MEM="mem")

    def __init__(self, **behaviour: Any) -> None:
        self.t_s = 100.0
        self.watts = 200.0
        self.gain = 1.0
        self.start_j = 1_000.0
        self.name = "AMD Instinct MI300X"
        self.bdfs = [f"{ADDRESS}.0", "0000:05:00.0"]
        self.stated: Any = 200
        self.pids = [os.getpid()]
        self.failing = False
        self.old = False
        self.closed = 0
        self.__dict__.update(behaviour)

    def now(self) -> float:
        """Return the fake machine's time, seconds."""
        return self.t_s

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.t_s += seconds

    def amdsmi_get_processor_handles(self) -> list[int]:
        """Return a handle for each card."""
        return list(range(len(self.bdfs)))

    def amdsmi_get_gpu_device_bdf(self, handle: int) -> str:
        """Return a card's PCI address with its function."""
        return self.bdfs[handle]

    def amdsmi_get_energy_count(self, _handle: int) -> dict[str, Any]:
        """Return the accumulator, or refuse."""
        if self.failing:
            raise AmdSmiException("AMDSMI_STATUS_TIMEOUT")
        joules = self.start_j + self.gain * self.watts * (self.t_s - 100.0)
        count = round(joules * 1e6 / RESOLUTION_UJ)
        return {"power" if self.old else "energy_accumulator": count, "counter_resolution": RESOLUTION_UJ}

    def amdsmi_get_power_info(self, _handle: int) -> dict[str, Any]:
        """Return watts; a card that does not state its instant power says so."""
        return {"current_socket_power": "N/A", "average_socket_power": self.stated}

    def amdsmi_get_gpu_asic_info(self, _handle: int) -> dict[str, Any]:
        """Return the card's name."""
        return {"market_name": self.name}

    def amdsmi_get_gpu_process_list(self, _handle: int) -> list[dict[str, Any]]:
        """Return who is on the card."""
        return [{"pid": pid, "name": "x"} for pid in self.pids]

    def amdsmi_get_clock_info(self, _handle: int, kind: str) -> dict[str, Any]:
        """Return megahertz."""
        return {"clk": {"gfx": 2100, "mem": 1300}[kind]}

    def amdsmi_get_temp_metric(self, _handle: int, _kind: str, _metric: str) -> int:
        """Return thousandths of a degree."""
        return 61_000

    def amdsmi_get_power_cap_info(self, _handle: int) -> dict[str, Any]:
        """Return microwatts."""
        return {"power_cap": 750_000_000, "default_power_cap": 750_000_000}

    def amdsmi_shut_down(self) -> None:
        """Count being closed."""
        self.closed += 1
