"""Energy: sensors, windows over them, and replay.

A sensor is an object with the interface below; one that is not there is an object too (`absent.AbsentSensor`) and says
why. Vendor calls stand in one file each: `nvml.py` (NVIDIA cards) and `rapl.py` (Intel and AMD processors).
"""

from __future__ import annotations

from typing import Protocol

from layerprof.energy.counter import Sample
from layerprof.energy.windows import State

__all__ = ["Sample", "Sensor", "State"]


class Sensor(Protocol):
    """One energy counter.

    `source` is the label that stands with every joule (`nvml_counter`, `rapl_powercap`, ...), `scope` what it covers
    (`board`, `package + dram`). `update_s` is the counter's update period in seconds where it is known beforehand;
    `duty` the share of the time at which the sensor looks at the power; `lag_s` how late, at most, a load shows. Where
    `available` is False, `reason` says what was tried and what would help, and `read` gives failed samples.

    A sensor may also have `facts()`: plain values for the run's file (driver, uuid, power limit).
    """

    name: str
    source: str
    scope: str
    available: bool
    reason: str | None
    update_s: float | None
    duty: float
    lag_s: float

    def read(self) -> Sample:
        """Read the counter now. Never raises: a failed read is a sample without joules."""

    def foreign_processes(self) -> tuple[int, ...]:
        """Return the process ids of others on the device; empty where that cannot be told."""

    def state(self) -> State:
        """Return clocks, temperature and throttling now."""

    def close(self) -> None:
        """Give the vendor's handle back; reading afterwards fails."""
