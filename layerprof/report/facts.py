"""What stands above every report: the settings in words, and the end-to-end block as label, value and note."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from layerprof.books import not_counted
from layerprof.flops.formulas import CONVENTION
from layerprof.records import Energy, Run, Statistic, Wer
from layerprof.report import units

WIDEST_POINTS = 10.0
"""An interval of the cost of measuring that is wider than this says nothing."""
METRIC_NAMES = {"vqa_accuracy": "VQA accuracy", "exact_match": "exact match"}


@dataclass(frozen=True, slots=True)
class Fact:
    """One figure of the end-to-end block; `note` qualifies it: interval, counts, source, or why there is none."""

    label: str
    value: str
    note: str = ""


def title(run: Run) -> str:
    """Return what was measured on what, e.g. `demo on textvqa`."""
    return f"{model_name(run)} on {run.dataset.get('name') or run.settings.get('dataset') or 'own inputs'}"


def model_name(run: Run) -> str:
    """Return the model's name as the run has it."""
    return str(run.model.get("name") or run.settings.get("model") or "model")


def convention(run: Run) -> str:
    """Return what the FLOP figures count."""
    return str(run.settings.get("convention") or CONVENTION)


def settings(run: Run) -> list[str]:
    """Return the settings that the figures depend on, a few words each; what the run does not say is left out."""
    get, weights = run.settings.get, run.model.get("weights") or run.settings.get("weights")
    named = (
        run.environment.get("device_name") or run.environment.get("device") or get("device"),
        _dtype(run),
        get("optimization"),
        "random weights" if weights == "random" else None,
        _with(run.environment.get("torch"), "torch {}"),
        _with(run.environment.get("transformers"), "transformers {}"),
        f"{units.count(run.samples)} sample{'' if run.samples == 1 else 's'}",
        _with(get("batch_size"), "batch {}"),
        _image(run),
        _with(get("max_input_len"), "question ≤ {} tokens"),
        _with(get("max_new_tokens"), "answer {} {} tokens", "=" if get("fixed_tokens") else "≤"),
        f"layers {get('layers')}" if get("layers") not in (None, "all") else None,
    )
    return [str(part) for part in named if part]


def _image(run: Run) -> str | None:
    """Return the images' size, and how many tokens of a prompt stand for one's, as they were counted."""
    size, tokens = run.settings.get("image_size"), run.totals.image_tokens
    if not isinstance(size, int):
        return None
    if not tokens or not run.samples:
        return f"{size} px"
    each = tokens / run.samples
    counted = f"{each:.0f} image tokens" if each.is_integer() else f"{units.number(each)} image tokens on average"
    return f"{size} px ({counted})"


def _dtype(run: Run) -> str | None:
    """Return the number format, with the checkpoint's own where that is another."""
    used, own = run.settings.get("dtype"), run.model.get("checkpoint_dtype")
    return f"{used} (published in {own})" if used and own and own != used else used


def end_to_end(run: Run) -> list[Fact]:
    """Return the end-to-end block: quality, latency, work, energy, memory, and what measuring cost."""
    totals, latency = run.totals, run.totals.latency_s
    facts = [] if totals.wer is None else [_wer(totals.wer)]
    if totals.task_metric is not None:
        metric = totals.task_metric
        name = METRIC_NAMES.get(metric.name, metric.name)
        facts.append(Fact(name, units.percent(metric.value), _percent_interval(metric.ci95)))
    facts += _times(
        ("latency per batch", latency.per_batch),
        ("latency per sample", latency.per_sample),
        ("time to first token", latency.ttft),
        ("time per output token", latency.per_output_token),
    )
    facts.append(Fact("FLOPs", units.bound(units.flops(totals.flops), totals.flops_at_least), _work_note(run)))
    facts += _energy(totals.energy, run.samples)
    if totals.energy_estimate is not None:
        estimate = totals.energy_estimate
        note = f"{units.joules(estimate.per_sample)} per sample; {estimate.formula}"
        facts.append(Fact("energy, estimated", units.joules(estimate.joules), note))
    reasons = run.passes.get("reasons")
    why = reasons.get("peak_memory_bytes", "") if isinstance(reasons, Mapping) else ""
    facts.append(
        Fact("peak memory", units.size(totals.peak_memory_bytes), "" if totals.peak_memory_bytes else str(why))
    )
    if totals.output_tokens is not None:
        facts.append(_tokens(run))
    if totals.overhead_ratio is not None:
        facts.append(_cost_of_measuring(run, totals.overhead_ratio))
    return facts


