"""Guards of a cell by hand counts, and the bounds from which on each of them strikes."""

from __future__ import annotations

from typing import Any

import pytest
from sample_run import sample_run

from layerprof.records import Run
from layerprof.sweep import guards
from layerprof.sweep.cells import Guards


def made(wer: dict[str, Any] | None = None, passes: dict[str, Any] | None = None, **totals: Any) -> Run:
    """Return the sample run with other totals; `wer` of None is none at all."""
    base = sample_run()
    assert base.totals.wer is not None
    known = None if wer is None else base.totals.wer.model_copy(update=wer)
    changed = base.totals.model_copy(update={"wer": known, **totals})
    return base.model_copy(update={"totals": changed, "samples": 5, "passes": passes or {}})


def test_guards_count_what_the_run_says() -> None:
    """4 of 5 samples scored, 40 words answered and 20 expected; 100 of 400 tokens padding; the busier of two passes."""
    words = {"hypothesis_words": 40, "reference_words": 20, "unscored": 1, "truncated_share": 0.05}
    passes = {"other_load": {"bare": 0.02, "latency": 0.11}}
    found = guards.judge(made(words, passes, prompt_tokens=300, pad_tokens=100), 0.75, 4, 2, "a reason")
    assert found.model_copy(update={"flags": ()}) == Guards(
        batch_invariant=0.75,
        checked=4,
        truncated_share=0.05,
        hypothesis_words=10.0,
        reference_words=5.0,
        padding_share=0.25,
        other_load=0.11,
        not_finite=2,
        reason="a reason",
    )
    assert found.flags == guards.flags(found)
    assert len(found.flags) == 2


def test_what_a_run_does_not_know_is_not_judged() -> None:
    """No scores, no tokens, no load: None each, and no flag; a prompt without a padding token has a share of none."""
    found = guards.judge(made(prompt_tokens=None, pad_tokens=None), None, 0, None, "one row a batch")
    assert found == Guards(reason="one row a batch")
    assert guards.judge(made(prompt_tokens=10, pad_tokens=None), None, 0, None).padding_share == 0.0
    unscored = guards.judge(made({"unscored": 5}), None, 0, None)
    assert (unscored.hypothesis_words, unscored.reference_words) == (None, None)


STRIKES: list[tuple[dict[str, Any], str]] = [
    ({"batch_invariant": 0.89, "checked": 100}, "89 % of 100 samples are answered the same alone"),
    ({"batch_invariant": 0.0, "checked": 8}, "0 % of 8 samples"),
    ({"truncated_share": 0.11}, "11 % of the answers were cut"),
    ({"hypothesis_words": 7.1, "reference_words": 1.4}, "7.1 words where the references have 1.4"),
    ({"padding_share": 0.51}, "51 % of the prompt tokens"),
    ({"not_finite": 1}, "NaN or infinite in 1 batches"),
    ({"other_load": 0.15}, "other programs took 15 % of the processors"),
]


@pytest.mark.parametrize(("values", "words"), STRIKES)
def test_what_is_wrong_is_said_in_words(values: dict[str, Any], words: str) -> None:
    """Each guard that strikes says what it found."""
    (flag,) = guards.flags(Guards(**values))
    assert words in flag


@pytest.mark.parametrize(
    "values",
    [
        {"batch_invariant": 0.9, "checked": 8},
        {"truncated_share": 0.1},
        {"hypothesis_words": 7.0, "reference_words": 1.4},
        {"hypothesis_words": 7.0, "reference_words": 0.0},
        {"hypothesis_words": 7.0},
        {"reference_words": 1.0},
        {"padding_share": 0.5},
        {"not_finite": 0},
        {"other_load": 0.149},
        {},
    ],
)
def test_what_is_at_its_bound_or_unknown_is_not_flagged(values: dict[str, Any]) -> None:
    """Nine answers in ten the same, a tenth cut, half of it padding, five times the words: not yet."""
    assert guards.flags(Guards(**values)) == ()


def test_the_worst_comes_first() -> None:
    """What makes figures meaningless stands before what makes them less exact."""
    everything = Guards(**{name: value for values, _ in STRIKES for name, value in values.items()})
    order = ["NaN", "depend on the batch", "are long", "were cut", "padding", "busy"]
    found = guards.flags(everything)
    assert [word in flag for word, flag in zip(order, found, strict=True)] == [True] * 6
