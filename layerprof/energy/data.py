"""What the energy pass read: windows scaled to one walk over the batches, the replay, and the instruments' facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from layerprof.energy.attribute import Amount, amount, by_difference
from layerprof.energy.replayed import ReplayReading
from layerprof.energy.typical import Typical
from layerprof.energy.windows import WindowReading
from layerprof.records import Phase

NOT_ABOVE_ZERO = "the windows differ by less than their own doubt, so one phase has no joules above zero"


@dataclass(frozen=True, slots=True)
class Measured:
    """One window scaled to one walk over all batches; `host` is what the sensor beside the device's read.

    `walks` is how many walks fell into it.
    """

    reading: WindowReading
    host: WindowReading | None
    walks: int
    active_j: float | None = None


@dataclass(frozen=True, slots=True)
class Repeated:
    """How often a window's walk was repeated, and the seconds of rest between the walks."""

    walks: int
    paused_s: float = 0.0


@dataclass(frozen=True, slots=True)
class EnergyData:
    """What the pass read: the end-to-end window, and one for each prefix of the answer (vision, prefill, decode).

    `instrument` are the meter's facts, `captured` which call replay took, `host_reason` why the host has no joules.
    """

    whole: Measured
    upto: dict[Phase, Measured]
    replayed: ReplayReading | None = None
    captured: Typical | None = None
    instrument: Mapping[str, Any] = field(default_factory=dict)
    host_reason: str | None = None

    def phases(self) -> dict[Phase, Amount] | None:
        """Return joules by phase, by difference; None where a window has none, or a difference is not above zero."""
        amounts = [amount(self.upto[phase].reading) for phase in Phase]
        known = [it for it in amounts if it is not None]
        if len(known) < len(amounts):
            return None
        found = by_difference(*known)
        return found if all(it.joules > 0 for it in found.values()) else None

    def phases_reason(self) -> str | None:
        """Say why there are no joules by phase; None where there are."""
        if self.phases() is not None:
            return None
        reasons = dict.fromkeys(it.reading.reason for it in self.upto.values() if it.reading.joules is None)
        return "; ".join(reason for reason in reasons if reason) or NOT_ABOVE_ZERO


def measured(window: WindowReading, host: WindowReading | None, repeated: Repeated) -> Measured:
    """Return a window and the host's side of it for one walk; the rests between walks are taken off at quiet power."""
    quiet = window.baseline_w
    active = None if window.active_j is None or quiet is None else window.active_j / repeated.walks
    return Measured(_per_walk(window, repeated), _per_walk(host, repeated) if host else None, repeated.walks, active)


def _per_walk(window: WindowReading, repeated: Repeated) -> WindowReading:
    if window.joules is None or window.ci95 is None:
        return window
    walks, rest_s = repeated.walks, repeated.paused_s if window.baseline_w is not None else 0.0
    rest_j = (window.baseline_w or 0.0) * rest_s
    joules = window.joules - rest_j
    power = joules / (window.duration_s - rest_s) if rest_j else window.mean_power_w
    low, high = ((end - rest_j) / walks for end in window.ci95)
    return replace(window, joules=joules / walks, ci95=(low, high), mean_power_w=power)
