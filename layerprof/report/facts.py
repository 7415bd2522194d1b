"""What stands above every report: the settings in words, and the end-to-end block as label, value and note."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from layerprof import attention
from layerprof.books import not_counted
from layerprof.flops.formulas import CONVENTION
from layerprof.records import Run, Statistic, Totals, Wer
from layerprof.report import energy_facts, fed, samples, units
from layerprof.report import weights as stored_weights
from layerprof.report.fact import Fact, filled, joined

WIDEST_POINTS = 10.0
"""An interval of the cost of measuring that is wider than this says nothing."""
METRIC_NAMES = {"vqa_accuracy": "VQA accuracy", "exact_match": "exact match"}


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
        stored_weights.stored(run),
        stored_weights.adapter(run),
        get("optimization"),
        filled(attention.shown(run.model.get("attention")) or None, "attention {}"),
        "random weights" if weights == "random" else None,
        filled(run.environment.get("torch"), "torch {}"),
        filled(run.environment.get("transformers"), "transformers {}"),
        _samples(run),
        filled(get("batch_size"), "batch {}"),
        fed.told(run),
        filled(get("max_input_len"), "question ≤ {} tokens"),
        filled(get("max_new_tokens"), "answer {} {} tokens", "=" if get("fixed_tokens") else "≤"),
        f"layers {get('layers')}" if get("layers") not in (None, "all") else None,
    )
    return [str(part) for part in named if part]


def _samples(run: Run) -> str:
    part = f" ({units.count(run.walked)} instrumented)" if run.walked != run.samples else ""
    return units.many(run.samples, "sample") + part


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
        ("first token from file", latency.ttft_request),
        ("time per output token", latency.per_output_token),
    )
    facts += [*_throughput(totals), *_made_ahead(run)]
    facts.append(Fact("FLOPs", units.bound(units.flops(totals.flops), totals.flops_at_least), _work_note(run)))
    facts += energy_facts.facts(run)
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
    return Fact(label, figure, joined([interval, what, samples.of_part(run)]))


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
    count = f"{units.many(edits, 'edit')} in {units.many(wer.reference_words, 'word')}"
    notes = [_percent_interval(wer.ci95), count]
    notes += (
        [f"first reference {units.percent(wer.corpus_first)}"] if wer.corpus_first not in (None, wer.corpus_min) else []
    )
    notes += [f"{units.percent(wer.truncated_share)} cut short"] if wer.truncated_share else []
    notes += [f"{wer.unscored} without reference"] if wer.unscored else []
    return Fact("word error rate", units.percent(wer.corpus_min), joined(notes))


def _times(*measured: tuple[str, Statistic | None]) -> list[Fact]:
    facts = []
    for label, statistic in measured:
        if statistic is not None:
            fit = units.scale([statistic.median], "s")
            interval = units.bracket(statistic.ci95, fit)
            spread = f"p95 {fit.show(statistic.p95)}" if statistic.n > 1 else ""
            note = joined([interval, spread, f"n {units.count(statistic.n)}" if statistic.n else ""])
            facts.append(Fact(label, units.seconds(statistic.median), note))
    return facts


def _throughput(totals: Totals) -> Iterator[Fact]:
    """Yield answers and tokens per second, and what a step of decode gives where it may give several tokens."""
    if totals.samples_per_s is not None:
        yield Fact("samples/s", units.number(totals.samples_per_s), "from the image file to the answer")
    if totals.output_tokens_per_s is not None:
        yield Fact("output tokens/s", units.number(totals.output_tokens_per_s), "over the time of generate()")
    if totals.accepted_per_step is not None:
        each = "tokens that a row keeps of a decode step, on average"
        yield Fact("accepted per step", units.number(totals.accepted_per_step), each)


def _made_ahead(run: Run) -> Iterator[Fact]:
    """Yield what making batches ahead saves, where that was asked for, or why it is not known."""
    walked = run.passes.get("prefetch")
    if not isinstance(walked, Mapping) or not walked.get("ratio"):
        if run.settings.get("prefetch"):
            reasons = run.passes.get("reasons")
            why = reasons.get("prefetch") if isinstance(reasons, Mapping) else None
            yield Fact("prefetch", units.MISSING, why or "its walk did not run")
        return
    if not (ends := walked.get("ratio_ci95")):
        yield Fact("prefetch", units.MISSING, "not known here: too few batches for an interval")
        return
    interval = f"[{points(ends[0])}, {points(ends[1])}]"
    if ends[0] <= 1 <= ends[1] and 100 * (ends[1] - ends[0]) > WIDEST_POINTS:
        yield Fact("prefetch", units.MISSING, f"not known here: {interval} %, since times vary by more than it saves")
        return
    ahead = units.many(int(walked.get("ahead") or 0), "batch", "es")
    told = f"the walk with {ahead} made ahead over that without"
    notes = (interval, told, samples.of_part(run))
    yield Fact("prefetch", f"{points(walked['ratio'])} %", joined(notes))


def _work_note(run: Run) -> str:
    totals = run.totals
    if totals.flops is None:
        return run.ledger.flops.reason or ""
    at_least = totals.flops_at_least
    told = totals.flops and totals.flops_useful is not None and not at_least  # of a bound there is no share
    useful = (totals.flops_useful or 0) / totals.flops if told else None
    each = units.bound(units.flops(totals.flops_per_sample), at_least)
    calls = sum(missed.calls for missed in run.ledger.flops.not_counted.values())
    return joined(
        [
            f"{each} per sample" if totals.flops_per_sample else "",
            f"{units.count(calls)} {'call is' if calls == 1 else 'calls are'} not counted" if at_least else "",
            f"{units.percent(useful)} on real tokens" if useful is not None and useful < 1 else "",
            samples.of_part(run),
        ]
    )


def _tokens(run: Run) -> Fact:
    totals = run.totals
    prompt = (totals.prompt_tokens or 0) + (totals.pad_tokens or 0)
    padding = (totals.pad_tokens or 0) / prompt if prompt else None
    notes = [
        f"{units.count(totals.prompt_tokens)} prompt" if totals.prompt_tokens else "",
        f"{units.count(totals.image_tokens)} of them image" if totals.image_tokens else "",
        f"{units.percent(padding)} padding" if padding else "",
    ]
    return Fact("output tokens", units.count(totals.output_tokens), joined(notes))


def _percent_interval(ends: tuple[float, float] | None) -> str:
    return f"[{ends[0] * 100:.1f}, {ends[1] * 100:.1f}]" if ends else ""
