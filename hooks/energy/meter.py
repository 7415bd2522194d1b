"""The meter: picks the sensors, polls them beside the measured loop, and cuts windows out of what they showed.

::

    with EnergyMeter("cuda:0") as meter:
        with meter.window("bare"):
            run_all_batches()
    print(meter.reading().window("bare").energy)
"""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self

from layerprof.hooks.energy.clock import HostClock

from layerprof.energy.counter import CounterRead, find_ticks
from layerprof.energy.instruments import Clock, MakesMeter, Sensor, misfit
from layerprof.energy.sensor_record import SensorRecord, State
from layerprof.energy.windows import EnergyReading, Window, read_window
from layerprof.settings import EnergySensor

QUIET_S = 1.0
"""Rest before and after a window that is not steady, seconds: the baseline is read there, and the lag passes."""

POLL_S = 0.02
"""Mean time between two reads: a fifth of the 0.1 s at which cards update their counters."""

STATE_S = 0.25
"""Time between two looks at clocks, heat and processes, seconds."""


class Channel:
    """One sensor's record in the making."""

    def __init__(self, sensor: Sensor, clock: Clock, poll_s: float = POLL_S) -> None:
        self.sensor = sensor
        self.clock = clock
        self.poll_s = poll_s
        self.reads: list[CounterRead] = []
        self.states: list[State] = []
        self.foreign: list[tuple[float, tuple[int, ...]]] = []
        # Asked now: a closed sensor is no longer available, its record still is.
        self.reason = None if sensor.available else (sensor.reason or "the sensor is not available")
        self.details = sensor.facts() if sensor.available else {}
        self._looked_s = float("-inf")
        self._lock = threading.Lock()
        # Reads at a fixed beat would fall at the same place of every counter step; so they are spread.
        self._random = random.Random(0)

    def poll(self) -> float:
        """Read once; return the seconds to the next read."""
        # A window's edge reads from another thread than the poller.
        with self._lock:
            self.reads.append(self.sensor.read())
            if self.clock.now() - self._looked_s >= STATE_S:
                self._look()
        return self.poll_s * self._random.uniform(0.5, 1.5)

    def mark(self) -> None:
        """Read at a window's edge, with clocks, throttling and other processes."""
        with self._lock:
            self.reads.append(self.sensor.read())
            self._look()

    def _look(self) -> None:
        self._looked_s = self.clock.now()
        self.states.append(self.sensor.state())
        self.foreign.append((self._looked_s, self.sensor.foreign_processes()))

    def record(self) -> SensorRecord:
        """Return what was shown so far, in time order."""
        sensor = self.sensor
        return SensorRecord(
            name=sensor.name,
            source=sensor.source,
            scope=sensor.scope,
            reads=tuple(sorted(self.reads, key=lambda read: read.t_s)),
            states=tuple(self.states),
            foreign=tuple(self.foreign),
            update_s=sensor.update_s,
            duty=sensor.duty,
            lag_s=sensor.lag_s,
            reason=self.reason,
            details=self.details,
        )


