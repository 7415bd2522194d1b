"""Two runs side by side in memory: which quantities are compared, over which samples, with which interval."""

from __future__ import annotations

from typing import Any

import pytest
from resampling import every_resample, holds_95_percent
from sample_run import sample_run

from layerprof.quality.bootstrap import RESAMPLES
from layerprof.records import Phase, Run, Sample
from layerprof.runs.batch_files import BatchTime
from layerprof.runs.changes import Change
from layerprof.runs.compare import two
from layerprof.runs.sides import Side


def run(**totals: Any) -> Run:
    """Return the sample run with other totals."""
    base = sample_run()
    return base.model_copy(update={"totals": base.totals.model_copy(update=totals)})


def sample(name: str, batch: int, errors: int, words: int, metric: float | None, *tokens: int) -> Sample:
    """Return a sample whose answer has so many errors against a reference of so many words."""
    reference = [f"w{number}" for number in range(words)]
    return Sample(
        id=name, key=name, batch=batch, prompt="?", references=(" ".join(reference),), truncated=False, prompt_tokens=1,
        image_tokens=0, pad_tokens=0, answer=" ".join(["wrong"] * errors + reference[errors:]), answer_tokens=tokens,
        metric=metric,
    )  # fmt: skip


def totals(a: Side, b: Side) -> dict[str, Change]:
    """Return the end-to-end changes by name."""
    return {change.quantity: change for change in two(a, b).totals}


ERRORS, WORDS, METRICS = (3, 0, 1, 1, 6), (1, 2, 3, 5, 8), (0.0, 1.0, 0.3, 1.0, 0.6)
OTHER_ERRORS, OTHER_WORDS, OTHER_METRICS = (2, 1, 1, 0, 4), (2, 2, 4, 5, 6), (0.3, 1.0, 0.0, 1.0, 1.0)


def answered(errors: tuple[int, ...], words: tuple[int, ...], metrics: tuple[Any, ...]) -> tuple[Sample, ...]:
    """Return five samples in batches of their own."""
    return tuple(sample("abcde"[i], i, errors[i], words[i], metrics[i]) for i in range(5))


# --- end to end -------------------------------------------------------------------------------------------------


def test_every_quantity_of_a_run_is_compared() -> None:
    """Medians where nothing is paired, figures a sample, peak memory, rates in points; in the order of a report."""
    base = sample_run()
    times, energy, wer = base.totals.latency_s, base.totals.energy, base.totals.wer
    assert times.ttft is not None
    assert times.per_output_token is not None
    assert wer is not None
    other = run(
        latency_s=times.model_copy(
            update={
                "per_sample": times.per_sample.model_copy(update={"median": 0.125}),
                "ttft": times.ttft.model_copy(update={"median": 0.03}),
                "per_output_token": times.per_output_token.model_copy(update={"median": 0.026}),
            }
        ),
        flops_per_sample=2.0,
        energy=energy.model_copy(update={"per_sample": 4.0}),
        peak_memory_bytes=256_000_000,
        wer=wer.model_copy(update={"corpus_min": 0.5, "truncated_share": 0.5}),
    )
    found = [(c.quantity, c.unit, c.before, c.after, c.how) for c in two(Side(base), Side(other)).totals]
    assert found == [
        ("latency per sample, median", "s", 0.0625, 0.125, "ratio"),
        ("time to first token, median", "s", 0.06, 0.03, "ratio"),
        ("time per output token, median", "s", 0.013, 0.026, "ratio"),
        ("FLOPs per sample", "FLOP", 75_001_000_000 / 4, 2.0, "ratio"),
        ("energy per sample", "J", 5.0, 4.0, "ratio"),
        ("peak memory", "B", 512_000_000, 256_000_000, "ratio"),
        ("word error rate", "", 0.25, 0.5, "points"),
        ("vqa_accuracy", "", 0.75, 0.75, "points"),
        ("answers cut short", "", 0.25, 0.5, "points"),
    ]
    better = {c.quantity: c.higher_is_worse for c in two(Side(base), Side(other)).totals}
    assert [name for name, worse in better.items() if worse is not True] == ["vqa_accuracy"]


