"""Rules with a version: a run keeps their ids, and what an id stands for does not change under it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from layerprof.quality import normalise


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("vqa_accuracy", {"wer": "words-vqa-1", "vqa_accuracy": "evalai-1"}),
        ("exact_match", {"wer": "words-1", "exact_match": "letter-1"}),
        (None, {"wer": "words-1"}),
    ],
)
def test_each_rate_names_its_rules(metric: str | None, expected: dict[str, str]) -> None:
    """The word error rate of a VQA dataset is made by other rules than that of captions and of multiple choice."""
    assert normalise.rules(metric) == expected


@pytest.mark.parametrize(
    ("rule", "text", "plain"),
    [
        (normalise.words, "Don't STOP, the three dogs!", "do not stop the three dogs"),
        (lambda text: normalise.words(text, vqa=True), "Don't STOP, the three dogs!", "do not stop 3 dogs"),
        (normalise.evalai, "The three dogs' toys: 2.5, dont you?", "3 dogs' toys: 2.5 don't you"),
        (normalise.letter, "The answer is (b).", "B"),
    ],
    ids=["words-1", "words-vqa-1", "evalai-1", "letter-1"],
)
def test_what_an_id_stands_for(rule: Callable[[str], str | None], text: str, plain: str) -> None:
    """One text by each rule as it is known under its id; rules that give anything else need a new id."""
    assert rule(text) == plain
