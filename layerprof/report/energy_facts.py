"""The joules of the end-to-end block: of the run, of its phases, of a correct answer and of the host."""

from __future__ import annotations

from collections.abc import Iterator

from layerprof.records import Energy, Run
from layerprof.report import samples, units
from layerprof.report.fact import Fact, filled, joined


def facts(run: Run) -> Iterator[Fact]:
    """Yield the joules, each with its label or why there are none; all are of the instrumented samples."""
    energy, part = run.totals.energy, samples.of_part(run)
    if energy.joules is None:
        yield Fact("energy", units.MISSING, joined([*energy.flags, energy.reason or "not measured"]))
    else:
        yield Fact("energy", units.joules(energy.joules), joined([_note(energy), part]))
        yield from _by_phase(energy, run.walked, part)
    yield from _per_correct_answer(energy, part)
    if energy.host_joules is not None:
        notes = (half_width(energy.host_ci95), f"measured: {energy.host_source}", "not added to the above", part)
        yield Fact("energy of the host", units.joules(energy.host_joules), joined(notes))
    elif energy.host_reason is not None:
        yield Fact("energy of the host", units.MISSING, energy.host_reason)
    if run.totals.energy_estimate is not None:
        estimate = run.totals.energy_estimate
        note = joined([f"{units.joules(estimate.per_sample)} per sample; {estimate.formula}", part])
        yield Fact("energy, estimated", units.joules(estimate.joules), note)


def half_width(ends: tuple[float, float] | None) -> str:
    """Joules have intervals so narrow that both ends would often read alike."""
    return f"±{units.joules((ends[1] - ends[0]) / 2)}" if ends else ""


def _note(energy: Energy) -> str:
    quiet = energy.active_j is not None and energy.baseline_w is not None
    remark = ": ".join(part for part in (", ".join(energy.flags), energy.reason or "") if part)
    return joined(
        [
            half_width(energy.ci95),
            filled(units.joules(energy.per_sample), "{} per sample") if energy.per_sample is not None else "",
            filled(units.joules(energy.per_output_token), "{} per token")
            if energy.per_output_token is not None
            else "",
            filled(units.watts(energy.mean_power_w), "mean {}") if energy.mean_power_w is not None else "",
            f"{units.joules(energy.active_j)} above the {units.watts(energy.baseline_w)} of rest" if quiet else "",
            f"{energy.quality.value}: {energy.source}",
            remark,
        ]
    )


def _by_phase(energy: Energy, walked: int, part: str) -> Iterator[Fact]:
    label = f"{energy.quality.value} by difference: {energy.source}"
    for phase, joules in (energy.by_phase or {}).items():
        each = f"{units.joules(joules / walked)} per sample" if walked else ""
        ends = half_width((energy.by_phase_ci95 or {}).get(phase))
        yield Fact(f"energy of {phase}", units.joules(joules), joined([ends, each, label, part]))
    if energy.by_phase is None and energy.by_phase_reason is not None:
        yield Fact("energy by phase", units.MISSING, energy.by_phase_reason)


def _per_correct_answer(energy: Energy, part: str) -> Iterator[Fact]:
    """Yield joules over answers that are right, or why there are none; runs that do not know of it say nothing."""
    label, reason = "energy/correct answer", energy.per_correct_answer_reason
    if energy.per_correct_answer is not None:
        fit = units.interval(energy.per_correct_answer_ci95, "J")
        notes = (fit, f"{energy.quality.value}: {energy.source}", part)
        yield Fact(label, units.joules(energy.per_correct_answer), joined(notes))
    elif reason is not None:
        said = "for the reason above" if reason == energy.reason else reason
        yield Fact(label, units.MISSING, said)
