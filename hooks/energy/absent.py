"""The sensor that is not there: it answers like any other and says why there is nothing to read."""

from __future__ import annotations

import time
from typing import Any

from layerprof.energy.counter import CounterRead
from layerprof.energy.instruments import Sensor
from layerprof.energy.sensor_record import State


class NoSensorError(Exception):
    """A counter that cannot be read: what is wrong, and what would help."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}; {remedy}")
        self.problem = problem
        self.remedy = remedy


class AbsentSensor(Sensor):
    """A `Sensor` without a counter. `reason` says what was tried (`problem`) and what would help (`remedy`)."""

    source = "none"
    scope = "nothing"
    available = False
    update_s: float | None = None
    duty = 1.0
    lag_s = 0.0

    def __init__(self, name: str, problem: str, remedy: str) -> None:
        self.name = name
        self.problem = problem
        self.remedy: str | None = remedy
        self.reason: str | None = f"{problem}; {remedy}"

    def read(self) -> CounterRead:
        """Return a failed read."""
        return CounterRead(time.perf_counter(), None, None, "failed")

    def foreign_processes(self) -> tuple[int, ...]:
        """Return nobody: nothing is known."""
        return ()

    def state(self) -> State:
        """Return an empty state."""
        return State(time.perf_counter())

    def facts(self) -> dict[str, Any]:
        """Return nothing: there is nothing to tell of."""
        return {}

    def close(self) -> None:
        """Nothing to give back."""