class EnergyMeter:
    """Joules of windows of host time, on the device and on the host beside it.

    `device` is a torch device or its name, `sensor` whose counter of it is read. `sensors` replaces the search: the
    first is the device's, the second (if any) the host's. Entering starts the polling, leaving ends it; `reading()` may
    be called at any time after the windows of interest. A meter without any sensor costs nothing and gives readings
    that say why.
    """

    def __init__(
        self,
        device: object = "cpu",
        sensors: Sequence[Sensor] | None = None,
        clock: Clock | None = None,
        poll_s: float = POLL_S,
        *,
        sensor: EnergySensor = "auto",
    ) -> None:
        self.device = str(device)
        self.clock: Clock = clock or HostClock()
        chosen = list(sensors) if sensors is not None else find_sensors(self.device, sensor)
        self.channels = [Channel(s, self.clock, poll_s) for s in chosen[:2]]
        self._windows: list[Window] = []
        self._open = 0
        self._stops: list[Callable[[], None]] = []

    @property
    def available(self) -> bool:
        """Whether the device's energy can be measured at all."""
        return self.channels[0].reason is None

    @property
    def reason(self) -> str | None:
        """Why it cannot, and what would help."""
        return self.channels[0].reason

    def __enter__(self) -> Self:
        for channel in self.channels:
            if channel.reason is None:
                self._stops.append(self.clock.repeat(channel.poll))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._stops:
            self._stops.pop()()
        for channel in self.channels:
            channel.sensor.close()

    @contextmanager
    def window(self, label: str, *, steady: bool = False, quiet_s: float = QUIET_S) -> Iterator[None]:
        """Measure what runs inside. The device is synchronised at both edges.

        By default the meter rests for `quiet_s` seconds before and after (not inside another window, and only where the
        sensor lags), which makes the joules free of that lag and gives the baseline. `steady=True` is for a constant
        load that already runs and goes on after the window; nothing rests then. A window whose body raises is dropped.
        """
        lags = any(c.reason is None and c.sensor.lag_s > 0 for c in self.channels)
        quiet = quiet_s if lags and not steady and not self._open else 0.0
        if not steady:
            self._synchronise()
        self.clock.sleep(quiet)
        self._open += 1
        self._mark()
        if steady:
            # Reading a card takes milliseconds, in which the load goes on by what is queued; the queue ends here.
            self._synchronise()
        start = self.clock.now()
        try:
            yield
            self._synchronise()
            end = self.clock.now()
            self._mark()
        finally:
            self._open -= 1
        self._windows.append(Window(label, start, end, quiet, steady))
        self.clock.sleep(quiet)

    def reading(self) -> EnergyReading:
        """Evaluate every window over every sensor."""
        records = [c.record() for c in self.channels]
        ticks = [find_ticks(r.reads, r.update_s) for r in records]
        sides = [
            tuple(read_window(record, w, found) for w in self._windows)
            for record, found in zip(records, ticks, strict=True)
        ]
        return EnergyReading(
            windows=sides[0],
            host=sides[1] if len(sides) > 1 else (),
            device_record=records[0],
            host_record=records[1] if len(records) > 1 else None,
            period_s=ticks[0].period_s,
        )

    def _mark(self) -> None:
        for channel in self.channels:
            if channel.reason is None:
                channel.mark()

    def _synchronise(self) -> None:
        if self.device.startswith("cuda"):
            # A load on the card implies that torch is loaded; without it there is nothing to wait for.
            torch = sys.modules.get("torch")
            if torch is not None and torch.cuda.is_available():
                torch.cuda.synchronize(self.device)


def find_sensors(device: str, sensor: EnergySensor = "auto") -> list[Sensor]:
    """Return the device's sensor and, for a GPU, the host's beside it; a missing one is an object with a reason.

    `auto` is the counter of the card's maker, and on a CPU RAPL.
    """
    from layerprof.hooks.energy.absent import AbsentSensor
    from layerprof.hooks.energy.rapl import find_rapl

    on_card = device.startswith("cuda")
    if not on_card and not device.startswith("cpu"):
        problem = f"layerprof knows no energy sensor for a {device} device"
        return [AbsentSensor(device, problem, "pass one as sensors=[...]")]
    if wrong := misfit(sensor, device):
        return [AbsentSensor(device, *wrong)]
    if not on_card:
        return [_named(device, sensor)] if sensor == "zeus" else [find_rapl()]
    chosen = ("amdsmi" if _is_amd() else "nvml") if sensor == "auto" else sensor
    return [_named(device, chosen), find_rapl()]


def _named(device: str, sensor: str) -> Sensor:
    if sensor == "zeus":
        from layerprof.hooks.energy.zeus import find_zeus

        return find_zeus(device)
    if sensor == "amdsmi":
        from layerprof.hooks.energy.amdsmi import find_amdsmi

        return find_amdsmi(device)
    from layerprof.hooks.energy.nvml import find_nvml

    return find_nvml(device)


def _is_amd() -> bool:
    import torch

    return torch.version.hip is not None


if TYPE_CHECKING:
    _: MakesMeter = EnergyMeter