@pytest.mark.parametrize("first", [True, False])
def test_what_one_run_lacks_stands_with_the_others_figure_and_what_both_lack_does_not_stand(first: bool) -> None:
    """A quantity of one side only has no value; answers cut short are compared where both were scored."""
    base = sample_run()
    none = base.totals.latency_s.model_copy(update={"ttft": None, "per_output_token": None})
    bare = Side(run(latency_s=none, wer=None, task_metric=None))
    sides = (Side(base), bare) if first else (bare, Side(base))
    found = totals(*sides)
    for name, figure in (
        ("time to first token, median", 0.06), ("time per output token, median", 0.013), ("word error rate", 0.25),
        ("vqa_accuracy", 0.75),
    ):  # fmt: skip
        assert (found[name].before, found[name].after) == ((figure, None) if first else (None, figure))
        assert found[name].value is None
    assert "answers cut short" not in found
    assert set(totals(bare, bare)) == {
        "latency per sample, median", "FLOPs per sample", "energy per sample", "peak memory",
    }  # fmt: skip


def test_rates_are_compared_over_the_samples_that_both_answered() -> None:
    """Five shared samples and one alone on either side: intervals of what all 3,125 ways to draw the five give."""
    before = (*answered(ERRORS, WORDS, METRICS), sample("x", 5, 9, 9, 0.0))
    after = (*reversed(answered(OTHER_ERRORS, OTHER_WORDS, OTHER_METRICS)), sample("y", 5, 9, 9, 0.0))
    found = totals(Side(sample_run(), before), Side(sample_run(), after))
    errors, words, metrics, other_errors, other_words, other_metrics = every_resample(
        ERRORS, WORDS, METRICS, OTHER_ERRORS, OTHER_WORDS, OTHER_METRICS
    )
    rate, metric = found["word error rate"], found["vqa_accuracy"]
    assert (rate.n, metric.n) == (5, 5)
    assert holds_95_percent(rate.ci95, other_errors / other_words - errors / words, RESAMPLES)
    assert holds_95_percent(metric.ci95, (other_metrics - metrics) / 5, RESAMPLES)


def test_samples_without_a_metric_are_no_pairs_of_it() -> None:
    """Of five shared samples one has no metric before and one none after: three pairs; with one pair no interval."""
    before = answered(ERRORS, WORDS, (None, 1.0, 0.3, 1.0, 0.6))
    three, one = (
        totals(Side(sample_run(), before), Side(sample_run(), answered(ERRORS, WORDS, metrics)))["vqa_accuracy"]
        for metrics in ((0.0, 1.0, 1.0, None, 0.6), (None, 1.0, None, None, None))
    )
    assert three.n == 3
    assert three.ci95 == pytest.approx((0.0, 0.7))
    assert (one.n, one.ci95) == (1, None)
    pair = (None, 1.0, 1.0, None, None)
    two_of_them = totals(Side(sample_run(), before), Side(sample_run(), answered(ERRORS, WORDS, pair)))["vqa_accuracy"]
    assert two_of_them.ci95 == pytest.approx((0.0, 0.7))


@pytest.mark.parametrize(("count", "n"), [(0, 0), (1, 0), (2, 2)])
def test_one_shared_sample_makes_no_interval(count: int, n: int) -> None:
    """Nothing can be said of how pairs scatter by one of them."""
    samples = answered(ERRORS, WORDS, METRICS)
    found = totals(Side(sample_run(), samples), Side(sample_run(), samples[:count]))["word error rate"]
    assert (found.n, found.ci95 is not None) == (n, n > 0)


def test_words_are_compared_as_the_runs_own_metric_reads_them() -> None:
    """For VQA an article is no word; a run without a metric counts it."""
    asked = sample("a", 0, 0, 1, None).model_copy(update={"references": ("the cat",), "answer": "cat"})
    assert Side(sample_run(), (asked,)).edits([0]) == ([0.0], [1.0])
    assert Side(run(task_metric=None), (asked,)).edits([0]) == ([1.0], [2.0])


# --- batches ----------------------------------------------------------------------------------------------------


def timed(seconds: tuple[float, ...]) -> tuple[BatchTime, ...]:
    """Return a time for each batch."""
    return tuple(BatchTime(index, 1, it, None, 5) for index, it in enumerate(seconds))


def test_latency_is_paired_by_units_where_both_kept_their_batches() -> None:
    """Five batches of one row: 25 s before, 30.6 s after, and the ratio's interval over all ways to draw the pairs."""
    samples = answered(ERRORS, WORDS, METRICS)
    before, after = (1.0, 2.0, 4.0, 7.0, 11.0), (1.5, 1.6, 6.0, 6.5, 15.0)
    sides = [Side(sample_run(), samples, timed(seconds)) for seconds in (before, after)]
    found = totals(*sides)["latency per sample"]
    assert [found.before, found.after] == pytest.approx([5.0, 6.12])
    assert found.n == 5
    over, under = every_resample(after, before)
    assert holds_95_percent(found.ci95, over / under, RESAMPLES)


