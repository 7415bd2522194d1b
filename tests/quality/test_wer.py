"""Rates: the counts are jiwer's, the fields are the contract's, and awkward answers are scored, not lost."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import jiwer
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from resampling import every_resample, holds_95_percent

from layerprof.quality import normalise, wer
from layerprof.quality.bootstrap import RESAMPLES

AWKWARD = (
    "",
    " ",
    "...",
    "the",
    "yes",
    "Yes.",
    "don't",
    "can't won't let's it's",
    "STOP\nAHEAD",
    "tab\tseparated  words ",
    "naïve café",
    "ｆｕｌｌｗｉｄｔｈ",
    "ﬁne",
    "停 止",
    "停止",
    "Привет, мир",
    "مرحبا بالعالم",
    "नमस्ते दुनिया",
    "🙂 ok",
    "$5.00 & more",
    "a b c d e f g",
    "word " * 3000,
    "x" * 5000,
)

texts = st.one_of(st.sampled_from(AWKWARD), st.text(max_size=60))


def edit_distance(a: Sequence[str], b: Sequence[str]) -> int:
    """Word edits by the textbook recurrence."""
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        above, row[0] = row[0], i
        for j, right in enumerate(b, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (left != right))
    return row[-1]


# --- against jiwer and by hand ----------------------------------------------------------------------------------


def test_corpus_first_is_jiwers_rate_of_the_raw_words() -> None:
    """First reference, split at white space, nothing normalised, errors summed over all samples."""
    pairs = [(r, h) for r, h in itertools.product(AWKWARD[4:-2], AWKWARD[:-2]) if normalise.words(r)]
    got, _, _ = wer.score([(r, "other") for r, _ in pairs], [h for _, h in pairs], [False] * len(pairs), metric=None)
    references = [" ".join(r.split()) for r, _ in pairs]
    expected = jiwer.process_words(references, [" ".join(h.split()) for _, h in pairs])
    assert got.corpus_first == pytest.approx(expected.wer)


def test_one_reference_gives_jiwers_counts_of_the_normalised_words() -> None:
    """Substitutions, deletions, insertions, match error rate: as jiwer counts them with its own transforms."""
    kinds: Any = jiwer  # some of its classes are untyped
    plain = jiwer.Compose(
        [
            kinds.ToLowerCase(),
            kinds.ExpandCommonEnglishContractions(),
            kinds.RemovePunctuation(),
            kinds.RemoveMultipleSpaces(),
            kinds.Strip(),
            kinds.ReduceToListOfListOfWords(),
        ]
    )
    # Texts that Unicode normalisation and white space other than spaces do not change: jiwer leaves those alone.
    words = ["yes", "Yes.", "don't", "can't won't let's it's", "naïve café", "Привет, мир", "🙂 ok", "$5.00 &"]
    pairs = list(itertools.product(words, [*words, "", "..."]))
    got, _, _ = wer.score([(r,) for r, _ in pairs], [h for _, h in pairs], [False] * len(pairs), metric=None)
    out = jiwer.process_words([r for r, _ in pairs], [h for _, h in pairs], plain, plain)
    assert got.corpus_min == pytest.approx(out.wer)
    assert got.mer == pytest.approx(out.mer)
    assert (got.substitutions, got.deletions, got.insertions) == (out.substitutions, out.deletions, out.insertions)
    assert got.reference_words == out.hits + out.substitutions + out.deletions
    assert got.hypothesis_words == out.hits + out.substitutions + out.insertions


def test_very_long_answers_are_counted() -> None:
    """3,000 words against one: one match, the rest insertions; 3,000 words against nothing: all deleted."""
    long = "word " * 3000
    got, _, scores = wer.score([("word",), (long,)], [long, ""], [True, False], metric=None)
    assert (got.insertions, got.deletions, got.substitutions) == (2999, 3000, 0)
    assert (scores[0].wer, scores[1].wer) == (2999.0, 1.0)
    assert got.corpus_min == pytest.approx(5999 / 3001)
    assert got.mean_clipped == 1.0
    assert got.truncated_share == 0.5


def test_the_fields_by_hand() -> None:
    """Two references, the second nearer; every field from a count on paper.

    Sample 1: best "a red car" against "the red car": 1 substitution of 3 words. Sample 2: "yes" against "yes it is":
    2 insertions on 1 word. First references raw: "blue thing now" (3 words): 3 substitutions; "yes": 2 insertions.
    """
    got, _, scores = wer.score(
        [("blue thing now", "a red car"), ("yes",)], ["The red car!", "Yes it is"], [False, True], metric=None
    )
    assert (got.substitutions, got.deletions, got.insertions) == (1, 0, 2)
    assert (got.reference_words, got.hypothesis_words) == (4, 6)
    assert got.corpus_min == pytest.approx(3 / 4)
    assert got.corpus_first == pytest.approx(6 / 4)  # "Yes" is not "yes" when nothing is normalised
    assert got.mean_clipped == pytest.approx((1 / 3 + 1) / 2)
    assert got.mer == pytest.approx(3 / 6)
    assert (got.truncated_share, got.unscored) == (0.5, 0)
    assert [score.wer for score in scores] == [pytest.approx(1 / 3), 2.0]


def test_of_equally_near_references_the_longer_one_counts() -> None:
    """Rates tie at 0: the denominator is the longer reference's."""
    got, _, _ = wer.score([("yes", "Yes", "YES!")], ["yes"], [False], metric=None)
    assert got.reference_words == 1
    got, _, _ = wer.score([("q", "x y")], [""], [False], metric=None)
    assert (got.reference_words, got.deletions) == (2, 2)


