"""What the instruments of energy are: sensors, the meter that reads them, and replay."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from layerprof.energy.counter import CounterRead
from layerprof.energy.replay_plan import Plan
from layerprof.energy.replayed import ReplayReading
from layerprof.energy.selftest import SelfTest
from layerprof.energy.sensor_record import State
from layerprof.energy.windows import EnergyReading
from layerprof.readings import Key, Layer
from layerprof.registry import Attached, Kind
from layerprof.settings import EnergySensor

if TYPE_CHECKING:
    from torch import nn


class Sensor(Protocol):
    """One energy counter.

    `source` is the label that stands with every joule (`nvml_counter`, `rapl_powercap`, ...), `scope` what it covers
    (`board`, `package + dram`). `update_s` is the counter's update period in seconds where it is known beforehand;
    `duty` the share of the time at which the sensor looks at the power; `lag_s` how late, at most, a load shows. Where
    `available` is False, `reason` says what was tried and what would help, and `read` gives failed reads.

    `problem` and `remedy` are the two halves of that reason.
    """

    name: str
    source: str
    scope: str
    available: bool
    reason: str | None
    problem: str
    remedy: str | None
    update_s: float | None
    duty: float
    lag_s: float

    def read(self) -> CounterRead:
        """Read the counter now. Never raises: a failed one has no joules."""

    def foreign_processes(self) -> tuple[int, ...]:
        """Return the process ids of others on the device; empty where that cannot be told."""

    def state(self) -> State:
        """Return clocks, temperature and throttling now."""

    def facts(self) -> dict[str, Any]:
        """Return plain values for the run's file (driver, uuid, power limit)."""

    def close(self) -> None:
        """Give the vendor's handle back; reading afterwards fails."""


class Clock(Protocol):
    """Host time in seconds that never goes back, rest, and repetition in the background."""

    def now(self) -> float:
        """Return seconds since some moment."""

    def sleep(self, seconds: float) -> None:
        """Rest."""

    def repeat(self, action: Callable[[], float]) -> Callable[[], None]:
        """Call `action` until the returned function is called; `action` returns the seconds to its next call."""


class Meter(Attached, Protocol):
    """Reads the device's sensor, and the host's beside it, during named windows."""

    @property
    def clock(self) -> Clock:
        """The clock that windows are timed by."""

    @property
    def available(self) -> bool:
        """Whether there is a sensor for the device."""

    @property
    def reason(self) -> str | None:
        """What was tried and what would help, where there is none."""

    def window(self, label: str, *, steady: bool = False) -> AbstractContextManager[Any]:
        """Return a context manager around what the window is of; `steady` says that the load does not change in it."""

    def reading(self) -> EnergyReading:
        """Return what was read. Valid after the block."""


class MakesMeter(Protocol):
    """`device` is 'cuda:N' or 'cpu', `sensor` whose counter of it is read."""

    def __call__(self, device: str, *, sensor: EnergySensor = "auto") -> Meter:
        """Return the instrument."""


class Replays(Protocol):
    """Makes each layer's captured calls again, long enough for the counter."""

    def capture(self) -> AbstractContextManager[Any]:
        """Return a context manager around the answer whose calls are caught."""

    def plan(self) -> Plan:
        """Return what will be measured, and how often."""

    def measure(self, in_situ_s: Mapping[Key, float], advance: Callable[[], None]) -> ReplayReading:
        """Measure; `in_situ_s` are seconds a call where the layer stands in the model."""


class MakesReplay(Protocol):
    """`budget_s` are the seconds that it may take, `decode_step` the step whose calls are caught."""

    def __call__(
        self,
        model: nn.Module,
        layers: Sequence[Layer],
        device: str,
        *,
        budget_s: float,
        decode_step: int,
        seed: int,
        sensor: EnergySensor = "auto",
    ) -> Replays:
        """Return the instrument."""


class MakesCardSensor(Protocol):
    """`device` is 'cuda:N' (for Zeus 'cpu', too); with `power` the instant power is read, too."""

    def __call__(self, device: str, *, power: bool = False) -> Sensor:
        """Return the instrument."""


METER: Kind[MakesMeter] = Kind("meter")
REPLAY: Kind[MakesReplay] = Kind("replay")
NVML: Kind[MakesCardSensor] = Kind("nvml")
AMDSMI: Kind[MakesCardSensor] = Kind("amdsmi")
ZEUS: Kind[MakesCardSensor] = Kind("zeus")
RAPL: Kind[Callable[[], Sensor]] = Kind("rapl")
SELF_TEST: Kind[Callable[[str, Sensor], SelfTest]] = Kind("selftest")


def misfit(sensor: EnergySensor, device: str) -> tuple[str, str] | None:
    """Return problem and remedy where a sensor cannot be of a device, whatever the machine; None where it can."""
    on_card = device.startswith("cuda")
    if sensor in ("nvml", "amdsmi") and not on_card:
        return (f"{sensor} reads cards, and the device is {device}", "use --energy-sensor auto, rapl or zeus")
    if sensor == "rapl" and on_card:
        return (
            f"rapl reads the processor, and the device is {device}",
            "use --energy-sensor auto: the processor is read beside the card",
        )
    return None
