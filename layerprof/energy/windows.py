"""From what a sensor showed during a run to the joules of its windows, each with interval, label, flags and reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

from layerprof.energy.amount import Amount, around, ends_of, joules_of
from layerprof.energy.counter import Ticks, find_ticks
from layerprof.energy.fit import ENOUGH_TICKS, Fit, edge_window, pulse_window, steady_window
from layerprof.energy.flags import REMARKS, RESET, TOO_SHORT, UNSTEADY, disturbances, was_reset, why_unreadable
from layerprof.energy.sensor_record import SensorRecord
from layerprof.records import Quality

GAIN_NOTE = "the sensor's own gain error (typically 5 %, the same for all windows of one card) is not in the interval"


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of host time, seconds, `quiet_s` of nothing on both sides; `steady`: a constant load outlasts it."""

    label: str
    start_s: float
    end_s: float
    quiet_s: float = 0.0
    steady: bool = False


@dataclass(frozen=True, slots=True)
class WindowReading:
    """Joules of one window. `energy` is None exactly where `quality` is `unavailable`, and then `reason` says why.

    `baseline_w` is the quiet power around the window. `ticks` counts the counter's updates inside.
    """

    label: str
    start_s: float
    end_s: float
    energy: Amount | None
    mean_power_w: float | None
    baseline_w: float | None
    quality: Quality
    source: str
    reason: str | None
    flags: tuple[str, ...] = ()
    ticks: int = 0
    method: str | None = None

    @property
    def duration_s(self) -> float:
        """Length of the window in seconds."""
        return self.end_s - self.start_s

    def facts(self) -> dict[str, Any]:
        """Return the window as plain values for a file."""
        return {
            "seconds": self.duration_s,
            "joules": joules_of(self.energy),
            "ci95": ends_of(self.energy),
            "quality": str(self.quality),
            "source": self.source,
            "mean_power_w": self.mean_power_w,
            "baseline_w": self.baseline_w,
            "estimator": self.method,
            "ticks": self.ticks,
            "flags": list(self.flags),
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class EnergyReading:
    """What a meter gives: the device's windows, the host's beside them, and the records they come from.

    On a CPU device the host is the device, and `host` is empty.
    """

    windows: tuple[WindowReading, ...]
    host: tuple[WindowReading, ...]
    device_record: SensorRecord
    host_record: SensorRecord | None
    period_s: float | None

    def facts(self) -> dict[str, Any]:
        """Return the instrument as plain values for a file: what a figure needs beside it to be trusted."""
        record = self.device_record
        clocks = sorted(s.sm_clock_mhz for s in record.states if s.sm_clock_mhz)
        heat = [s.temperature_c for s in record.states if s.temperature_c is not None]
        return {
            "sensor": record.name,
            "source": record.source,
            "scope": record.scope,
            "details": dict(record.details),
            "reason": record.reason,
            "counter_period_s": self.period_s,
            "duty": record.duty,
            "lag_allowed_s": record.lag_s,
            "reads": len(record.reads),
            "failed_reads": sum(read.event == "failed" for read in record.reads),
            "sm_clock_mhz": clocks[len(clocks) // 2] if clocks else None,
            "temperature_c": [min(heat), max(heat)] if heat else None,
            "power_limit_w": record.states[-1].power_limit_w if record.states else None,
            "throttle": sorted({reason for s in record.states for reason in s.throttle}),
            "note": None if record.reason else GAIN_NOTE,
            "host": _host_facts(self.host_record),
            "windows": {w.label: w.facts() for w in self.windows},
        }

    def window(self, label: str) -> WindowReading:
        """Return the window of this label; several of one label are added up. Raises KeyError where there is none."""
        return combine([w for w in self.windows if w.label == label], label)

    def host_window(self, label: str) -> WindowReading | None:
        """Return the host's side of that window, None where the host is the device."""
        found = [w for w in self.host if w.label == label]
        return combine(found, label) if found else None


def _host_facts(record: SensorRecord | None) -> dict[str, Any] | None:
    """Return what the sensor beside the device's is, None where there is none to speak of."""
    if record is None:
        return None
    return {"sensor": record.name, "source": record.source, "scope": record.scope, "reason": record.reason}


def read_window(record: SensorRecord, window: Window, ticks: Ticks | None = None) -> WindowReading:
    """Evaluate one window over one sensor's record. `ticks`, where given, are those of the record."""
    if record.reason is not None:
        return _unavailable(window, record.reason)
    ticks = find_ticks(record.reads, record.update_s) if ticks is None else ticks
    flags = disturbances(record, window.start_s, window.end_s)
    around_it = (window.start_s - window.quiet_s, window.end_s + window.quiet_s)
    unreadable = why_unreadable(record, ticks, *around_it)
    if unreadable is not None:
        return _unavailable(window, unreadable, (RESET, *flags) if was_reset(ticks, *around_it) else flags)
    fit = _fit(record, window, ticks)
    flags += (TOO_SHORT,) if _too_short(record, window, fit) else ()
    flags += () if fit.steady else (UNSTEADY,)
    if fit.energy is None:
        return _unavailable(window, fit.reason or "no figure", flags)
    return WindowReading(
        label=window.label,
        start_s=window.start_s,
        end_s=window.end_s,
        energy=fit.energy,
        mean_power_w=fit.mean_power_w,
        baseline_w=fit.baseline_w,
        quality=Quality.MEASURED,
        source=record.source,
        reason="; ".join(REMARKS[f] for f in flags) or None,
        flags=flags,
        ticks=fit.ticks,
        method=fit.method,
    )


def combine(windows: Sequence[WindowReading], label: str) -> WindowReading:
    """Add windows up; intervals add in quadrature. One window without joules leaves the sum without joules."""
    if not windows:
        raise KeyError(label)
    if len(windows) == 1:
        return windows[0]
    known = [w.energy for w in windows if w.energy is not None]
    missing = len(known) < len(windows)
    flags = tuple(dict.fromkeys(f for w in windows for f in w.flags))
    reasons = list(dict.fromkeys(w.reason for w in windows if w.reason))
    half = sqrt(sum((it.half or 0.0) ** 2 for it in known))
    energy = None if missing else around(sum(it.joules for it in known), half)
    duration = sum(w.duration_s for w in windows)
    baselines = [w.baseline_w for w in windows if w.baseline_w is not None]
    start = windows[0].start_s
    return WindowReading(
        label=label,
        start_s=start,
        end_s=start + duration,
        energy=energy,
        mean_power_w=energy.joules / duration if energy and duration else None,
        baseline_w=sum(baselines) / len(baselines) if baselines and not missing else None,
        quality=Quality.UNAVAILABLE if missing else Quality.MEASURED,
        source=windows[0].source if not missing else "none",
        reason="; ".join(reasons) or None,
        flags=flags,
        ticks=sum(w.ticks for w in windows),
        method=windows[0].method,
    )


def _fit(record: SensorRecord, window: Window, ticks: Ticks) -> Fit:
    # A counter without lag is exact at the edges, whatever the load does.
    if window.steady and record.lag_s > 0:
        return steady_window(ticks, window.start_s, window.end_s, record.duty, record.lag_s)
    if window.quiet_s > 2 * record.lag_s > 0:
        pulse = pulse_window(
            ticks, window.start_s, window.end_s, quiet_s=window.quiet_s, duty=record.duty, lag_s=record.lag_s
        )
        if pulse.energy is not None:
            return pulse
    return edge_window(ticks, window.start_s, window.end_s, record.duty, record.lag_s)


def _too_short(record: SensorRecord, window: Window, fit: Fit) -> bool:
    if record.update_s:
        return (window.end_s - window.start_s) / record.update_s < ENOUGH_TICKS
    return fit.ticks < ENOUGH_TICKS


def _unavailable(window: Window, reason: str, flags: tuple[str, ...] = ()) -> WindowReading:
    return WindowReading(
        label=window.label,
        start_s=window.start_s,
        end_s=window.end_s,
        energy=None,
        mean_power_w=None,
        baseline_w=None,
        quality=Quality.UNAVAILABLE,
        source="none",
        reason=reason,
        flags=flags,
    )