def test_an_empty_answer_is_all_deletions() -> None:
    """Nothing said costs every word of the reference."""
    got, _, _ = wer.score([("a red car",)], [""], [False], metric=None)
    assert (got.deletions, got.insertions, got.substitutions, got.corpus_min) == (3, 0, 0, 1.0)


def test_references_that_are_nothing_are_dropped_and_samples_without_any_counted() -> None:
    """Empty, and empty after normalising; a sample left without references does not enter any rate."""
    got, task, scores = wer.score(
        [("", "yes"), ("", "..."), ("", " ")], ["yes", "no", "no"], [False] * 3, metric="vqa_accuracy"
    )
    assert (got.unscored, got.corpus_min, got.corpus_first, got.reference_words) == (2, 0.0, 0.0, 1)
    assert [score.wer for score in scores] == [0.0, None, None]
    assert scores[2].metric is None
    assert task is not None


def test_a_metric_is_given_where_any_reference_says_something() -> None:
    """One of two references is empty: left out, the other agrees; of the two ways to leave one out half is right."""
    _, _, (score,) = wer.score([("", "yes")], ["yes"], [False], metric="vqa_accuracy")
    assert score.metric == 0.5


def test_articles_alone_are_no_reference_for_vqa() -> None:
    """The VQA normaliser takes articles out, and what is left is nothing."""
    assert wer.score([("the",)], ["the"], [False], metric="vqa_accuracy")[0].unscored == 1
    assert wer.score([("a",)], ["A."], [False], metric="exact_match")[0].corpus_min == 0.0


def test_nothing_to_score_gives_no_rates() -> None:
    """No samples, or none with references: None, never a division by zero."""
    for references, answers in ([], []), ([("",)], ["x"]):
        got, task, _ = wer.score(references, answers, [False] * len(answers), metric="exact_match")
        assert (got.corpus_min, got.corpus_first, got.mer, got.mean_clipped, got.ci95) == (None,) * 5
        assert task is not None
        assert task.value is None


def test_lists_of_unequal_length_are_refused() -> None:
    """Never zipped short, as torchmetrics does it."""
    for answers, flags in (["a"], [False, False]), (["a", "b"], [False]):
        with pytest.raises(ValueError, match="not one each"):
            wer.score([("a",), ("b",)], answers, flags, metric=None)


def test_an_unknown_metric_is_refused() -> None:
    """A misspelt metric is not the same as none."""
    with pytest.raises(ValueError, match="exact_match"):
        wer.score([("a",)], ["a"], [False], metric="exactmatch")


# --- intervals --------------------------------------------------------------------------------------------------

ERRORS, WORDS = (3, 0, 1, 1, 6), (1, 2, 3, 5, 8)
"""Five samples with more errors where there are more words: drawn apart, their ratios would scatter far wider."""


def answered(errors: int, words: int) -> tuple[tuple[str], str]:
    """Make a reference of so many words and an answer with so many errors, and capitals, which are none."""
    reference = [f"w{number}" for number in range(words)]
    return (" ".join(reference),), " ".join(["wrong"] * errors + reference[errors:]).upper()


def ratios(above: Sequence[float], below: Sequence[float]) -> Any:
    """Ratios of sums in all resamples, each sample drawn with both of its figures."""
    over, under = every_resample(above, below)
    return over / under


@pytest.mark.parametrize("count", [3, 4, 5])
def test_the_interval_of_a_rate_is_that_of_all_resamples(count: int) -> None:
    """Errors and words of a sample are drawn together, and 2.5 % of all resamples lie beyond each end."""
    pairs = [answered(errors, words) for errors, words in zip(ERRORS[:count], WORDS[:count], strict=True)]
    got, _, _ = wer.score([r for r, _ in pairs], [a for _, a in pairs], [False] * count, metric=None)
    assert got.corpus_min == pytest.approx(sum(ERRORS[:count]) / sum(WORDS[:count]))
    assert holds_95_percent(got.ci95, ratios(ERRORS[:count], WORDS[:count]), RESAMPLES)


