"""The token budget: it cuts hints, then questions, and refuses where it would have to cut more."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import samples

from layerprof import demo
from layerprof.data.prompt_budget import NotEnoughTokensError, fit
from layerprof.data.spec import Example


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """Load the bundled tokenizer."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(demo.MODEL_FOLDER)


SCIENCE = {"choices": ("a red star", "a blue circle"), "hint": "The picture shows some shapes. " * 12}
KEPT = "\nA. a red star\nB. a blue circle\nAnswer with the option's letter from the given choices directly."


def count(tokenizer: Any, text: str) -> int:
    """Count the tokens of a text."""
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


def test_a_budget_that_is_large_enough_changes_nothing(tokenizer: Any) -> None:
    """No text is touched, no cut is counted."""
    examples = samples(["Which one is there?"], "scienceqa", **SCIENCE).examples
    whole = fit(tokenizer, "scienceqa", examples, None)
    assert fit(tokenizer, "scienceqa", examples, 10_000) == whole
    assert whole[0].cut == 0


def test_the_hint_is_cut_before_the_question(tokenizer: Any) -> None:
    """As little as needed, from the end of the hint; question, options and instruction stay."""
    (example,) = samples(["Which one is there?"], "scienceqa", **SCIENCE).examples
    (whole,) = fit(tokenizer, "scienceqa", [example], None)
    full = count(tokenizer, whole.text)
    (cut,) = fit(tokenizer, "scienceqa", [example], full - 20)
    assert cut.text.startswith("Context: The picture shows")
    assert cut.text.endswith(f"\nWhich one is there?{KEPT}")
    assert count(tokenizer, cut.text) == full - cut.cut <= full - 20
    assert cut.cut <= 26


def test_then_the_question_is_cut_from_its_end(tokenizer: Any) -> None:
    """With the hint gone, the question's beginning stays before the options."""
    question = "Which one of these many things is there in the picture?"
    (example,) = samples([question], "scienceqa", **SCIENCE).examples
    (cut,) = fit(tokenizer, "scienceqa", [example], count(tokenizer, KEPT) + 6)
    assert "Context" not in cut.text
    assert cut.text.endswith(KEPT)
    kept = cut.text.removesuffix(KEPT)
    assert kept
    assert question.startswith(kept)


def test_a_budget_that_would_cut_options_is_refused_with_the_one_that_works(tokenizer: Any) -> None:
    """The message names the sample, its need and the smallest budget for all; that budget then works."""
    short, long = (
        dataclasses.replace(example, id=name, choices=choices)
        for example, name, choices in zip(
            samples(["Which?"] * 2, "scienceqa").examples,
            ("short", "long"),
            (("a", "b"), ("a long option indeed", "another quite long option")),
            strict=True,
        )
    )
    with pytest.raises(NotEnoughTokensError, match="Not enough tokens: sample short of scienceqa needs") as caught:
        fit(tokenizer, "scienceqa", [short, long], 5)
    smallest = int(caught.value.remedy.split()[2])
    assert str(smallest) not in caught.value.problem.split("needs ")[1].split()[0]
    fit(tokenizer, "scienceqa", [short, long], smallest)
    with pytest.raises(NotEnoughTokensError, match="sample long"):
        fit(tokenizer, "scienceqa", [short, long], smallest - 1)


def test_the_caption_instruction_is_never_cut(tokenizer: Any) -> None:
    """COCO's prompt is nothing but instruction."""
    with pytest.raises(NotEnoughTokensError):
        fit(tokenizer, "coco", samples([""], "coco").examples, 3)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=80), st.text(max_size=80), st.integers(60, 200))
def test_any_text_is_cut_to_the_budget(question: str, hint: str, budget: int) -> None:
    """Whatever the script: within the budget, options and instruction whole, or refused with a reason."""
    from transformers import AutoTokenizer

    bytes_tokenizer = AutoTokenizer.from_pretrained(demo.MODEL_FOLDER)
    example = Example("1", (), question, ("p", "q"), hint)
    tail = "\nA. p\nB. q\nAnswer with the option's letter from the given choices directly."
    first = next(iter(question.split()), "")
    if count(bytes_tokenizer, first + tail) > budget:
        with pytest.raises(NotEnoughTokensError):
            fit(bytes_tokenizer, "scienceqa", [example], budget)
        return
    (cut,) = fit(bytes_tokenizer, "scienceqa", [example], budget)
    assert count(bytes_tokenizer, cut.text) <= budget
    assert cut.text.endswith(tail)