def test_a_batch_without_a_time_leaves_the_medians() -> None:
    """A pair whose one side is missing is no pair, and the others alone would be another run."""
    samples = answered(ERRORS, WORDS, METRICS)
    sides = [Side(sample_run(), samples, timed(seconds)) for seconds in ((1.0,) * 5, (1.0,) * 4)]
    for one, other in (sides, reversed(sides)):
        assert totals(one, other)["latency per sample, median"].ci95 is None


def test_one_unit_has_a_ratio_and_no_interval() -> None:
    """Five samples in one batch."""
    samples = tuple(it.model_copy(update={"batch": 0}) for it in answered(ERRORS, WORDS, METRICS))
    found = totals(*(Side(sample_run(), samples, timed((seconds,))) for seconds in (5.0, 6.0)))["latency per sample"]
    assert (found.before, found.after, found.ci95, found.n) == (1.0, 1.2, None, 1)


# --- layers -----------------------------------------------------------------------------------------------------


def test_layers_are_compared_a_sample_the_heaviest_first_and_each_is_there() -> None:
    """Of the first run all, in the order of their time; a layer that only the second has comes with its own figures."""
    base = sample_run()
    first = base.model_copy(update={"layers": base.layers[:-1]})
    second = base.model_copy(update={"samples": 8})
    found = two(Side(first), Side(second)).layers
    times = [change.span.before for change in found if change.span.before is not None]
    assert len(times) == len(first.layers)
    assert times == sorted(times, reverse=True)
    assert {(change.name, change.phase) for change in found} == {(row.name, row.phase) for row in base.layers}
    head = next(change for change in found if (change.name, change.phase) == ("lm_head", Phase.DECODE))
    assert (head.span.before, head.flops.before, head.energy.before) == (None, None, None)
    row = base.layers[-1]
    assert row.span_s is not None
    assert [head.span.after, head.flops.after, head.energy.after] == [
        row.span_s.total / 8, (row.flops or 0) / 8, (row.energy_j or 0) / 8,
    ]  # fmt: skip
    block = next(change for change in found if change.span.before is not None)
    assert [block.span.value, block.flops.value] == pytest.approx([0.5, 0.5]), "the same work over twice the samples"


def test_a_run_without_samples_has_no_figures_a_sample() -> None:
    """Nothing is divided by nothing."""
    nothing = sample_run(samples=0)
    (change, *_) = two(Side(nothing), Side(sample_run())).layers
    assert (change.span.before, change.flops.before) == (None, None)


def test_spans_of_batches_are_paired_layer_by_layer() -> None:
    """2 s a batch of five in one layer before, 3 s after: 1.5 in every pair; the other layers go by their totals."""
    samples = answered(ERRORS, WORDS, METRICS)
    key = ("lm_head", Phase.DECODE)
    first, second = (Side(sample_run(), samples, (), {key: dict.fromkeys(range(5), seconds)}) for seconds in (2.0, 3.0))
    found = {(change.name, change.phase): change.span for change in two(first, second).layers}
    assert (found[key].before, found[key].after, found[key].n) == (2.0, 3.0, 5)
    assert found[key].ci95 == pytest.approx((1.5, 1.5))
    assert {change.n for name, change in found.items() if name != key} == {0}


# --- what else is different -------------------------------------------------------------------------------------


def test_the_configuration_of_an_older_run_is_not_compared() -> None:
    """Its hash held where the model lay."""
    base = sample_run()
    first = base.model_copy(update={"format": 3, "model": base.model | {"config_sha256": "a"}})
    second = base.model_copy(update={"model": base.model | {"config_sha256": "b"}})
    assert two(Side(first), Side(second)).settings == two(Side(second), Side(first)).settings == {}
    third = base.model_copy(update={"model": base.model | {"config_sha256": "c"}})
    assert two(Side(second), Side(third)).settings == {"model.config_sha256": ("b", "c")}


