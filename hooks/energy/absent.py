"""The sensor that is not there: it answers like any other and says why there is nothing to read."""

from __future__ import annotations

import time

from layerprof.energy.counter import Sample
from layerprof.energy.windows import State


class AbsentSensor:
    """A `Sensor` without a counter. `reason` says what was tried and what would help."""

    source = "none"
    scope = "nothing"
    available = False
    update_s: float | None = None
    duty = 1.0
    lag_s = 0.0

    def __init__(self, name: str, reason: str) -> None:
        self.name = name
        self.reason: str | None = reason

    def read(self) -> Sample:
        """Return a failed sample."""
        return Sample(time.perf_counter(), None, None, "failed")

    def foreign_processes(self) -> tuple[int, ...]:
        """Return nobody: nothing is known."""
        return ()

    def state(self) -> State:
        """Return an empty state."""
        return State(time.perf_counter())

    def close(self) -> None:
        """Nothing to give back."""