def known_overhead(run: Run) -> float | None:
    """Return the latency pass over the bare pass where its interval is narrow enough to say something."""
    totals, ends = run.totals, run.totals.overhead_ci95
    if run.format == 1:  # had no interval
        return totals.overhead_ratio
    return totals.overhead_ratio if ends and 100 * (ends[1] - ends[0]) <= WIDEST_POINTS else None


def _cost_of_measuring(run: Run, ratio: float) -> Fact:
    """Return what the latency pass cost, or that it is not known: a figure that noise drowns is none."""
    label, figure, what = "cost of measuring", f"{points(ratio)} %", "latency pass over bare pass"
    interval = overhead_interval(run)
    if run.format == 1:  # two walks apart in time, of which nobody knows what drifted meanwhile
        return Fact(label, figure, f"{what}, seconds apart")
    if not interval:
        return Fact(label, units.MISSING, "not known here: too few batches for an interval")
    if known_overhead(run) is None:
        return Fact(label, units.MISSING, f"not known here: {interval} %, since times vary by more than it takes")
    return Fact(label, figure, f"{interval}, {what}")


def overhead_interval(run: Run) -> str:
    """Return the interval of the cost of measuring in points, e.g. `[+0.3, +1.4]`; empty where there is none."""
    ends = run.totals.overhead_ci95
    return f"[{points(ends[0])}, {points(ends[1])}]" if ends else ""


def points(ratio: float) -> str:
    """Return a ratio's distance from one in points, with its sign; what rounds to zero has a plus."""
    return f"{round(100 * (ratio - 1), 1) + 0.0:+.1f}"


def warnings(run: Run) -> list[str]:
    """Return what the reader of the figures must know: the run's own warnings, and operators that were not counted.

    Runs of older formats do not warn of these themselves, nor do they know the layers.
    """
    missing = not_counted.warning(run.ledger.flops)
    return [*run.warnings, *([missing] if missing and missing not in run.warnings else [])]


def energy_quality(run: Run) -> str:
    """Return how the layers' joules were obtained, `mixed` when not all alike, empty when there are none."""
    kinds = sorted({row.energy_quality.value for row in run.layers if row.energy_j is not None})
    return kinds[0] if len(kinds) == 1 else "mixed" if kinds else ""


def energy_label(run: Run) -> str:
    """Return what stands with every joule of the layers, e.g. `replayed: nvml_counter`; empty when there are none."""
    sources = {row.energy_source or run.totals.energy.source for row in run.layers if row.energy_j is not None}
    return f"{energy_quality(run)}: {', '.join(sorted(sources))}" if sources else ""


def _wer(wer: Wer) -> Fact:
    edits = wer.substitutions + wer.deletions + wer.insertions
    count = f"{edits} {'edit' if edits == 1 else 'edits'} in {units.count(wer.reference_words)} words"
    notes = [_percent_interval(wer.ci95), count]
    notes += (
        [f"first reference {units.percent(wer.corpus_first)}"] if wer.corpus_first not in (None, wer.corpus_min) else []
    )
    notes += [f"{units.percent(wer.truncated_share)} cut short"] if wer.truncated_share else []
    notes += [f"{wer.unscored} without reference"] if wer.unscored else []
    return Fact("word error rate", units.percent(wer.corpus_min), _join(notes))


def _times(*measured: tuple[str, Statistic | None]) -> list[Fact]:
    facts = []
    for label, statistic in measured:
        if statistic is not None:
            fit = units.scale([statistic.median], "s")
            ends = statistic.ci95
            interval = f"[{fit.show(ends[0])}, {fit.show(ends[1])}]" if ends else ""
            spread = f"p95 {fit.show(statistic.p95)}" if statistic.n > 1 else ""
            note = _join([interval, spread, f"n {units.count(statistic.n)}" if statistic.n else ""])
            facts.append(Fact(label, units.seconds(statistic.median), note))
    return facts


