"""What the energy pass read: windows scaled to one walk over the batches, the replay, and the instruments' facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from layerprof.energy.amount import Amount, around
from layerprof.energy.place import in_place
from layerprof.energy.replayed import ReplayReading
from layerprof.energy.share import by_difference
from layerprof.energy.typical import Typical
from layerprof.energy.windows import WindowReading
from layerprof.records import IN_TURN, Phase

NOT_ABOVE_ZERO = "the windows differ by less than their own doubt, so one phase has no joules above zero"


@dataclass(frozen=True, slots=True)
class Measured:
    """One window scaled to one walk over all batches; `host` is what the sensor beside the device's read.

    `walk_s` is how long that walk took under the counter, rests left out; None where nobody knows.
    """

    reading: WindowReading
    host: WindowReading | None
    active_j: float | None = None
    walk_s: float | None = None


@dataclass(frozen=True, slots=True)
class Repeated:
    """How often a window's walk was repeated, and the seconds of rest between the walks."""

    walks: int
    paused_s: float = 0.0


@dataclass(frozen=True, slots=True)
class EnergyData:
    """What the pass read: the end-to-end window, and one for each prefix of the answer (vision, prefill, decode).

    The prefixes are `at_one_speed` with the whole.
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
        known = [energy for phase in IN_TURN if (energy := self.upto[phase].reading.energy) is not None]
        if len(known) < len(IN_TURN):
            return None
        found = by_difference(*known)
        return found if all(it.joules > 0 for it in found.values()) else None

    def phases_reason(self) -> str | None:
        """Say why there are no joules by phase; None where there are."""
        if self.phases() is not None:
            return None
        reasons = dict.fromkeys(it.reading.reason for it in self.upto.values() if it.reading.energy is None)
        return "; ".join(reason for reason in reasons if reason) or NOT_ABOVE_ZERO


def at_one_speed(
    upto: Mapping[Phase, Measured], ends_s: Mapping[Phase, float], waiting_w: Amount | None
) -> dict[Phase, Measured]:
    """Return windows as long as the same walks took in another one, `ends_s` seconds to the end of each phase.

    The windows stand one after the other, and a host changes its speed meanwhile. What a device draws while it waits
    for a slow one is no phase's, and their difference would hold it. `waiting_w` is that power, as in `place.py`;
    without it or a walk's length the windows stay as they are.
    """
    found = {}
    for phase, one in upto.items():
        energy, end_s = one.reading.energy, ends_s.get(phase)
        if energy is not None and waiting_w is not None and one.walk_s and end_s:
            energy = in_place(energy, one.walk_s, end_s, waiting_w).energy
        found[phase] = replace(one, reading=replace(one.reading, energy=energy))
    return found


def mean_power(window: WindowReading | None) -> Amount | None:
    """Return a window's mean power in watts with its interval; None where it has no joules."""
    return window.energy * (1 / window.duration_s) if window and window.energy else None


def measured(
    window: WindowReading,
    host: WindowReading | None,
    repeated: Repeated,
    rest_w: Amount | None = None,
    host_rest_w: Amount | None = None,
) -> Measured:
    """Return a window and the host's side of it for one walk; the rests between walks are taken off at their own power.

    `rest_w` and `host_rest_w` are that power, in watts. Where it is None the quiet power around the window stands in,
    and where there is neither the rests stay in the joules. `active_j` is above the quiet power.
    """
    walk = _per_walk(window, repeated, rest_w)
    walk_s = (window.duration_s - repeated.paused_s) / repeated.walks
    active = None
    if walk.energy is not None and window.baseline_w is not None:
        active = walk.energy.joules - window.baseline_w * walk_s
    return Measured(walk, _per_walk(host, repeated, host_rest_w) if host else None, active, walk_s)


def _per_walk(window: WindowReading, repeated: Repeated, rest_w: Amount | None) -> WindowReading:
    energy, power = window.energy, window.mean_power_w
    if energy is None:
        return window
    if rest_w is None and window.baseline_w is not None:
        rest_w = around(window.baseline_w, 0.0)
    if rest_w is not None:
        energy -= rest_w * repeated.paused_s
        power = energy.joules / (window.duration_s - repeated.paused_s)
    return replace(window, energy=energy * (1 / repeated.walks), mean_power_w=power)