def test_settings_and_surroundings_that_differ_are_told_and_passing_facts_are_not() -> None:
    """Nested blocks by their path, a setting that one run lacks, facts of model and dataset; no heat, no sample ids."""
    base = sample_run()
    first = base.model_copy(update={"dataset": {"ids": ["a"], "name": "x", "source": "s", "split": "1"}})
    second = base.model_copy(
        update={
            "settings": {name: value for name, value in base.settings.items() if name != "dtype"} | {"output": "other"},
            "model": base.model | {"revision": "abc", "torch": "9", "batch_size": 9},
            "dataset": {"ids": ["b"], "name": "y", "source": "t", "split": "2"},
            "environment": base.environment
            | {"python": "3.12", "gpu": {"name": "Imaginary GPU", "driver": "601", "temperature_c": 60}},
        }
    )
    found = two(Side(first), Side(second))
    assert found.settings == {"dtype": ("fp16", None), "model.revision": (None, "abc"), "dataset.split": ("1", "2")}
    assert found.environment == {
        "python": ("3.11.4", "3.12"),
        "gpu.driver": ("600.1", "601"),
        "gpu.power_limit_w": ("300", None),
    }


def test_facts_of_one_name_in_model_and_dataset_are_both_told() -> None:
    """Of two revisions that changed, each has its own line; a model's own name is the setting's."""
    first, second = (
        sample_run(
            settings=sample_run().settings | {"model": f"m{number}"},
            model={"name": f"m{number}", "revision": f"model {number}"},
            dataset={"name": "textvqa", "revision": f"data {number}"},
        )
        for number in (1, 2)
    )
    assert two(Side(first), Side(second)).settings == {
        "model": ("m1", "m2"), "model.revision": ("model 1", "model 2"), "dataset.revision": ("data 1", "data 2"),
    }  # fmt: skip
    own = [sample_run(settings={"device": "cpu"}, model={"name": name}) for name in ("A", "B")]
    assert two(Side(own[0]), Side(own[1])).settings == {"model.name": ("A", "B")}, "own calls have no setting of it"


def test_notes_say_why_something_is_not_paired() -> None:
    """No samples, no batches, no sample in common, or some; a run that was not done; another number of tokens."""
    samples = answered(ERRORS, WORDS, METRICS)
    done, cut = sample_run(), sample_run(status="interrupted")
    assert two(Side(done), Side(cut)).notes == (
        "The first run has no samples.jsonl, so nothing is paired.",
        "The second run is interrupted: its figures are of what was finished.",
        "The second run has no samples.jsonl, so nothing is paired.",
    )
    whole = Side(done, samples, timed((1.0,) * 5))
    assert two(whole, whole).notes == ()
    assert two(whole, Side(done, samples)).notes == ("The second run has no batches.csv, so latency is not paired.",)
    assert two(whole, Side(done, samples[:3], timed((1.0,) * 3))).notes == (
        "The runs share 3 of 5 and 3 samples; pairs are of these.",
    )
    others = tuple(it.model_copy(update={"id": it.id + "2", "key": it.id + "2"}) for it in samples)
    assert two(whole, Side(done, others, timed((1.0,) * 5))).notes == (
        "The runs answered different samples, so nothing is paired: intervals are of each side's own samples.",
    )


@pytest.mark.parametrize(
    ("fixed", "told"), [((False, False), True), ((True, False), True), ((False, True), True), ((True, True), False)]
)
def test_other_numbers_of_tokens_are_told_unless_both_runs_fixed_them(fixed: tuple[bool, bool], told: bool) -> None:
    """Answers of other lengths are other work; where both were told how much to write, they were told otherwise."""
    samples = answered(ERRORS, WORDS, METRICS)
    sides = []
    for tokens, is_fixed in zip((40, 41), fixed, strict=True):
        made = run(output_tokens=tokens)
        made = made.model_copy(update={"settings": made.settings | {"fixed_tokens": is_fixed}})
        sides.append(Side(made, samples, timed((1.0,) * 5)))
    note = "The runs wrote 40 and 41 tokens; compare runs with --fixed-tokens for the same work."
    assert two(sides[0], sides[1]).notes == ((note,) if told else ())


def test_the_same_answers_are_the_same_tokens() -> None:
    """Two of the four shared samples have them; one more on one side is no sample of both."""
    before = tuple(sample("abcde"[i], i, 0, 1, 1.0, i, i) for i in range(5))
    after = tuple(sample("abcd"[i], i, 0, 1, 1.0, i, i if i < 2 else 9) for i in range(4))
    found = two(Side(sample_run(), before), Side(sample_run(), after))
    assert (found.same_answers, found.shared_samples) == (0.5, 4)
