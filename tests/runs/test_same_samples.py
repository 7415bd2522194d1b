"""Which samples of two runs are the same, and what is said of runs whose samples are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from resampling import every_resample, holds_95_percent
from sample_run import sample_run

from layerprof.quality.bootstrap import RESAMPLES
from layerprof.records import Run, Sample
from layerprof.runs.batch_files import BatchTime
from layerprof.runs.changes import Change, Comparison
from layerprof.runs.compare import two
from layerprof.runs.pairing import match
from layerprof.runs.sides import Side


def sample(name: str, key: str | None, batch: int = 0, wrong: int = 0, metric: float = 1.0) -> Sample:
    """Return a sample of two words, of which the answer has so many wrong."""
    return Sample(
        id=name, key=key, batch=batch, prompt="?", references=("w0 w1",), truncated=False, prompt_tokens=1,
        image_tokens=0, pad_tokens=0, answer=" ".join(("no " * wrong + "w0 w1").split()[:wrong] + ["w0", "w1"][wrong:]),
        answer_tokens=(wrong,), metric=metric,
    )  # fmt: skip


def samples(*keys: str, prefix: str = "") -> tuple[Sample, ...]:
    """Return samples in batches of one, with ids by their place: in another run the same id is another sample."""
    return tuple(sample(f"{prefix}{place}", key, place) for place, key in enumerate(keys))


def timed(*seconds: float) -> tuple[BatchTime, ...]:
    """Return batches of one row."""
    return tuple(BatchTime(place, 1, it, None, 5) for place, it in enumerate(seconds))


def change(found: Comparison, quantity: str) -> Change:
    """Return one of the end-to-end changes."""
    return next(one for one in found.totals if one.quantity == quantity)


# --- the same sample --------------------------------------------------------------------------------------------


def test_samples_are_the_same_by_their_key_whatever_their_place_and_id() -> None:
    """The second run has them the other way round, under other ids."""
    found = match(samples("x", "y", "z"), samples("z", "y", "x", prefix="other"))
    assert found.same
    assert found.places == ([0, 1, 2], [2, 1, 0])
    assert found.renamed == 0


def test_the_same_id_with_another_content_is_another_sample() -> None:
    """Three ids in both runs: the second holds another question and the third another picture."""
    found = match(samples("x", "y", "z"), samples("x", "q", "p"))
    assert (len(found.shared), found.renamed, found.same) == (1, 2, False)


def test_an_id_that_moved_to_another_sample_of_the_run_is_counted() -> None:
    """All contents are in both runs, and two ids have changed places."""
    found = match(samples("x", "y"), samples("y", "x"))
    assert (found.same, found.renamed) == (True, 2)


def test_a_sample_that_stands_twice_is_matched_as_often_as_both_have_it() -> None:
    """The first run asks x three times, the second twice: two pairs, in their order."""
    found = match(samples("x", "y", "x", "x"), samples("x", "x"))
    assert found.places == ([0, 2], [0, 1])
    assert not found.same


@pytest.mark.parametrize("old", [(True, False), (False, True), (True, True)])
def test_runs_without_keys_go_by_ids_and_say_so(old: tuple[bool, bool]) -> None:
    """Where one run is from before there were keys, nothing tells whether an id means the same."""
    first, second = (
        Side(sample_run(), tuple(sample(name, None if is_old else "k" + name) for name in "ab"), timed(1.0))
        for is_old in old
    )
    found = two(first, second)
    assert (found.shared_samples, found.same_answers) == (2, 1.0)
    (note,) = found.notes
    whose = {(True, False): "The first run is", (False, True): "The second run is", (True, True): "The runs are"}[old]
    assert note.startswith(whose)
    assert "paired by their ids" in note


def test_ids_that_hold_other_samples_are_told() -> None:
    """How many ids are the same and their content is not."""
    before, after = (Side(sample_run(), samples(*keys), timed(1.0, 1.0, 1.0)) for keys in ("xyz", "xqp"))
    notes = two(before, after).notes
    assert "2 ids stand in both runs for different samples" in notes[0]
    assert "share 1 of 3 and 3 samples" in notes[1]


# --- sets that differ -------------------------------------------------------------------------------------------

BEFORE, AFTER = (1.0, 2.0, 4.0, 7.0, 11.0), (1.5, 1.6, 6.0, 6.5)
WRONG, OTHER_WRONG = (0, 1, 2, 1, 0), (2, 2, 1, 0)
METRICS, OTHER_METRICS = (0.0, 1.0, 0.3, 1.0, 0.6), (1.0, 0.6, 1.0, 1.0)


def _side(keys: str, seconds: tuple[float, ...], wrong: tuple[int, ...], metrics: tuple[float, ...]) -> Side:
    rows = tuple(sample(key, key, place, wrong[place], metrics[place]) for place, key in enumerate(keys))
    return Side(sample_run(), rows, timed(*seconds))


def _apart(after: tuple[Any, ...], before: tuple[Any, ...]) -> np.ndarray[Any, Any]:
    """Return the means of every resample of both sides, each way of the one with each way of the other."""
    (x,), (y,) = every_resample(after), every_resample(before)
    return np.stack(np.broadcast_arrays(x[:, None] / len(after), y[None, :] / len(before))).reshape(2, -1)


def test_runs_of_different_samples_have_intervals_of_each_sides_own() -> None:
    """Five samples against four others: what each way to draw the five gives against each way to draw the four."""
    found = two(_side("abcde", BEFORE, WRONG, METRICS), _side("vwxy", AFTER, OTHER_WRONG, OTHER_METRICS))
    assert found.shared_samples == 0
    assert any("each side's own samples" in note for note in found.notes)
    latency = change(found, "latency per sample")
    assert [latency.before, latency.after] == pytest.approx([5.0, 3.9])
    assert (latency.n, latency.apart) == (0, (5, 4))
    after, before = _apart(AFTER, BEFORE)
    assert holds_95_percent(latency.ci95, after / before, RESAMPLES)
    rate, metric = change(found, "word error rate"), change(found, "vqa_accuracy")
    assert (rate.apart, metric.apart) == ((5, 4), (5, 4))
    after, before = _apart(OTHER_WRONG, WRONG)
    assert holds_95_percent(rate.ci95, (after - before) / 2, RESAMPLES)
    after, before = _apart(OTHER_METRICS, METRICS)
    assert holds_95_percent(metric.ci95, after - before, RESAMPLES)


def test_two_sets_of_one_size_are_not_drawn_alike() -> None:
    """The same five figures under other names: drawn in pairs their ratio would be 1 without a doubt."""
    found = two(_side("abcde", BEFORE, WRONG, METRICS), _side("vwxyz", BEFORE, WRONG, METRICS))
    latency = change(found, "latency per sample")
    assert latency.value == 1.0
    after, before = _apart(BEFORE, BEFORE)
    assert holds_95_percent(latency.ci95, after / before, RESAMPLES)


def test_partly_shared_samples_are_compared_over_the_shared_ones() -> None:
    """Of five and five samples three are the same; figures, intervals and the number of pairs are of these three.

    Before they took 1, 2 and 4 s with 0, 1 and 2 of 2 words wrong, after 2, 4 and 8 s with 1, 1 and 0; each metric is
    half of what it was.
    """
    first = _side("abcde", BEFORE, WRONG, (0.5, 1.0, 0.3, 1.0, 0.6))
    second = _side("xcbay", (9.0, 8.0, 4.0, 2.0, 9.0), (2, 0, 1, 1, 2), (1.0, 0.15, 0.5, 0.25, 1.0))
    found = two(first, second)
    assert found.shared_samples == 3
    assert "The runs share 3 of 5 and 5 samples; pairs are of these." in found.notes
    latency, rate, metric = (change(found, name) for name in ("latency per sample", "word error rate", "vqa_accuracy"))
    assert [latency.before, latency.after, latency.n] == pytest.approx([7 / 3, 14 / 3, 3])
    assert latency.ci95 == pytest.approx((2.0, 2.0))
    assert [rate.before, rate.after, rate.n] == pytest.approx([3 / 6, 2 / 6, 3])
    assert [metric.before, metric.after, metric.n] == pytest.approx([0.6, 0.3, 3])
    assert (latency.apart, rate.apart, metric.apart) == (None, None, None)


def test_shared_samples_in_mixed_batches_leave_times_unpaired() -> None:
    """Each batch of two holds a sample of its own beside a shared one: no time is of shared samples alone."""
    first, second = (
        Side(
            sample_run(),
            tuple(sample(key, key, place // 2) for place, key in enumerate(keys)),
            (BatchTime(0, 2, 1.0, None, 5), BatchTime(1, 2, seconds, None, 5)),
        )
        for keys, seconds in (("aubv", 3.0), ("axby", 5.0))
    )
    found = two(first, second)
    latency = change(found, "latency per sample")
    assert (latency.before, latency.after, latency.n, latency.apart) == (1.0, 1.5, 0, (2, 2))
    assert (
        "The samples that the runs share are not in whole batches of their own, so latency is not paired."
        in found.notes
    )


def test_one_shared_batch_does_not_stand_for_the_others() -> None:
    """One of five batches is of a shared sample: the times of all tell more than that pair without an interval."""
    found = two(_side("abcde", BEFORE, WRONG, METRICS), _side("awxy", AFTER, OTHER_WRONG, OTHER_METRICS))
    assert change(found, "latency per sample").apart == (5, 4)
    assert change(found, "word error rate").apart == (5, 4)


def test_times_without_samples_are_compared_unpaired() -> None:
    """A run whose samples.jsonl is gone has its batches: they are compared, and nothing is paired."""
    found = two(Side(sample_run(), (), timed(*BEFORE)), _side("abcd", AFTER, OTHER_WRONG, OTHER_METRICS))
    assert change(found, "latency per sample").apart == (5, 4)
    assert found.notes[0] == "The first run has no samples.jsonl, so nothing is paired."


# --- parts of the samples ---------------------------------------------------------------------------------------


def _instrumented(walked: int | None, samples: int = 4) -> Run:
    return sample_run(samples=samples, instrumented=walked)


def test_layers_are_a_sample_that_the_instruments_walked() -> None:
    """A run of 8 samples, of which 4 were walked, against one of the 4: the same spans, FLOPs and joules a sample."""
    found = two(Side(_instrumented(4, 8)), Side(_instrumented(None, 4)))
    values = [value for layer in found.layers for value in (layer.span.value, layer.flops.value, layer.energy.value)]
    assert {value for value in values if value is not None} == {1.0}
    assert "FLOPs, energy and layers of the first run are of the first 4 of its 8 samples." in found.notes


def test_spans_are_paired_over_the_batches_that_both_walked() -> None:
    """Four batches of one row; the first run's instruments walked three of them, the second's two.

    In one of those two the layer was not called, which is 0 s and no missing figure: 1 + 3 s before, 0 + 6 s after.
    """
    row = sample_run().layers[0]
    key, other = (row.name, row.phase), (sample_run().layers[1].name, sample_run().layers[1].phase)
    rows = samples("w", "x", "y", "z")
    before = Side(_instrumented(3), rows, timed(1, 1, 1, 1), {key: {0: 1.0, 1: 3.0, 2: 50.0}})
    after = Side(_instrumented(2), rows, timed(2, 2, 2, 2), {key: {1: 6.0}, other: {0: 1.0, 1: 1.0}})
    found = two(before, after)
    span = next(layer.span for layer in found.layers if (layer.name, layer.phase) == key)
    assert (span.before, span.after, span.n) == (2.0, 3.0, 2)
    assert change(found, "latency per sample").n == 4, "end-to-end times are of all batches"


# --- of the same samples only -----------------------------------------------------------------------------------


def _first_tokens(keys: str, rows: int, *seconds: float) -> Side:
    times = tuple(BatchTime(place, rows, 9.0, it, 5) for place, it in enumerate(seconds))
    return Side(sample_run(), tuple(sample(key, key, place // rows) for place, key in enumerate(keys)), times)


def test_medians_are_over_batches_of_the_shared_samples() -> None:
    """Twos against ones: no pairs, but the second run's batches of samples that the first has not are in no median."""
    found = change(
        two(_first_tokens("abcd", 2, 1.0, 3.0), _first_tokens("xabcdy", 1, 90.0, 1.0, 2.0, 3.0, 5.0, 90.0)),
        "time to first token, median",
    )
    assert (found.before, found.after, found.n, found.apart) == (2.0, 2.5, 0, (2, 4))


