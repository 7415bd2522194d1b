"""Two runs: what changed in what was measured, end to end and layer by layer, and in how.

A difference has an interval where both runs kept their batches and answered the same samples; samples are then
resampled in pairs, so that what is hard for both does not count as noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from layerprof.books import not_counted
from layerprof.quality.bootstrap import Draws
from layerprof.records import LayerRow, Phase
from layerprof.runs import batch_files
from layerprof.runs.changes import Change, Comparison, Comparisons, LayerChange
from layerprof.runs.sides import Paired, Side

NOT_SETTINGS = ("output", "hooks", "convention")
PASSING = ("gpu.temperature_c", "gpu.clock_sm_mhz", "gpu.clock_memory_mhz")
"""Facts of the environment that are different every time and are no change."""


def compare(before: str | Path, after: str | Path) -> Comparisons:
    """Compare two runs by their folders or their `run.json`. Raises RequestError for anything else."""
    first, second = (Side.of(Path(path).expanduser()) for path in (before, after))
    return Comparisons(str(before), str(after), (two(first, second),))


def two(a: Side, b: Side, title: str = "") -> Comparison:
    """Compare two runs."""
    paired = Paired(a, b)
    return Comparison(
        title=title,
        totals=tuple(_totals(a, b, paired)),
        layers=tuple(_layers(a, b, paired)),
        settings=_differences(a.run.settings, b.run.settings, NOT_SETTINGS)
        | _differences(a.run.model, b.run.model, a.run.settings.keys() | {"transformers", "torch"})
        | _differences(a.run.dataset, b.run.dataset, ("ids", "name", "source")),
        environment=_differences(a.run.environment, b.run.environment, PASSING),
        shared_samples=len(paired.shared),
        same_answers=paired.same_answers(),
        notes=tuple(_notes(a, b, paired)),
    )


# --- end to end -------------------------------------------------------------------------------------------------


def _totals(a: Side, b: Side, paired: Paired) -> Iterator[Change]:
    before, after = a.run.totals, b.run.totals
    yield latency(a, b, paired)
    for name, label in (("ttft", "time to first token, median"), ("per_output_token", "time per output token, median")):
        x, y = getattr(before.latency_s, name), getattr(after.latency_s, name)
        if x is not None or y is not None:
            yield Change(label, "s", x.median if x else None, y.median if y else None)
    bounds = before.flops_at_least, after.flops_at_least
    yield Change("FLOPs per sample", "FLOP", before.flops_per_sample, after.flops_per_sample, at_least=bounds)
    yield Change("energy per sample", "J", before.energy.per_sample, after.energy.per_sample)
    yield Change("peak memory", "B", before.peak_memory_bytes, after.peak_memory_bytes)
    if before.wer or after.wer:
        yield word_error_rate(a, b, paired)
    if before.task_metric or after.task_metric:
        yield _task_metric(a, b, paired)
    if before.wer and after.wer:
        yield Change("answers cut short", "", before.wer.truncated_share, after.wer.truncated_share, "points")


def latency(a: Side, b: Side, paired: Paired) -> Change:
    """Return seconds per sample on both sides, paired by batches where both runs kept them, else their medians."""
    found = paired.times({x.batch: x.latency_s for x in a.batches}, {x.batch: x.latency_s for x in b.batches})
    if found is None:
        before, after = (side.run.totals.latency_s.per_sample.median for side in (a, b))
        return Change("latency per sample, median", "s", before, after)
    return Change("latency per sample", "s", found[0], found[1], "ratio", found[2], found[3])


def word_error_rate(a: Side, b: Side, paired: Paired) -> Change:
    """Return both corpus rates, with the interval of their difference over the samples that both answered."""
    sides = [side.run.totals.wer.corpus_min if side.run.totals.wer else None for side in (a, b)]
    interval, n = None, 0
    if len(paired.shared) > 1:
        before, after = (side.edits(paired.shared) for side in (a, b))
        interval, n = Draws(len(paired.shared)).difference_of_rates(after, before), len(paired.shared)
    return Change("word error rate", "", sides[0], sides[1], "points", interval, n)


def _task_metric(a: Side, b: Side, paired: Paired) -> Change:
    metrics = [side.run.totals.task_metric for side in (a, b)]
    name = next(metric.name for metric in metrics if metric)
    values = [metric.value if metric else None for metric in metrics]
    rows = [(paired.first[i].metric, paired.second[i].metric) for i in paired.shared]
    known = [(x, y) for x, y in rows if x is not None and y is not None]
    interval = None
    if len(known) > 1:
        ones = [1.0] * len(known)
        interval = Draws(len(known)).difference_of_rates(([y for _, y in known], ones), ([x for x, _ in known], ones))
    return Change(name, "", values[0], values[1], "points", interval, len(known), higher_is_worse=False)


# --- layers -----------------------------------------------------------------------------------------------------


def _layers(a: Side, b: Side, paired: Paired) -> Iterator[LayerChange]:
    """Yield the layers of the first run and those that only the second has; of what both timed, the heaviest first."""
    first = {(row.name, row.phase): row for row in a.run.layers}
    second = {(row.name, row.phase): row for row in b.run.layers}
    found = [_layer(key, first.get(key), second.get(key), a, b, paired) for key in {**first, **second}]
    yield from sorted(found, key=lambda change: -(change.span.before or 0.0))


def _layer(
    key: tuple[str, Phase], x: LayerRow | None, y: LayerRow | None, a: Side, b: Side, paired: Paired
) -> LayerChange:
    counts = (a.run.samples, b.run.samples)
    timed = paired.times(a.spans.get(key, {}), b.spans.get(key, {})) if paired.bundles else None
    if timed:
        span = Change("span per sample", "s", timed[0], timed[1], "ratio", timed[2], timed[3])
    else:
        totals = [row.span_s.total if row and row.span_s else None for row in (x, y)]
        span = Change("span per sample", "s", *_per_sample(totals, counts))
    bounds = bool(x and x.at_least), bool(y and y.at_least)
    return LayerChange(
        key[0],
        key[1],
        span,
        Change("FLOPs per sample", "FLOP", *_per_sample([x and x.flops, y and y.flops], counts), at_least=bounds),
        Change("energy per sample", "J", *_per_sample([x and x.energy_j, y and y.energy_j], counts)),
    )


def _per_sample(values: Sequence[Any], counts: tuple[int, int]) -> tuple[float | None, float | None]:
    first, second = (
        None if value is None or not count else value / count for value, count in zip(values, counts, strict=True)
    )
    return first, second


# --- what else is different -------------------------------------------------------------------------------------


def _differences(a: Mapping[str, Any], b: Mapping[str, Any], leave_out: Any) -> dict[str, tuple[Any, Any]]:
    first, second = dict(_flat(a)), dict(_flat(b))
    names = [name for name in {**first, **second} if name not in leave_out and _comparable(name, first, second)]
    return {n: (first.get(n), second.get(n)) for n in names if first.get(n) != second.get(n)}


def _comparable(name: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Tell whether both sides say it where one may be older than the saying: the rules of answers' rates."""
    return not name.startswith("normalisation.") or (name in first and name in second)


