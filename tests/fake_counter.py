"""A machine, a clock and an energy counter whose truth is known.

`Machine.run(watts, seconds)` passes virtual time under a load; `Machine.energy(a, b)` is the truth. `FakeCounter` shows
that truth the way real counters do: late, in steps, through a sensor that looks a quarter of the time, wrapping, reset,
stale, failing.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from layerprof.energy.counter import CounterRead, Floats, Unwrapper
from layerprof.energy.sensor_record import State


class FakeClock:
    """Virtual seconds; what is scheduled with `repeat` runs while time is passed with `sleep`."""

    def __init__(self, start_s: float = 100.0) -> None:
        self._now = start_s
        self._due: list[tuple[float, int, Callable[[], float]]] = []
        self._cancelled: set[int] = set()
        self._count = 0

    def now(self) -> float:
        """Return virtual seconds."""
        return self._now

    @property
    def watched(self) -> bool:
        """Whether something is repeated: a meter reads its counter."""
        return any(ticket not in self._cancelled for _, ticket, _ in self._due)

    def sleep(self, seconds: float) -> None:
        """Pass time, doing what falls due."""
        end = self._now + seconds
        while self._due and self._due[0][0] <= end:
            due, ticket, action = heapq.heappop(self._due)
            if ticket in self._cancelled:
                continue
            self._now = max(self._now, due)
            heapq.heappush(self._due, (self._now + action(), ticket, action))
        self._now = end

    def repeat(self, action: Callable[[], float]) -> Callable[[], None]:
        """Call `action` now and whenever the seconds it returned have passed."""
        self._count += 1
        ticket = self._count
        heapq.heappush(self._due, (self._now, ticket, action))
        return lambda: self._cancelled.add(ticket)


class Machine:
    """A device with a power over time. Idle between loads."""

    def __init__(self, clock: FakeClock, idle_w: float = 80.0) -> None:
        self.clock = clock
        self.idle_w = idle_w
        self._times = [clock.now() - 1000.0]
        self._watts = [idle_w]
        self._joules = [0.0]

    def run(self, watts: float | Sequence[float], seconds: float) -> None:
        """Pass `seconds` at `watts`, or, given several, each for an equal part; idle afterwards."""
        levels = [watts] if isinstance(watts, int | float) else list(watts)
        for level in levels:
            self.set(level)
            self.clock.sleep(seconds / len(levels))
        self.set(self.idle_w)

    def set(self, watts: float) -> None:
        """Change the power from now on."""
        now = self.clock.now()
        self._joules.append(self._joules[-1] + self._watts[-1] * (now - self._times[-1]))
        self._times.append(now)
        self._watts.append(watts)

    def total(self, t_s: float) -> float:
        """Joules used up to `t_s`."""
        k = bisect_right(self._times, t_s) - 1
        return self._joules[k] + self._watts[k] * (t_s - self._times[k])

    def energy(self, start_s: float, end_s: float) -> float:
        """Return the truth: joules between two moments."""
        return self.total(end_s) - self.total(start_s)


@dataclass
class FakeCounter:
    """A `Sensor` over a `Machine`, with the faults that real ones have. Seeded."""

    machine: Machine
    period_s: float = 0.1
    jitter_s: float = 0.002
    late_s: float = 0.0
    look: float = 1.0
    wrap_j: float | None = None
    resets_s: tuple[float, ...] = ()
    stale: float = 0.0
    failing: float = 0.0
    zeros: float = 0.0
    gain: float = 1.0
    foreign_s: tuple[float, float] | None = None
    throttled_s: tuple[float, float] | None = None
    clocks: Callable[[float], float] = lambda _t: 1980.0
    offset_j: float = 0.0
    seed: int = 0
    name: str = "Fake card (GPU-fa4e)"
    source: str = "nvml_counter"
    scope: str = "board"
    available: bool = True
    reason: str | None = None
    problem: str = ""
    remedy: str | None = None
    update_s: float | None = None
    lag_s: float = 0.15
    states: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.duty = self.look
        self._rng = np.random.default_rng(self.seed)
        self._unwrapper = Unwrapper(self.wrap_j)
        start = self.machine.clock.now()
        self._next = start - 0.5 + self._rng.uniform(0, self.period_s)
        self._origin = self._shown = start - 0.5 - self.late_s
        self._value = 0.0
        self._looked_until = self._origin

    def _update(self, now: float) -> None:
        """Let every counter update up to `now` happen."""
        while self._next <= now:
            if self._rng.uniform() >= self.stale:
                seen = self._next - self.late_s
                if self.look >= 1:
                    self._value = self.machine.energy(self._origin, seen)
                else:
                    glance = self.look * self.period_s
                    self._value += self.machine.energy(seen - glance, seen) / glance * (seen - self._looked_until)
                    self._looked_until = seen
            step = self.period_s + self._rng.uniform(-1, 1) * self.jitter_s * np.sqrt(3)
            self._next += step

    def raw(self) -> float | None:
        """Return what the device would answer now, in joules."""
        now = self.machine.clock.now()
        self._update(now)
        if self._rng.uniform() < self.failing:
            return None
        if self._rng.uniform() < self.zeros:
            return 0.0
        value = self.offset_j + self.gain * self._value
        past = [t for t in self.resets_s if t <= now]
        if past:
            value -= self.offset_j + self.gain * self.machine.energy(self._origin, max(past))
        return max(0.0, value) % self.wrap_j if self.wrap_j else max(0.0, value)

    def read(self) -> CounterRead:
        """Read through the product's own unwrapping, as a vendor's sensor does."""
        now = self.machine.clock.now()
        step = self._unwrapper.feed(now, self.raw())
        return CounterRead(now, step.joules, None, step.event)

    def foreign_processes(self) -> tuple[int, ...]:
        """Return the intruder while it is there."""
        now = self.machine.clock.now()
        return (4242,) if self.foreign_s and self.foreign_s[0] <= now <= self.foreign_s[1] else ()

    def state(self) -> State:
        """Return clocks, and the power cap while it holds."""
        now = self.machine.clock.now()
        self.states += 1
        hot = bool(self.throttled_s and self.throttled_s[0] <= now <= self.throttled_s[1])
        return State(now, self.clocks(now), 2619.0, 60.0, ("power cap",) if hot else (), 700.0)

    def facts(self) -> dict[str, Any]:
        """Return nothing: the card is made up."""
        return {}

    def close(self) -> None:
        """Nothing to give back."""


@dataclass(frozen=True)
class Faults:
    """What is wrong with a counter, for `trace`."""

    late_s: float = 0.0
    look: float = 1.0
    wrap_j: float | None = None
    stale: float = 0.0
    failing: float = 0.0
    zeros: float = 0.0


def trace(
    power: Sequence[tuple[float, float]], end_s: float, faults: Faults, rng: np.random.Generator, poll_s: float = 0.02
) -> tuple[list[CounterRead], Callable[[float, float], float]]:
    """Return the samples of a counter over a power `[(from_s, watts), ...]` up to `end_s`, and the true energy.

    The same device as `FakeCounter` (0.1 s steps with 2 ms of jitter), computed at once for many repetitions.
    """
    begins, watts = np.array(power).T
    edges = np.append(begins, end_s + 1)
    joules = np.concatenate([[0.0], np.cumsum(watts * np.diff(edges))])

    def total(t: Any) -> Floats:
        return np.asarray(np.interp(t, edges, joules), dtype=np.float64)

    period = 0.1
    updates = np.arange(begins[0] + rng.uniform(0.3, 0.4), end_s, period)
    updates = updates + np.cumsum(rng.uniform(-1, 1, len(updates)) * 0.002 * np.sqrt(3))
    updates = updates[rng.uniform(size=len(updates)) >= faults.stale]
    seen = updates - faults.late_s
    if faults.look >= 1:
        values = total(seen)
    else:
        glance = faults.look * period
        values = np.cumsum((total(seen) - total(seen - glance)) / glance * np.diff(seen, prepend=seen[0] - period))
    polls = updates[0] + np.cumsum(poll_s * rng.uniform(0.5, 1.5, int((end_s - updates[0]) / poll_s)))
    raw = 7.3e4 + values[np.searchsorted(updates, polls, side="right") - 1]
    if faults.wrap_j:
        raw %= faults.wrap_j
    unwrapper = Unwrapper(faults.wrap_j)
    bad = rng.uniform(size=(2, len(polls)))
    samples = []
    for t, value, fails, zero in zip(
        polls.tolist(), raw.tolist(), *(bad < [[faults.failing], [faults.zeros]]), strict=True
    ):
        step = unwrapper.feed(t, None if fails else 0.0 if zero else value)
        samples.append(CounterRead(t, step.joules, None, step.event))
    return samples, lambda a, b: float(total(b) - total(a))
