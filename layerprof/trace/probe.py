"""What short recordings show of a profiler: whether it records what was launched, and what it leaves behind. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from layerprof.registry import Kind
from layerprof.trace.attribution import Attribution

MUCH = 0.05
"""From this share on, what runs after a recording is called slower."""


@dataclass(frozen=True, slots=True)
class ProbeSession:
    """One recording of the probe's work.

    `ours` says that it was opened as layerprof opens its own, with launches made to be lost; else as torch does.
    `launches` is how many kernels and graphs the work launched, `lost` how many of them have no record, `orphans` how
    many pieces of work have no launch. `after_s` is how long the same work takes, unrecorded, right after it.
    """

    ours: bool
    launches: int
    lost: int
    orphans: int
    warm_up_lost: int
    after_s: float

    @classmethod
    def of(cls, ours: bool, trace: Attribution, after_s: float) -> ProbeSession:
        """Return what a session's trace shows; a CPU has no launches."""
        return cls(ours, trace.launches, trace.launched_not_recorded, trace.orphans, trace.warm_up_lost, after_s)


@dataclass(frozen=True, slots=True)
class Probe:
    """The sessions of one process in their order; `bare_s` are two times of the same work before the first.

    `teardown` is the environment's TEARDOWN_CUPTI, None where it is not set.
    """

    device: str
    teardown: str | None
    bare_s: tuple[float, float]
    sessions: tuple[ProbeSession, ...]

    def slowdown(self) -> float:
        """Return by which share work takes longer after a session, as the median over them against both bare times."""
        return median(one.after_s for one in self.sessions) / median(self.bare_s) - 1

    def noise(self) -> float:
        """Return by which share the two bare times differ: a slowdown below that is none."""
        return abs(self.bare_s[1] / self.bare_s[0] - 1)

    def lost(self, ours: bool) -> tuple[int, ...]:
        """Return the lost launches of each session of one kind."""
        return tuple(one.lost for one in self.sessions if one.ours == ours)

    @property
    def own(self) -> tuple[ProbeSession, ...]:
        """Those opened as layerprof opens its own."""
        return tuple(one for one in self.sessions if one.ours)

    @property
    def seen(self) -> int:
        """How many launches of layerprof's own sessions were recorded."""
        return sum(one.launches - one.lost for one in self.own)

    @property
    def trusted(self) -> bool:
        """Whether layerprof's own sessions lost nothing."""
        return bool(self.seen) and not any(one.lost or one.orphans for one in self.own)

    def facts(self) -> dict[str, Any]:
        """Return the fields by name, and what follows from them."""
        return asdict(self) | {"slowdown": self.slowdown(), "noise": self.noise(), "trusted": self.trusted}


PROBE: Kind[Callable[[str], Probe]] = Kind("probe")
"""Probes the profiler of a device ('cuda:N'), about ten seconds."""


def told(probe: Probe) -> str:
    """Return in one line whether traces can be trusted, and what they cost what runs after them."""
    if not probe.seen:
        return "work ran and none of it was recorded"
    own = probe.own
    launches, orphans = sum(one.launches for one in own), sum(one.orphans for one in own)
    lost = sum(probe.lost(ours=True))
    if probe.trusted:
        found = f"traces can be trusted: {launches} launches in {len(own)} recordings, none lost"
    else:
        found = f"traces are not whole: of {launches} launches in {len(own)} recordings {lost} were lost"
        found += f", and {orphans} kernels have no launch" if orphans else ""
    without = probe.lost(ours=False)
    if any(without):
        found += f" (without launches ahead of them: {_listed(without)})"
    return f"{found}; {_afterwards(probe)}"


def slower(probe: Probe) -> bool:
    """Tell whether work takes noticeably longer once something was recorded."""
    return probe.slowdown() > max(MUCH, 2 * probe.noise())


def _afterwards(probe: Probe) -> str:
    noise = f"two times before differ by {100 * probe.noise():.0f} %"
    return f"afterwards work takes {100 * probe.slowdown():+.0f} % ({noise})"


def _listed(counts: Sequence[int]) -> str:
    return ", ".join(str(count) for count in counts)