def _flat(block: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in block.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _notes(a: Side, b: Side, paired: Paired) -> Iterator[str]:
    for name, side in (("first", a), ("second", b)):
        if side.run.status != "done":
            yield f"The {name} run is {side.run.status}: its figures are of what was finished."
        if missing := not_counted.warning(side.run.ledger.flops):
            yield f"The {name} run: {missing}"
        if not side.samples:
            yield f"The {name} run has no samples.jsonl, so nothing is paired."
        elif not side.batches:
            yield f"The {name} run has no {batch_files.BATCHES_FILE}, so latency is not paired."
    if a.samples and b.samples:
        if not paired.shared:
            yield "The runs answered different samples, so nothing is paired."
        elif len(paired.shared) < max(len(a.samples), len(b.samples)):
            counts = f"{len(a.samples)} and {len(b.samples)}"
            yield f"The runs share {len(paired.shared)} of {counts} samples; pairs are of these."
        elif not paired.bundles:
            yield "No set of samples is made of whole batches in both runs, so latency is not paired."
    if bool(a.run.settings.get("fixed_tokens")) is False or bool(b.run.settings.get("fixed_tokens")) is False:
        x, y = a.run.totals.output_tokens, b.run.totals.output_tokens
        if x != y:
            yield f"The runs wrote {x} and {y} tokens; compare runs with --fixed-tokens for the same work."
