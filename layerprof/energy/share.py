"""Joules of a whole, shared out to layers by the time they took. Label: `attributed`.

    e(layer, phase) = E(phase) * span(layer, phase) / sum of spans and gaps in the phase

This takes the power to be the same for everything that shares one whole. Within a phase that is a fair guess (published
differences: below 5 % to some tens of per cent between kernels), across phases it is not: prefill draws more than
decode. So phases are measured apart where that is affordable.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from layerprof.energy.amount import Amount, ci95_of, joules_of
from layerprof.energy.windows import WindowReading
from layerprof.readings import Key
from layerprof.records import Energy, Phase, Quality

SHARED_BY_PHASE = "energy of the phase shared by span: takes the power to be equal within a phase"
SHARED_BY_TOTAL = (
    "energy of the whole run shared by span: takes the power to be equal in all phases, because the phases of one "
    "generate() are too short for the counter"
)


@dataclass(frozen=True, slots=True)
class RowEnergy:
    """Joules of one row over all its calls; `energy` is None exactly where `quality` is `unavailable`."""

    energy: Amount | None
    quality: Quality
    reason: str | None


@dataclass(frozen=True, slots=True)
class Shares:
    """`rows[(layer, phase)]` and the joules of each named gap in `rest`, which add up to what was shared."""

    rows: dict[Key, RowEnergy]
    rest: dict[str, float]


def attribute(
    total: Amount | None,
    spans_s: Mapping[Key, float],
    gaps_s: Mapping[tuple[str, Phase], float],
    phases: Mapping[Phase, Amount] | None = None,
    *,
    why_none: str | None = None,
) -> Shares:
    """Share joules by time.

    `spans_s` is the time of each layer in each phase, `gaps_s` that of each named gap (seconds; shares count, not the
    scale). `phases`, where they were measured, are each shared among the phase's own layers and gaps; the layers of a
    phase without a figure have no joules. Otherwise `total` is shared among all of them. Without it no row has joules,
    and `why_none` is their reason. The intervals are those of what was shared: they hold the sensor's error, not the
    guess that power is equal.
    """
    if total is None:
        return Shares(unavailable(spans_s, why_none or "no energy was measured"), {})
    if phases is None:
        return Shares(*_share(total, spans_s, gaps_s, SHARED_BY_TOTAL))
    rows: dict[Key, RowEnergy] = {}
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
    return Shares(rows, rest)


def unavailable(keys: Iterable[Key], reason: str) -> dict[Key, RowEnergy]:
    """Return rows without joules, for a reason."""
    return {key: RowEnergy(None, Quality.UNAVAILABLE, reason) for key in keys}


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
    joules = joules_of(window.energy)
    return Energy(
        joules=joules,
        per_sample=None if joules is None or not samples else joules / samples,
        per_output_token=None if joules is None or not output_tokens else joules / output_tokens,
        quality=window.quality,
        source=window.source,
        reason=window.reason,
        mean_power_w=window.mean_power_w,
        ci95=ci95_of(window.energy),
        baseline_w=window.baseline_w,
        by_phase=None if by_phase is None else {str(p): a.joules for p, a in by_phase.items()},
        by_phase_ci95=None if by_phase is None else {str(p): a.ci95 for p, a in by_phase.items() if a.ci95},
        host_joules=joules_of(host.energy) if host else None,
        host_ci95=ci95_of(host.energy) if host else None,
        host_source=host.source if host and host.energy else None,
        flags=window.flags,
    )


def _share(
    whole: Amount,
    spans_s: Mapping[Key, float],
    gaps_s: Mapping[tuple[str, Phase], float],
    reason: str,
) -> tuple[dict[Key, RowEnergy], dict[str, float]]:
    time = sum(spans_s.values()) + sum(gaps_s.values())
    if time <= 0:
        return unavailable(spans_s, "no span was measured to share the energy by"), {}
    rows = {key: RowEnergy(whole * (s / time), Quality.ATTRIBUTED, reason) for key, s in spans_s.items()}
    rest: dict[str, float] = {}
    for (name, _), seconds in gaps_s.items():
        rest[name] = rest.get(name, 0.0) + whole.joules * seconds / time
    return rows, rest
