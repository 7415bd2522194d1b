"""What two runs are compared by end to end, in the order of a report, each with the interval that it can have.

Over batches and samples that both runs answered, intervals are of pairs: what is hard for both is no noise. Where the
runs have none in common, each side's own batches and samples are resampled instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from layerprof.books import cost
from layerprof.quality.bootstrap import Apart, Draws, Floats, Rate
from layerprof.records import Statistic
from layerprof.runs.batch_files import BatchTime
from layerprof.runs.changes import Change
from layerprof.runs.pairing import match
from layerprof.runs.sides import BatchRate, Paired, Side, rate

PARTS = ("read", "process", "copy")


def totals(a: Side, b: Side, paired: Paired) -> Iterator[Change]:
    """Yield the end-to-end changes; what neither run has is left out."""
    before, after = a.run.totals, b.run.totals
    x, y = before.latency_s, after.latency_s
    yield latency(a, b, paired)
    yield from _first_token("time to first token, median", lambda one: one.first_token_s, x.ttft, y.ttft, paired)
    label = "first token from file, median"
    yield from _first_token(label, _from_file, x.ttft_request, y.ttft_request, paired)
    yield from _medians("time per output token, median", x.per_output_token, y.per_output_token)
    for part in PARTS:
        yield from _request(part, a, b, paired)
    yield from _throughput(a, b, paired)
    yield from _either("tokens kept of a decode step", "tokens", before.accepted_per_step, after.accepted_per_step)
    bounds = before.flops_at_least, after.flops_at_least
    yield Change("FLOPs per sample", "FLOP", before.flops_per_sample, after.flops_per_sample, at_least=bounds)
    yield from _energy(a, b)
    yield Change("peak memory", "B", before.peak_memory_bytes, after.peak_memory_bytes)
    if before.wer or after.wer:
        yield word_error_rate(a, b, paired)
    if before.task_metric or after.task_metric:
        yield _task_metric(a, b, paired)
    if before.wer and after.wer:
        yield Change("answers cut short", "", before.wer.truncated_share, after.wer.truncated_share, "points")


# --- times ------------------------------------------------------------------------------------------------------


def latency(a: Side, b: Side, paired: Paired) -> Change:
    """Return seconds per sample on both sides: over batches where both runs kept them, else their medians."""
    before, after = (_by_batch(side, lambda one: one.latency_s, _rows_of(side)) for side in (a, b))
    found = paired.all.compared("latency per sample", "s", before, after)
    first, second = (side.run.totals.latency_s.per_sample.median for side in (a, b))
    return found or Change("latency per sample, median", "s", first, second)


def _first_token(
    label: str,
    time: Callable[[BatchTime], float | None],
    before: Statistic | None,
    after: Statistic | None,
    paired: Paired,
) -> Iterator[Change]:
    """Yield a time of each batch by its median: with an interval where both runs kept their batches."""
    kept = [{one.batch: time(one) for one in side.batches} for side in (paired.a, paired.b)]
    first, second = ({batch: it for batch, it in times.items() if it is not None} for times in kept)
    found = paired.all.medians(label, first, second) if before and after else None
    yield from [found] if found else _medians(label, before, after)


def _from_file(one: BatchTime) -> float | None:
    """Return the seconds of a batch from its image files to its first token."""
    return None if one.made_s is None or one.first_token_s is None else one.made_s + one.first_token_s


def _request(part: str, a: Side, b: Side, paired: Paired) -> Iterator[Change]:
    """Yield one part of the way to the device: a sample where batches were kept with it, else a batch, by medians."""
    before, after = (_by_batch(side, lambda one: getattr(one, f"{part}_s"), _rows_of(side)) for side in (a, b))
    found = paired.all.compared(f"{part} per sample", "s", before, after)
    parts = [getattr(side.run.totals.request_s, part) if side.run.totals.request_s else None for side in (a, b)]
    yield from [found] if found else _medians(f"{part} per batch, median", *parts)


def _throughput(a: Side, b: Side, paired: Paired) -> Iterator[Change]:
    before, after = a.run.totals, b.run.totals
    rates = [_by_batch(side, _rows_of(side), lambda one: one.wall_s) for side in (a, b)]
    found = paired.all.compared("samples per second", "/s", *rates, higher_is_worse=False)
    whole = _either("samples per second", "/s", before.samples_per_s, after.samples_per_s)
    yield from [found] if found else whole
    rates = [_by_batch(side, lambda one: one.new_tokens, lambda one: one.latency_s) for side in (a, b)]
    found = paired.all.compared("output tokens per second", "/s", *rates, higher_is_worse=False)
    whole = _either("output tokens per second", "/s", before.output_tokens_per_s, after.output_tokens_per_s)
    yield from [found] if found else whole


def _by_batch(
    side: Side, over: Callable[[BatchTime], float | None], under: Callable[[BatchTime], float | None]
) -> BatchRate:
    both = {one.batch: (over(one), under(one)) for one in side.batches}
    return {batch: (x, y) for batch, (x, y) in both.items() if x is not None and y is not None}


def _rows_of(side: Side) -> Callable[[BatchTime], float | None]:
    return lambda one: side.rows.get(one.batch, one.rows)


def _medians(label: str, before: Statistic | None, after: Statistic | None) -> Iterator[Change]:
    if before is not None or after is not None:
        yield Change(label, "s", before.median if before else None, after.median if after else None)


def _either(label: str, unit: str, before: float | None, after: float | None) -> Iterator[Change]:
    """Yield what is the better the higher it is, where a side has it."""
    if before is not None or after is not None:
        yield Change(label, unit, before, after, higher_is_worse=False)


# --- energy -----------------------------------------------------------------------------------------------------


def _energy(a: Side, b: Side) -> Iterator[Change]:
    before, after = a.run.totals.energy, b.run.totals.energy
    each = cost.ratio_interval(before, after)
    yield Change("energy per sample", "J", before.per_sample, after.per_sample, ci95=each)
    costs = before.per_correct_answer, after.per_correct_answer
    if costs == (None, None):
        return
    rights, n, apart = _rights(a, b)
    interval = cost.ratio_interval(before, after, rights) if rights and None not in costs else None
    counts = (n, apart) if interval else (0, None)
    yield Change("energy per correct answer", "J", *costs, "ratio", interval, counts[0], apart=counts[1])


def _rights(a: Side, b: Side) -> tuple[tuple[Floats, Floats] | None, int, tuple[int, int] | None]:
    """Return resampled rates of right answers of both runs' instrumented samples, in pairs where these are the same."""
    samples = [side.samples[: side.run.walked] for side in (a, b)]
    found = match(*samples)
    if found.same:
        pairs = [(samples[0][x].metric, samples[1][y].metric) for x, y in zip(*found.places, strict=True)]
        known = [(x, y) for x, y in pairs if x is not None and y is not None]
        rates = Draws(len(known)).rates(_mean([y for _, y in known]), _mean([x for x, _ in known]))
        return rates, len(known), None
    first, second = ([one.metric for one in side if one.metric is not None] for side in samples)
    return Apart(len(first), len(second)).rates(_mean(second), _mean(first)), 0, (len(first), len(second))