def test_lengths_of_answers_are_compared_over_the_shared_samples() -> None:
    """Answers of one token each; the second run has a sample more, which is no difference in length."""
    written = sample_run().totals
    first, second = (
        Side(sample_run(totals=written.model_copy(update={"output_tokens": n})), samples(*keys))
        for keys, n in (("xy", 4), ("xyz", 6))
    )
    assert not [note for note in two(first, second).notes if "--fixed-tokens" in note]
    longer = Side(second.run, tuple(one.model_copy(update={"answer_tokens": (1, 2)}) for one in second.samples))
    said = "The runs wrote 2 and 4 tokens for the samples that they share; compare runs with --fixed-tokens"
    assert [note for note in two(first, longer).notes if note.startswith(said)]


def test_a_setting_that_an_older_run_does_not_know_is_no_difference_until_it_is_used() -> None:
    """Before `--prefetch` there was none; one batch made ahead is another setting."""
    older, newer = (sample_run() for _ in range(2))
    for ahead, told in ((0, {}), (1, {"prefetch": (None, 1)})):
        run = newer.model_copy(update={"settings": newer.settings | {"prefetch": ahead}})
        assert two(Side(older), Side(run)).settings == told


def test_the_attention_of_each_tower_is_told_apart() -> None:
    """By what ran; an older run told one implementation of the whole model, by another name, and no setting."""
    runs = [
        sample_run().model_copy(update={"model": {"name": "demo", "attention": ran}})
        for ran in ({"vision": "sdpa", "language": "sdpa"}, {"vision": "flash", "language": "sdpa"}, "sdpa")
    ]
    first, second, older = (Side(run) for run in runs)
    assert two(first, second).settings == {"model.attention.vision": ("sdpa", "flash")}
    assert two(older, second).settings == {"model.attention.vision": ("sdpa", "flash")}
    asked = runs[0].model_copy(update={"settings": runs[0].settings | {"attention": "sdpa"}})
    assert two(older, Side(asked)).settings == {}
