"""Joules of a whole, shared out to layers by the time they took. Label: `attributed`.

    e(layer, phase) = E(phase) * span(layer, phase) / sum of spans and gaps in the phase

This takes the power to be the same for everything that shares one whole. Within a phase that is a fair guess (published
differences: below 5 % to some tens of per cent between kernels), across phases it is not: prefill draws more than
decode. So phases are measured apart where that is affordable.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import sqrt

from layerprof.energy.windows import WindowReading
from layerprof.records import Energy, Phase, Quality

Key = tuple[str, Phase]

SHARED_BY_PHASE = "energy of the phase shared by span: takes the power to be equal within a phase"
SHARED_BY_TOTAL = (
    "energy of the whole run shared by span: takes the power to be equal in all phases, because the phases of one "
    "generate() are too short for the counter"
)


@dataclass(frozen=True, slots=True)
class Amount:
    """Joules with their 95 % interval."""

    joules: float
    ci95: tuple[float, float]

    @property
    def half(self) -> float:
        """Half the width of the interval."""
        return (self.ci95[1] - self.ci95[0]) / 2

    def __mul__(self, share: float) -> Amount:
        low, high = sorted((self.ci95[0] * share, self.ci95[1] * share))
        return Amount(self.joules * share, (low, high))

    def __sub__(self, other: Amount) -> Amount:
        return around(self.joules - other.joules, sqrt(self.half**2 + other.half**2))


def around(joules: float, half: float) -> Amount:
    """Return `joules` +- `half`."""
    return Amount(joules, (joules - half, joules + half))


def amount(reading: WindowReading) -> Amount | None:
    """Return a window's joules and interval, None where it has none."""
    if reading.joules is None or reading.ci95 is None:
        return None
    return Amount(reading.joules, reading.ci95)


@dataclass(frozen=True, slots=True)
class LayerEnergy:
    """Joules of one layer in one phase over all its calls, as `records.LayerRow` holds them."""

    joules: float | None
    ci95: tuple[float, float] | None
    quality: Quality
    reason: str | None


@dataclass(frozen=True, slots=True)
class Attribution:
    """The shares: `rows[(layer, phase)]` and `rest[gap]`, which add up to what was shared."""

    rows: dict[Key, LayerEnergy]
    rest: dict[str, float]


def attribute(
    total: Amount | WindowReading,
    spans_s: Mapping[Key, float],
    gaps_s: Mapping[tuple[str, Phase], float],
    phases: Mapping[Phase, Amount] | None = None,
) -> Attribution:
    """Share joules by time.

    `spans_s` is the time of each layer in each phase, `gaps_s` that of each named gap (seconds; shares count, not the
    scale). `phases`, where they were measured, are each shared among the phase's own layers and gaps; the layers of a
    phase without a figure have no joules. Otherwise `total` is shared among all of them. A total without joules gives
    rows without joules, with its reason. The intervals are those of what was shared: they hold the sensor's error, not
    the guess that power is equal.
    """
    whole = amount(total) if isinstance(total, WindowReading) else total
    if whole is None:
        reason = total.reason if isinstance(total, WindowReading) else None
        return Attribution(unavailable(spans_s, reason or "no energy was measured"), {})
    if phases is None:
        return Attribution(*_share(whole, spans_s, gaps_s, SHARED_BY_TOTAL))
    rows: dict[Key, LayerEnergy] = {}
    rest: dict[str, float] = {}
    for phase in Phase:
        inside = {k: s for k, s in spans_s.items() if k[1] is phase}
        if phase not in phases:
            rows.update(unavailable(inside, f"the energy of {phase} was not measured"))
            continue
        own = {k: s for k, s in gaps_s.items() if k[1] is phase}
        more, gap = _share(phases[phase], inside, own, SHARED_BY_PHASE)
        rows.update(more)
        rest.update({name: rest.get(name, 0.0) + joules for name, joules in gap.items()})
    return Attribution(rows, rest)


def unavailable(keys: Iterable[Key], reason: str) -> dict[Key, LayerEnergy]:
    """Return rows without joules, for a reason."""
    return {key: LayerEnergy(None, None, Quality.UNAVAILABLE, reason) for key in keys}


def by_difference(vision: Amount, encoded: Amount, full: Amount) -> dict[Phase, Amount]:
    """Return the energy of each phase from three loops over the same batch, joules a batch.

    `vision` ran the vision tower alone, `encoded` vision and prefill (one new token), `full` the whole `generate()`.
    Intervals add in quadrature. A difference below zero stays as it is: it says that the loops were too noisy.
    """
    return {Phase.VISION: vision, Phase.PREFILL: encoded - vision, Phase.DECODE: full - encoded}


def totals(
    window: WindowReading,
    samples: int,
    output_tokens: int,
    host: WindowReading | None = None,
    by_phase: Mapping[Phase, Amount] | None = None,
) -> Energy:
    """Return the run's energy record from the bare pass's window; joules per sample are joules over samples."""
    joules = window.joules
    return Energy(
        joules=joules,
        per_sample=None if joules is None or not samples else joules / samples,
        per_output_token=None if joules is None or not output_tokens else joules / output_tokens,
        quality=window.quality,
        source=window.source,
        reason=window.reason,
        mean_power_w=window.mean_power_w,
        ci95=window.ci95,
        baseline_w=window.baseline_w,
        by_phase=None if by_phase is None else {str(p): a.joules for p, a in by_phase.items()},
        by_phase_ci95=None if by_phase is None else {str(p): a.ci95 for p, a in by_phase.items()},
        host_joules=None if host is None else host.joules,
        host_ci95=None if host is None else host.ci95,
        host_source=None if host is None or host.joules is None else host.source,
        flags=window.flags,
    )


def _share(
    whole: Amount,
    spans_s: Mapping[Key, float],
    gaps_s: Mapping[tuple[str, Phase], float],
    reason: str,
) -> tuple[dict[Key, LayerEnergy], dict[str, float]]:
    time = sum(spans_s.values()) + sum(gaps_s.values())
    if time <= 0:
        return unavailable(spans_s, "no span was measured to share the energy by"), {}
    rows = {}
    for key, seconds in spans_s.items():
        share = whole * (seconds / time)
        rows[key] = LayerEnergy(share.joules, share.ci95, Quality.ATTRIBUTED, reason)
    rest: dict[str, float] = {}
    for (name, _), seconds in gaps_s.items():
        rest[name] = rest.get(name, 0.0) + whole.joules * seconds / time
    return rows, rest
