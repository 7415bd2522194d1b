"""Joules of a call where it stands in the model, from those of the same call in a loop of its own.

A call whose kernels are shorter than their launches waits for the host, and how long is the host's affair: what runs
before and after, and how fast it happens to be. So a replayed call may take another time than the same call in the
model, for the same work:

    e  = a + P t        replayed, t seconds: what its kernels draw above a device that waits, and that device's own
    e' = a + P t'       in the model, t' seconds
    e' = e + P (t' - t)

P is the power between kernels, clocks up. t' is the time in the window whose joules the books close against: over all
calls and gaps of a walk it adds up to the length of that walk, so that each of its seconds has P once.

Were the difference in time not waiting but work (other clocks, other caches), the mean power would stay instead:

    e'' = e t' / t,    e'' - e' = a (t' / t - 1)

Which of the two it is the times do not show. The truth is taken to lie evenly within |e'' - e'| of e' (a rectangular
distribution: JCGM 100:2008, 4.3.7), so that a replayed call is trusted the less, the more unlike its time is:

    u^2(e') = u^2(e) + (t' - t)^2 u^2(P) + (a (t' / t - 1))^2 / 3

The last term falls away for a call that was seen to leave the device waiting in its loop: there its work takes less
than t, and what t holds beside it is waiting.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot, sqrt

from layerprof.energy.amount import NORMAL_95, Amount


@dataclass(frozen=True, slots=True)
class Place:
    """One call in the model: its seconds, its joules with their interval, and where the interval comes from.

    `doubt_j` is the standard uncertainty from not knowing what the difference in time was spent on, whose cause all
    calls share; `shift_s` the difference itself, t' - t.
    """

    seconds: float
    energy: Amount
    doubt_j: float
    shift_s: float


def in_place(energy: Amount, seconds: float, place_s: float, waiting_w: Amount, *, sure: bool = False) -> Place:
    """Return the call in the model of one that took `energy` and `seconds` > 0 replayed, and `place_s` there.

    `waiting_w` is the power between kernels, an Amount in watts; `sure` says that the difference in time is known to be
    waiting. What was measured once has no interval here either.
    """
    shift_s = place_s - seconds
    above_j = energy.joules - waiting_w.joules * seconds
    doubt_j = 0.0 if sure else abs(above_j * shift_s / seconds) / sqrt(3)
    joules = energy.joules + waiting_w.joules * shift_s
    if energy.ci95 is None:
        return Place(place_s, Amount(joules), doubt_j, shift_s)
    more = hypot(NORMAL_95 * doubt_j, (waiting_w.half or 0.0) * shift_s)
    low, high = (hypot(energy.joules - end, more) for end in energy.ci95)
    return Place(place_s, Amount(joules, (joules - low, joules + high)), doubt_j, shift_s)
