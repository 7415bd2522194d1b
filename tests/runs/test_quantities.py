"""Quantities of the whole request, throughput and cost in two runs: which figure, over what, and which way is worse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from resampling import every_resample, holds_95_percent
from sample_run import sample_run

from layerprof.quality.bootstrap import MEDIANS, RESAMPLES
from layerprof.records import RequestTotals, Run, Sample, Statistic
from layerprof.runs.batch_files import BatchTime
from layerprof.runs.changes import Change
from layerprof.runs.compare import two
from layerprof.runs.sides import Side


def run(**totals: Any) -> Run:
    """Return the sample run with other totals."""
    base = sample_run()
    return base.model_copy(update={"totals": base.totals.model_copy(update=totals)})


def sides(first: Run, second: Run, *batches: tuple[BatchTime, ...], metrics: Any = None) -> tuple[Side, Side]:
    """Return two runs that answered the same samples in batches of one."""
    count = len(batches[0]) if batches else len(metrics[0])
    scored = metrics or ((1.0,) * count,) * 2
    rows = [
        tuple(
            Sample(
                id=str(place), key=f"k{place}", batch=place, prompt="?", references=("w",), answer="w",
                answer_tokens=(), truncated=False, prompt_tokens=1, image_tokens=0, pad_tokens=0, metric=values[place],
            )
            for place in range(count)
        )
        for values in scored
    ]  # fmt: skip
    times = batches or ((), ())
    return Side(first, rows[0], times[0]), Side(second, rows[1], times[1])


def changes(pair: tuple[Side, Side]) -> dict[str, Change]:
    """Return the end-to-end changes by name."""
    return {change.quantity: change for change in two(*pair).totals}


def once(seconds: float) -> Statistic:
    """Return a statistic of one value."""
    return Statistic(median=seconds, p95=seconds, n=1)


def request(*parts: float) -> RequestTotals:
    """Return parts of a request."""
    read, process, copy, generate = map(once, parts)
    return RequestTotals(read=read, process=process, copy=copy, generate=generate)


FIRST = (0.25, 0.5, 0.125, 1.0, 0.75)
SECOND = (0.5, 0.75, 0.25, 0.5, 1.5)
READ, OTHER_READ = (1.0, 2.0, 4.0, 7.0, 11.0), (1.5, 1.6, 6.0, 6.5, 15.0)
WALL, OTHER_WALL = (2.0, 3.0, 6.0, 9.0, 13.0), (3.0, 4.0, 8.0, 8.0, 17.0)
TOKENS, OTHER_TOKENS = (5, 1, 9, 3, 7), (6, 2, 4, 3, 12)


def batch(place: int, first: float, read: float, wall: float, tokens: int) -> BatchTime:
    """Return a batch of one row whose generate() takes a second."""
    return BatchTime(place, 1, 1.0 + place, first, tokens, read, 0.5, 0.25, read + 0.75, wall)


BATCHES = tuple(batch(place, *them) for place, them in enumerate(zip(FIRST, READ, WALL, TOKENS, strict=True)))
OTHERS = tuple(
    batch(place, *them) for place, them in enumerate(zip(SECOND, OTHER_READ, OTHER_WALL, OTHER_TOKENS, strict=True))
)


def kept() -> dict[str, Change]:
    """Return the changes of two runs that kept the request of each batch."""
    times = sample_run().totals.latency_s.model_copy(update={"ttft_request": once(1.0)})
    return changes(sides(run(latency_s=times), run(latency_s=times), BATCHES, OTHERS))


def test_parts_of_the_request_are_paired_by_batches() -> None:
    """25 s of reading five images before and 30.6 s after; making tensors and copying took the same."""
    found = kept()
    read = found["read per sample"]
    assert [read.before, read.after, read.n] == pytest.approx([5.0, 6.12, 5])
    before, after = every_resample(READ, OTHER_READ)
    assert holds_95_percent(read.ci95, after / before, RESAMPLES)
    for name, seconds in (("process per sample", 0.5), ("copy per sample", 0.25)):
        assert (found[name].before, found[name].after, found[name].value) == (seconds, seconds, 1.0)


def test_samples_per_second_are_over_the_wall_time_of_the_requests() -> None:
    """Five samples in 33 s before and in 40 s after: fewer a second, which is worse."""
    rate = kept()["samples per second"]
    assert [rate.before, rate.after, rate.n] == pytest.approx([5 / 33, 5 / 40, 5])
    before, after = every_resample(WALL, OTHER_WALL)
    assert holds_95_percent(rate.ci95, before / after, RESAMPLES)
    assert rate.higher_is_worse is False


def test_tokens_per_second_are_over_the_time_of_writing() -> None:
    """25 tokens in 15 s before, 27 after: a ratio of two ratios, drawn by batch."""
    rate = kept()["output tokens per second"]
    assert [rate.before, rate.after] == pytest.approx([25 / 15, 27 / 15])
    before, after = every_resample(TOKENS, OTHER_TOKENS)
    assert holds_95_percent(rate.ci95, after / before, RESAMPLES), "both wrote for as long in each batch"


def test_first_tokens_are_compared_by_medians_of_pairs() -> None:
    """Medians of 0.5 s each in generate(); from the file on, the making of the batch comes before."""
    found = kept()
    ttft = found["time to first token, median"]
    assert (ttft.before, ttft.after, ttft.n) == (0.5, 0.5, 5)
    drawn = np.indices([5] * 5).reshape(5, -1)
    ratios = np.median(np.asarray(SECOND)[drawn], axis=0) / np.median(np.asarray(FIRST)[drawn], axis=0)
    assert holds_95_percent(ttft.ci95, ratios, MEDIANS)
    whole = found["first token from file, median"]
    assert (whole.before, whole.after) == (4.0 + 0.75 + 0.125, 6.0 + 0.75 + 0.25), (
        "the making of the third batch is in the middle"
    )


def test_without_batches_the_totals_stand_without_an_interval() -> None:
    """Medians of a batch, rates of the whole walk; where only one run has them, there is no change to be told."""
    times = sample_run().totals.latency_s.model_copy(update={"ttft_request": once(2.0)})
    more = {
        "request_s": request(1, 2, 3, 4),
        "samples_per_s": 8.0,
        "output_tokens_per_s": 80.0,
        "accepted_per_step": 2.5,
    }
    has = Side(run(latency_s=times, **more))
    found = changes((has, Side(sample_run())))
    for name, figure in (
        ("first token from file, median", 2.0), ("read per batch, median", 1.0),
        ("process per batch, median", 2.0), ("copy per batch, median", 3.0),
        ("samples per second", 8.0), ("output tokens per second", 80.0), ("tokens kept of a decode step", 2.5),
    ):  # fmt: skip
        assert (found[name].before, found[name].after, found[name].ci95) == (figure, None, None)
    assert changes((has, has))["samples per second"].value == 1.0


@pytest.mark.parametrize(
    ("name", "field", "better", "worse"),
    [
        ("samples per second", "samples_per_s", 9.0, 7.0),
        ("output tokens per second", "output_tokens_per_s", 9.0, 7.0),
        ("tokens kept of a decode step", "accepted_per_step", 9.0, 7.0),
    ],
)
def test_lower_rates_are_regressions(name: str, field: str, better: float, worse: float) -> None:
    """10 % allowed: a rate that fell by 12.5 % is worse, one that rose by as much is not."""
    for after, told in ((better, False), (worse, True)):
        found = two(Side(run(**{field: 8.0})), Side(run(**{field: after})))
        assert (name in [change.quantity for change in found.regressions(10)]) is told


# --- energy -----------------------------------------------------------------------------------------------------


def energy(per_sample: float, half: float | None, cost: float | None = None) -> Run:
    """Return a run of four samples with joules and their relative half-interval."""
    joules = 4 * per_sample
    ci95 = None if half is None else (joules * (1 - half), joules * (1 + half))
    whole = sample_run().totals.energy.model_copy(
        update={"joules": joules, "per_sample": per_sample, "ci95": ci95, "per_correct_answer": cost}
    )
    return run(energy=whole)


def test_joules_of_two_runs_have_the_doubt_of_both() -> None:
    """5 J +- 3 % and 6 J +- 4 %: the ratio is 1.2 +- 5 %, by quadrature, for so small doubts."""
    found = changes((Side(energy(5.0, 0.03)), Side(energy(6.0, 0.04))))["energy per sample"]
    assert found.ci95 == pytest.approx((1.2 * 0.95, 1.2 * 1.05), rel=0.005)
    assert changes((Side(energy(5.0, None)), Side(energy(6.0, 0.04))))["energy per sample"].ci95 is None


def test_the_cost_of_a_right_answer_has_the_doubt_of_joules_and_answers() -> None:
    """Joules known exactly leave the rates of right answers, drawn in pairs: all 3,125 ways, 1.2 times their ratio."""
    metrics = ((1.0, 1.0, 0.3, 0.6, 1.0), (0.6, 1.0, 0.6, 1.0, 0.3))
    first, second = energy(5.0, 0.0, 5 / 0.78), energy(6.0, 0.0, 6 / 0.7)
    first, second = (one.model_copy(update={"samples": 5}) for one in (first, second))
    found = changes(sides(first, second, metrics=metrics))["energy per correct answer"]
    assert (found.before, found.after, found.n, found.higher_is_worse) == (5 / 0.78, 6 / 0.7, 5, True)
    before, after = every_resample(*metrics)
    assert holds_95_percent(found.ci95, 1.2 * before / after, RESAMPLES)


def test_the_cost_is_of_the_samples_that_were_instrumented() -> None:
    """Two of five samples were walked, all right in both runs: their joules are all that is in doubt."""
    metrics = ((1.0, 1.0, 0.0, 0.0, 0.0), (1.0, 1.0, 1.0, 0.0, 1.0))
    first, second = (
        energy(joules, 0.0, joules).model_copy(update={"samples": 5, "instrumented": 2}) for joules in (5.0, 6.0)
    )
    found = changes(sides(first, second, metrics=metrics))["energy per correct answer"]
    assert found.n == 2
    assert found.ci95 == pytest.approx((1.2, 1.2))


def test_a_cost_that_one_run_lacks_has_no_interval() -> None:
    """It stands beside nothing."""
    metrics = ((1.0, 0.0, 1.0, 0.0),) * 2
    found = changes(sides(energy(5.0, 0.1, 10.0), energy(5.0, 0.1), metrics=metrics))["energy per correct answer"]
    assert (found.before, found.after, found.ci95, found.n) == (10.0, None, None, 0)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("latency per sample, median", {"latency_s": "per_sample"}),
        ("time to first token, median", {"latency_s": "ttft"}),
        ("first token from file, median", {"latency_s": "ttft_request"}),
        ("time per output token, median", {"latency_s": "per_output_token"}),
        ("read per batch, median", {"request_s": "read"}),
        ("process per batch, median", {"request_s": "process"}),
        ("copy per batch, median", {"request_s": "copy"}),
        ("FLOPs per sample", {"flops_per_sample": ""}),
        ("energy per sample", {"energy": "per_sample"}),
        ("energy per correct answer", {"energy": "per_correct_answer"}),
        ("peak memory", {"peak_memory_bytes": ""}),
        ("samples per second", {"samples_per_s": ""}),
        ("output tokens per second", {"output_tokens_per_s": ""}),
    ],
)
def test_each_quantity_is_worse_one_way_only(name: str, change: dict[str, str]) -> None:
    """Twice as much of what costs is a regression, and half of it none; of what is got in a second the other way."""
    base = sample_run().totals
    latency = base.latency_s.model_copy(update={"ttft_request": once(1.0)})
    energy = base.energy.model_copy(update={"per_correct_answer": 10.0})
    more = {"latency_s": latency, "energy": energy, "request_s": request(1, 2, 3, 4), "samples_per_s": 8.0}
    first = base.model_copy(update=more | {"output_tokens_per_s": 80.0})
    ((field, inner),) = change.items()
    told = {}
    for factor in (2, 0.5):
        value = getattr(first, field)
        if inner:
            part = getattr(value, inner)
            wanted = (
                part.model_copy(update={"median": factor * part.median})
                if isinstance(part, Statistic)
                else factor * part
            )
            changed = value.model_copy(update={inner: wanted})
        else:
            changed = type(value)(factor * value)
        second = first.model_copy(update={field: changed})
        found = two(Side(sample_run(totals=first)), Side(sample_run(totals=second)))
        told[factor] = [one.quantity for one in found.regressions(10)]
    worse, better = (0.5, 2) if "second" in name else (2, 0.5)
    assert (told[worse], told[better]) == ([name], [])


# --- layers -----------------------------------------------------------------------------------------------------


def test_memory_is_compared_by_layer_where_both_measured_it() -> None:
    """A call's peak, not a sample's."""
    base = sample_run()
    rows = [row.model_copy(update={"memory_peak_bytes": 100 * (place + 1)}) for place, row in enumerate(base.layers)]
    first = base.model_copy(update={"layers": tuple(rows)})
    second = base.model_copy(
        update={"layers": tuple(row.model_copy(update={"memory_peak_bytes": 50}) for row in rows[:-1])}
    )
    found = {(layer.name, layer.phase): layer.memory for layer in two(Side(first), Side(second)).layers}
    for place, row in enumerate(base.layers[:-1]):
        assert found[row.name, row.phase].value == 50 / (100 * (place + 1))
    assert found[base.layers[-1].name, base.layers[-1].phase].value is None
