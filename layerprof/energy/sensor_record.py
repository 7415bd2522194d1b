"""All that one sensor showed during a run: reads, states of the device, and who else was on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from layerprof.energy.counter import CounterRead

INTEGRAL = "_power_integral"
"""The end of the `source` of what states its power alone: joules are an integral over the reads, and no counter's."""


@dataclass(frozen=True, slots=True)
class State:
    """How a device is running: clocks in MHz, temperature in degrees Celsius, what holds it back, power limit in W.

    A field the device does not tell is None. `throttle` holds only what changes the result (power, heat, a brake), not
    idling.
    """

    t_s: float
    sm_clock_mhz: float | None = None
    memory_clock_mhz: float | None = None
    temperature_c: float | None = None
    throttle: tuple[str, ...] = ()
    power_limit_w: float | None = None


@dataclass(frozen=True, slots=True)
class SensorRecord:
    """What one sensor showed: its reads, states, and when which other processes were seen on the device.

    `update_s`, `duty` and `lag_s` describe the sensor (`instruments.Sensor`); `details` is what else it tells of itself
    (driver, uuid, default power limit). `reason` says why there are no reads at all.
    """

    name: str
    source: str
    scope: str
    reads: tuple[CounterRead, ...] = ()
    states: tuple[State, ...] = ()
    foreign: tuple[tuple[float, tuple[int, ...]], ...] = ()
    update_s: float | None = None
    duty: float = 1.0
    lag_s: float = 0.0
    reason: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