def test_an_interval_of_90_percent_or_of_figures_drawn_apart_would_be_told() -> None:
    """What the test above can tell: the exact ends of a narrower interval, and of errors without their words."""
    together = ratios(ERRORS, WORDS)
    assert not holds_95_percent(tuple(np.percentile(together, [5, 95])), together, RESAMPLES)
    errors, words = every_resample(ERRORS, WORDS)
    apart = (errors[:, None] / words[None, :]).ravel()
    assert not holds_95_percent(tuple(np.percentile(apart, [2.5, 97.5])), together, RESAMPLES)


def test_the_interval_of_a_task_metric_is_that_of_all_resamples() -> None:
    """Shares of right answers: with 2 of 5 right, a resample has k right with binomial weight."""
    answers = ["A", "A", "B", "B", "B"]
    _, task, _ = wer.score([("A",)] * 5, answers, [False] * 5, metric="exact_match")
    assert task is not None
    assert task.value == pytest.approx(0.4)
    assert holds_95_percent(task.ci95, ratios([1, 1, 0, 0, 0], [1] * 5), RESAMPLES)


def test_the_interval_of_many_samples_is_the_normal_one() -> None:
    """1,000 answers of four words, 400 of them with one error: 0.1 +- 1.96 standard errors of the mean rate."""
    pairs = [answered(1 if number % 5 < 2 else 0, 4) for number in range(1000)]
    got, _, _ = wer.score([r for r, _ in pairs], [a for _, a in pairs], [False] * 1000, metric=None)
    half = 1.96 * (0.4 * 0.6 / 1000) ** 0.5 / 4
    assert got.ci95 == pytest.approx((0.1 - half, 0.1 + half), abs=0.1 * half)


def test_intervals_repeat_and_one_sample_has_none() -> None:
    """The bootstrap is seeded, so that a report made twice is the same; one sample says nothing of its spread."""
    pairs = [answered(errors, words) for errors, words in zip(ERRORS, WORDS, strict=True)]
    references, answers = [r for r, _ in pairs], [a for _, a in pairs]
    first, again = (wer.score(references, answers, [False] * 5, metric=None)[0].ci95 for _ in range(2))
    assert first == again
    assert wer.score(references[:1], answers[:1], [False], metric=None)[0].ci95 is None


# --- properties -------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.lists(texts, min_size=1, max_size=3), texts), max_size=4))
@example([([""], "x")])
def test_every_text_is_scored_within_bounds(samples: list[tuple[list[str], str]]) -> None:
    """Whatever is said: counts add up, the match error rate and the clipped mean are shares, nothing raises."""
    references = [tuple(refs) for refs, _ in samples]
    got, _, scores = wer.score(references, [h for _, h in samples], [False] * len(samples), metric="vqa_accuracy")
    assert got.unscored == sum(score.wer is None for score in scores)
    if got.corpus_min is not None:
        assert got.mer is not None
        assert got.mean_clipped is not None
        assert 0 <= got.mer <= 1
        assert 0 <= got.mean_clipped <= 1
        assert got.corpus_min == pytest.approx(
            (got.substitutions + got.deletions + got.insertions) / got.reference_words
        )
        assert got.hypothesis_words - got.reference_words == got.insertions - got.deletions
    assert all(score.metric is None or 0 <= score.metric <= 1 for score in scores)


@settings(max_examples=150, deadline=None)
@given(texts, texts)
def test_edits_are_the_textbook_distance(reference: str, answer: str) -> None:
    """Against the dynamic programme over words; long texts are cut, since it is slow."""
    r, h = reference.split()[:20], answer.split()[:20]
    if r:
        assert wer.align(" ".join(r), " ".join(h)).errors == edit_distance(r, h)


@settings(max_examples=150, deadline=None)
@given(texts)
def test_normalised_text_is_words_and_single_spaces(text: str) -> None:
    """Normalised text has no punctuation by jiwer's list, and no white space but single spaces inside."""
    plain = normalise.words(text)
    kinds: Any = jiwer  # some of its classes are untyped
    assert plain == " ".join(plain.split())
    assert kinds.RemovePunctuation()(plain) == plain


@settings(max_examples=100, deadline=None)
@given(texts)
def test_a_right_answer_is_right(text: str) -> None:
    """The reference itself has no errors and full accuracy."""
    got, task, _ = wer.score([(text,) * 10], [text], [False], metric="vqa_accuracy")
    if got.unscored == 0:
        assert got.corpus_min == got.corpus_first == 0
        assert task is not None
        assert task.value == 1.0
