"""Metrics of a task: VQA accuracy, and the letter that an answer to a multiple choice names."""

from __future__ import annotations

import pytest

from layerprof.quality import normalise, task_metrics, wer

# --- VQA accuracy -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("agreeing", "value"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_vqa_accuracy_leaves_one_out(agreeing: int, value: float) -> None:
    """With n of 10 the same: (n x min(1, (n-1)/3) + (10-n) x min(1, n/3)) / 10, which is 0.3 a head up to three."""
    references = ["yes"] * agreeing + [f"other {number}" for number in range(10 - agreeing)]
    assert task_metrics.vqa_accuracy(references, "yes") == pytest.approx(value)


@pytest.mark.parametrize(("references", "value"), [(["yes"], 1.0), (["no"], 0.0), (["yes", "yes"], 1.0)])
def test_vqa_accuracy_of_few_references(references: list[str], value: float) -> None:
    """One's own samples may have one answer: then it has to be that one."""
    assert task_metrics.vqa_accuracy(references, "Yes!") == value


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("The Cat", "cat"),
        ("two", "2"),
        ("none", "0"),
        ("dont", "don't"),
        ("1,000", "1000"),
        ("3.5", "3.5"),
        ("end.", "end"),
        ("x-y", "x y"),
        ("x - y", "x y"),
        ("x -y", "x y"),
        ("the a an it", "it"),
        ("john's", "john 's"),
        ("yes\nno", "yes no"),
        ("couldnt've", "couldn't've"),
        ("what?", "what"),
        ("(hi)", "hi"),
    ],
)
def test_answers_are_compared_as_the_vqa_evaluation_does(said: str, meant: str) -> None:
    """Its published rules, case by case."""
    assert normalise.evalai(said) == meant


# --- multiple choice --------------------------------------------------------------------------------------------

OPTIONS = ("red", "blue", "green", "pink")


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        (" B. ", "B"),
        ("B. blue", "B"),
        ("(B) blue", "B"),
        ("B) blue", "B"),
        ("**B**", "B"),
        ("B: blue", "B"),
        ("B\n\nBecause it is.", "B"),
        ("The answer is B", "B"),
        ("The answer is: B.", "B"),
        ("the correct answer is (b).", "B"),
        ("Answer: B", "B"),
        ("Option B", "B"),
        ("I think B", "B"),
        ("It is A", "A"),
        ("blue", "B"),
        ("Blue.", "B"),
        ("A red circle", None),
        ("The answer is a red circle", None),
        ("A or B", None),
        ("B and C", None),
        ("not B", None),
        ("E", None),
        ("I", None),
        ("", None),
        ("no idea", None),
    ],
)
def test_an_option_may_be_named_in_many_ways(answer: str, letter: str | None) -> None:
    """Letters alone, in front, stated, or the option's text; more than one, or none of the four, is no answer."""
    assert normalise.letter(answer, OPTIONS) == letter


def test_exact_match_scores_letters() -> None:
    """Right, right in words, wrong, unreadable."""
    _, task, scores = wer.score(
        [("B",)] * 4, ["B.", "The answer is B", "C", "perhaps"], [False] * 4, metric="exact_match"
    )
    assert [score.metric for score in scores] == [1.0, 1.0, 0.0, 0.0]
    assert task is not None
    assert task.value == 0.5


def test_choices_let_an_answer_name_its_option_by_text() -> None:
    """Without the choices the same answer cannot be read."""
    given_choices = wer.score([("B",)], ["blue"], [False], metric="exact_match", choices=[OPTIONS])[1]
    without = wer.score([("B",)], ["blue"], [False], metric="exact_match")[1]
    assert given_choices is not None
    assert without is not None
    assert (given_choices.value, without.value) == (1.0, 0.0)
