"""What disturbed a window: flags that mark its figure, what they mean in words, and what leaves it without a figure."""

from __future__ import annotations

from collections.abc import Iterable

from layerprof.energy.amount import TOLERANCE
from layerprof.energy.counter import Ticks
from layerprof.energy.fit import ENOUGH_TICKS
from layerprof.energy.sensor_record import INTEGRAL, SensorRecord, State

TOO_SHORT = "too short for the counter"
FOREIGN = "foreign process"
THROTTLED = "throttled"
CLOCK_DRIFT = "clock drift"
RESET = "counter reset"
FAILED_READS = "failed reads"
UNSTEADY = "unsteady load"
INTEGRATED = "power integrated"

REMARKS = {
    TOO_SHORT: f"fewer than {ENOUGH_TICKS} counter updates fell into the window, see its interval",
    FOREIGN: "another process was on the device, its joules are in this figure",
    THROTTLED: "the device was held back by its power or heat limit",
    CLOCK_DRIFT: f"the SM clock moved by more than {100 * TOLERANCE:g} %",
    RESET: "the counter was reset",
    FAILED_READS: "some reads of the counter failed",
    UNSTEADY: "the load was not constant, so the counter was read at the window's edges",
    INTEGRATED: "the device has no counter: its power was looked at now and then, and added up",
}


def disturbances(record: SensorRecord, start_s: float, end_s: float) -> tuple[str, ...]:
    """Return the flags of what the sensor saw beside its counter in [start_s, end_s], seconds."""

    def inside(t_s: float) -> bool:
        return start_s <= t_s <= end_s

    states = [s for s in record.states if inside(s.t_s)]
    found = {
        FOREIGN: any(pids for t, pids in record.foreign if inside(t)),
        THROTTLED: any(s.throttle for s in states),
        CLOCK_DRIFT: _drifted(states),
        INTEGRATED: record.source.endswith(INTEGRAL),
        FAILED_READS: any(read.event == "failed" for read in record.reads if inside(read.t_s)),
    }
    return tuple(name for name, there in found.items() if there)


def _drifted(states: Iterable[State]) -> bool:
    """Whether the SM clock left its median by more than the tolerance."""
    clocks = sorted(s.sm_clock_mhz for s in states if s.sm_clock_mhz)
    median = clocks[len(clocks) // 2] if clocks else 0.0
    return bool(clocks) and max(clocks[-1] - median, median - clocks[0]) > TOLERANCE * median


def was_reset(ticks: Ticks, start_s: float, end_s: float) -> bool:
    """Whether the counter was reset in [start_s, end_s], seconds."""
    return any(start_s <= t <= end_s for t in ticks.resets_s)


def why_unreadable(record: SensorRecord, ticks: Ticks, start_s: float, end_s: float) -> str | None:
    """Return why no joules can be read from the record for [start_s, end_s], seconds; None where they can."""
    if was_reset(ticks, start_s, end_s):
        return (
            "the counter was reset during the window (a driver reload?), so what it gained is unknown; "
            "on NVIDIA cards turn persistence mode on (nvidia-smi -pm 1) and measure again"
        )
    inside = [read for read in record.reads if start_s <= read.t_s <= end_s]
    if not inside:
        return "the sensor was not read during the window; is the process starved of CPU time?"
    if all(read.joules is None for read in inside):
        return f"all {len(inside)} reads of {record.name} failed during the window; `layerprof doctor` tries one alone"
    return None
