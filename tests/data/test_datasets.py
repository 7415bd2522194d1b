"""Datasets: what each asks and takes for right, the bundled samples, and names that are none."""

from __future__ import annotations

from typing import Any

import pytest

from layerprof.data import datasets
from layerprof.data.spec import Example
from layerprof.demo import drawing, tasks
from layerprof.errors import RequestError
from layerprof.settings import DATASETS


def test_every_dataset_that_may_be_asked_for_is_known() -> None:
    """The names that the command line takes are those of the table, in its order."""
    assert tuple(datasets.SPECS) == DATASETS
    assert [spec.name for spec in datasets.SPECS.values()] == list(DATASETS)


# --- conversion and prompts -------------------------------------------------------------------------------------


def test_textvqa_asks_as_lmms_eval_does() -> None:
    """The question is capitalised and followed by the instruction."""
    example = Example("1", (), "what does the SIGN say?")
    assert datasets.prompt("textvqa", example).text() == (
        "What does the sign say?\nAnswer the question using a single word or phrase."
    )


@pytest.mark.parametrize(("hint", "context"), [("", ""), ("It is cold.", "Context: It is cold.\n")])
def test_scienceqa_asks_as_lmms_eval_does(hint: str, context: str) -> None:
    """Context only where there is a hint, lettered options, the instruction."""
    example = Example("1", (), "Which one?", ("red", "blue"), hint)
    assert datasets.prompt("scienceqa", example).text() == (
        f"{context}Which one?\nA. red\nB. blue\nAnswer with the option's letter from the given choices directly."
    )


def test_coco_asks_the_same_of_every_picture() -> None:
    """The caption prompt does not depend on the row."""
    texts = {datasets.prompt("coco", Example(name, (), name)).text() for name in "ab"}
    assert texts == {"Provide a one-sentence caption for the provided image."}


@pytest.mark.parametrize(
    ("answer", "index"),
    [
        *[(1, 1), ("1", 1), ("1.0", 1), ("B", 1), ("b", 1), ("blue", 1), (0, 0)],
        *[(-1, None), (2, None), (None, None), ("C", None), ("green", None), (float("nan"), None), ("", None)],
    ],
)
def test_a_right_option_may_be_index_letter_or_text(answer: Any, index: int | None) -> None:
    """Anything that names no option of (red, blue) gives None."""
    assert datasets.option_index(answer, ("red", "blue")) == index


def test_a_choice_that_is_a_number_is_not_taken_for_an_index() -> None:
    """With the options 3, 2, 1 an answer of 1 is an index, as in the published dataset."""
    assert datasets.option_index(1, ("3", "2", "1")) == 1


# --- bundled ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "metric", "tokens"),
    [("textvqa", "vqa_accuracy", 16), ("scienceqa", "exact_match", 16), ("coco", None, 64)],
)
def test_bundled_samples_need_nothing(name: str, metric: str | None, tokens: int) -> None:
    """Each dataset draws images with references, twice the same, with its metric and answer length."""
    first, again = (datasets.load(name, count=3) for _ in range(2))
    assert (first.metric, first.max_new_tokens, first.source, len(first.examples)) == (metric, tokens, "bundled", 3)
    for one, other in zip(first.examples, again.examples, strict=True):
        assert [picture().tobytes() for picture in one.pictures] == [picture().tobytes() for picture in other.pictures]
        assert one.references == other.references
        assert any(one.references)
    assert len({example.id for example in first.examples}) == 3


def test_a_seed_draws_other_samples_and_the_same_ones_again() -> None:
    """Seed 0 is the dataset's order; another seed a choice from all of it."""
    ordered, drawn, again = (
        [example.id for example in datasets.load("coco", count=6, seed=seed).examples] for seed in (0, 7, 7)
    )
    assert ordered == [f"evaluation-{number:06d}.jpg" for number in range(6)]
    assert drawn == again != ordered


def test_scienceqa_references_are_letters_of_its_options() -> None:
    """The reference is a letter within the options."""
    for example in datasets.load("scienceqa", count=5).examples:
        (letter,) = example.references
        assert letter in "ABCD"[: len(example.choices)]


def test_scenes_are_drawn_beyond_the_three_hundred() -> None:
    """All are 300. Asking for more draws more, the first 300 unchanged; a seed then draws from as many as asked for."""
    every, more = datasets.load("coco", count="all"), datasets.load("coco", count=310)
    assert (len(every.examples), len(more.examples)) == (300, 310)
    assert [example.references for example in more.examples[:300]] == [example.references for example in every.examples]
    assert len({example.id for example in more.examples}) == 310
    assert more.remark is None
    drawn = datasets.load("coco", count=310, seed=7)
    assert sorted(example.id for example in drawn.examples) == sorted(example.id for example in more.examples)


def test_texts_are_known_without_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scene is drawn when its picture is asked for, anew each time, and not before."""
    drawn = []
    real = drawing.image

    def noted(scene: drawing.Scene) -> Any:
        drawn.append(scene)
        return real(scene)

    monkeypatch.setattr(drawing, "image", noted)
    loaded = datasets.load("textvqa", count=50)
    assert all(example.question and example.references for example in loaded.examples)
    assert drawn == []
    (picture,) = loaded.examples[7].pictures
    assert picture().tobytes() == picture().tobytes() == real(tasks.sample("textvqa", 7).scene).tobytes()
    assert len(drawn) == 2


# --- mistakes ---------------------------------------------------------------------------------------------------


def test_an_unknown_dataset_names_the_nearest() -> None:
    """A slip of the pen is answered with the list and a guess."""
    with pytest.raises(RequestError) as caught:
        datasets.load("textvq")
    assert "textvqa" in caught.value.remedy
    assert "scienceqa" in caught.value.remedy


@pytest.mark.parametrize("source", ["bundle", "/no/such/folder", "hubb"])
def test_an_unknown_source_names_the_choices(source: str) -> None:
    """A source that is nothing is told what sources there are."""
    with pytest.raises(RequestError, match="does not exist") as caught:
        datasets.load("coco", source=source)
    assert "--source bundled" in caught.value.remedy