def _work_note(run: Run) -> str:
    totals = run.totals
    if totals.flops is None:
        return run.ledger.flops.reason or ""
    at_least = totals.flops_at_least
    told = totals.flops and totals.flops_useful is not None and not at_least  # of a bound there is no share
    useful = (totals.flops_useful or 0) / totals.flops if told else None
    each = units.bound(units.flops(totals.flops_per_sample), at_least)
    calls = sum(missed.calls for missed in run.ledger.flops.not_counted.values())
    return _join(
        [
            f"{each} per sample" if totals.flops_per_sample else "",
            f"{units.count(calls)} {'call is' if calls == 1 else 'calls are'} not counted" if at_least else "",
            f"{units.percent(useful)} on real tokens" if useful is not None and useful < 1 else "",
        ]
    )


def _energy(energy: Energy, samples: int) -> Iterator[Fact]:
    """Yield the joules of the run, of its phases and of the host, each with its label or why there are none."""
    if energy.joules is None:
        yield Fact("energy", units.MISSING, _join([*energy.flags, energy.reason or "not measured"]))
    else:
        yield Fact("energy", units.joules(energy.joules), _energy_note(energy))
        yield from _energy_by_phase(energy, samples)
    if energy.host_joules is not None:
        notes = (_half_width(energy.host_ci95), f"measured: {energy.host_source}", "not added to the above")
        yield Fact("energy of the host", units.joules(energy.host_joules), _join(notes))
    elif energy.host_reason is not None:
        yield Fact("energy of the host", units.MISSING, energy.host_reason)


def _energy_note(energy: Energy) -> str:
    quiet = energy.active_j is not None and energy.baseline_w is not None
    remark = ": ".join(part for part in (", ".join(energy.flags), energy.reason or "") if part)
    return _join(
        [
            _half_width(energy.ci95),
            _with(units.joules(energy.per_sample), "{} per sample") if energy.per_sample is not None else "",
            _with(units.joules(energy.per_output_token), "{} per token") if energy.per_output_token is not None else "",
            _with(units.watts(energy.mean_power_w), "mean {}") if energy.mean_power_w is not None else "",
            f"{units.joules(energy.active_j)} above the {units.watts(energy.baseline_w)} of rest" if quiet else "",
            f"{energy.quality.value}: {energy.source}",
            remark,
        ]
    )


def _energy_by_phase(energy: Energy, samples: int) -> Iterator[Fact]:
    label = f"{energy.quality.value} by difference: {energy.source}"
    for phase, joules in (energy.by_phase or {}).items():
        each = f"{units.joules(joules / samples)} per sample" if samples else ""
        ends = _half_width((energy.by_phase_ci95 or {}).get(phase))
        yield Fact(f"energy of {phase}", units.joules(joules), _join([ends, each, label]))
    if energy.by_phase is None and energy.by_phase_reason is not None:
        yield Fact("energy by phase", units.MISSING, energy.by_phase_reason)


def _half_width(ends: tuple[float, float] | None) -> str:
    """Joules have intervals so narrow that both ends would often read alike."""
    return f"±{units.joules((ends[1] - ends[0]) / 2)}" if ends else ""


def _tokens(run: Run) -> Fact:
    totals = run.totals
    prompt = (totals.prompt_tokens or 0) + (totals.pad_tokens or 0)
    padding = (totals.pad_tokens or 0) / prompt if prompt else None
    notes = [
        f"{units.count(totals.prompt_tokens)} prompt" if totals.prompt_tokens else "",
        f"{units.count(totals.image_tokens)} of them image" if totals.image_tokens else "",
        f"{units.percent(padding)} padding" if padding else "",
    ]
    return Fact("output tokens", units.count(totals.output_tokens), _join(notes))


def _percent_interval(ends: tuple[float, float] | None) -> str:
    return f"[{ends[0] * 100:.1f}, {ends[1] * 100:.1f}]" if ends else ""


def _with(value: Any, form: str, *more: Any) -> str | None:
    """Fill the form; the value goes last, so that a sign may stand before it."""
    return None if value is None else form.format(*more, value)


def _join(notes: Iterable[str | None]) -> str:
    return ", ".join(note for note in notes if note)