def _mean(values: list[float]) -> Rate:
    return values, [1.0] * len(values)


# --- answers ----------------------------------------------------------------------------------------------------


def word_error_rate(a: Side, b: Side, paired: Paired) -> Change:
    """Return both corpus rates with the interval of their difference, over the samples that both answered.

    Without two of these, each run's rate is of its own samples, and so is the interval.
    """
    rates = [side.run.totals.wer.corpus_min if side.run.totals.wer else None for side in (a, b)]
    if paired.shared > 1 or paired.match.same:
        columns = [side.edits(places) for side, places in zip((a, b), paired.match.places, strict=True)]
        return _difference("word error rate", rates, columns, paired, True, higher_is_worse=True)
    return _difference("word error rate", rates, [a.edits(), b.edits()], paired, False, higher_is_worse=True)


def _task_metric(a: Side, b: Side, paired: Paired) -> Change:
    metrics = [side.run.totals.task_metric for side in (a, b)]
    name = next(metric.name for metric in metrics if metric)
    values = [metric.value if metric else None for metric in metrics]
    known = [(x.metric, y.metric) for x, y in paired.samples() if x.metric is not None and y.metric is not None]
    if len(known) > 1 or paired.match.same:
        columns = [_mean([x for x, _ in known]), _mean([y for _, y in known])]
        return _difference(name, values, columns, paired, True, higher_is_worse=False)
    each = [_mean([one.metric for one in side.samples if one.metric is not None]) for side in (a, b)]
    return _difference(name, values, each, paired, False, higher_is_worse=False)


def _difference(
    name: str,
    values: Sequence[float | None],
    rates: Sequence[Rate],
    paired: Paired,
    in_pairs: bool,
    *,
    higher_is_worse: bool,
) -> Change:
    """Return how a rate of answers changed.

    `values` are those of the whole runs, which stand where the runs answered the same samples or none of the same.
    """
    (before, after), (x, y) = rates, values
    counts = len(before[0]), len(after[0])
    if in_pairs and not paired.match.same:
        x, y = (None if x is None else rate(before)), (None if y is None else rate(after))
    draws = Draws(counts[0]) if in_pairs else Apart(*counts)
    interval = None if x is None or y is None else draws.difference_of_rates(after, before)
    n = counts[0] if in_pairs else 0
    apart = counts if interval and not in_pairs else None
    return Change(name, "", x, y, "points", interval, n, higher_is_worse, apart=apart)
