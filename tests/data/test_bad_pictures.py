"""Pictures that turn out to be bad when their turn comes: told by name, or left out with the next in their place."""

from __future__ import annotations

import itertools
import json
from functools import partial
from pathlib import Path

import pytest
from image_folders import image_folder, png, text_row
from PIL import Image
from small_models import checkpoint_folder, subject

from layerprof.data import datasets, order
from layerprof.data.batching import Batches
from layerprof.data.pictures import read_image
from layerprof.data.spec import Dataset, Example
from layerprof.errors import RequestError
from layerprof.models.subject import Subject

GOOD, BROKEN = png(), png()[:30]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """Load a random Qwen2.5-VL."""
    return subject(checkpoint_folder(tmp_path_factory.mktemp("tiny") / "model"))


def written(cells: str) -> Dataset:
    """Make samples with good (`g`), broken (`b`) and no (`-`) pictures, in this order."""
    data = {"g": GOOD, "b": BROKEN, "-": None}
    examples = tuple(
        Example(str(row), (partial(read_image, data[cell], None),), f"q{row}?", references=("yes",), row=row)
        for row, cell in enumerate(cells)
    )
    return Dataset("textvqa", "own", None, "own", None, 16, examples)


def test_broken_files_are_told_when_met_with_the_others(tiny: Subject, tmp_path: Path) -> None:
    """The batch before is made. The message names all of them by row and reason, and the way to leave them out."""
    folder = image_folder(tmp_path)
    (folder / "1.png").write_bytes(BROKEN)
    (folder / "3.png").write_text("not an image")
    walk = Batches(tiny, datasets.load("textvqa", source=folder, count=5), image_size=56).walk()
    assert next(walk).ids == ("0",)
    with pytest.raises(RequestError) as caught:
        next(walk)
    assert f"2 images of {folder} cannot be read: row 1 (id 1): 1.png: " in caught.value.problem
    assert "row 3 (id 3): 3.png: cannot identify" in caught.value.problem
    assert "--skip-bad" in caught.value.remedy


@pytest.mark.parametrize("cell", ["iVBORw0KGgo" * 900, "data:image/png;base64,iVBORw0KGgo"])
def test_an_image_as_text_is_told_in_short(cell: str, tmp_path: Path) -> None:
    """Base64 of a file is longer than any message should be, and what to do is said."""
    folder = image_folder(tmp_path)
    (folder / "metadata.jsonl").write_text(json.dumps(text_row(0, file_name=cell)))
    with pytest.raises(RequestError, match="no path, and text is not decoded; store the file") as caught:
        datasets.load("textvqa", source=folder, count=1)
    assert len(caught.value.problem) < 300 + len(str(folder))
    found = datasets.load("textvqa", source=_beside(folder, cell), count=2, skip_bad=True)
    assert [len(why) < 200 for why in found.bad.values()] == [True]


def _beside(folder: Path, cell: str) -> Path:
    """Write a table with the cell and a good row after it."""
    rows = [text_row(0, file_name=cell), text_row(1)]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def test_looking_on_for_others_has_an_end(tiny: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a large set, the message names what was found in a few seconds."""
    monkeypatch.setattr(order, "LOOK_ON_S", -1.0)
    with pytest.raises(RequestError, match="1 image of own"):
        list(Batches(tiny, written("bb"), image_size=56).walk())


def test_the_next_samples_take_the_place_of_bad_ones(tiny: Subject) -> None:
    """Batches stay full, counts stay true while bad ones are met, and every walk has the same batches."""
    made = Batches(tiny, written("gbg-ggbg"), batch_size=2, image_size=56, skip_bad=True)
    assert (made.samples, len(made), made.bad) == (8, 4, {})
    first = [batch.ids for batch in made.walk()]
    assert first == [("0", "2"), ("4", "5"), ("7",)]
    assert (made.samples, len(made)) == (5, 3)
    assert list(made.bad) == ["1", "3", "6"]
    assert made.bad["3"] == "row 3 (id 3): no image"
    assert made.bad["1"].startswith("row 1 (id 1): ")
    assert [batch.ids for batch in made.walk()] == first
    assert [batch.ids for batch in made.some([2, 0])] == [("7",), ("0", "2")]
    assert [batch.ids for batch in made.of([4, 1])] == [("7",), ("2",)]


def test_a_batch_in_the_middle_is_the_same_without_those_before(tiny: Subject) -> None:
    """Whose turn it is depends on the samples before, which are looked at."""
    made = Batches(tiny, written("bgggb"), batch_size=2, image_size=56, skip_bad=True)
    assert [batch.ids for batch in made.some([1])] == [("3",)]


def test_a_walk_that_was_cut_off_leaves_the_rest_open(tiny: Subject) -> None:
    """Only what was met is known to be bad."""
    made = Batches(tiny, written("gbggb"), batch_size=2, image_size=56, skip_bad=True)
    assert [batch.ids for batch in itertools.islice(made.walk(), 1)] == [("0", "2")]
    assert (list(made.bad), made.samples) == (["1"], 4)


def test_a_changed_walk_shares_what_was_found(tiny: Subject) -> None:
    """What one finds to be bad is left out of both."""
    made = Batches(tiny, written("gbg"), image_size=56, skip_bad=True)
    other = made.then(lambda batch: batch)
    assert [batch.ids for batch in other.walk()] == [("0",), ("2",)]
    assert (made.samples, list(made.bad)) == (2, ["1"])


def test_a_picture_that_goes_bad_between_walks_ends_the_run(tiny: Subject, tmp_path: Path) -> None:
    """Leaving it out in one pass of two would compare different samples."""
    folder = image_folder(tmp_path)
    made = Batches(tiny, datasets.load("textvqa", source=folder, count=2), image_size=56, skip_bad=True)
    assert sum(batch.rows for batch in made.walk()) == 2
    (folder / "1.png").write_bytes(BROKEN)
    with pytest.raises(RequestError, match=r"which could be before: row 1 \(id 1\)"):
        list(made.walk())


def test_a_source_that_fails_is_no_bad_picture(tiny: Subject) -> None:
    """A connection that broke ends the run though bad pictures are skipped, and the sample is met again afterwards."""
    broken = [True]

    def picture() -> Image.Image:
        if broken[0]:
            raise RequestError("The connection broke.", "Mend it.")
        return read_image(GOOD, None)

    examples = tuple(Example(str(row), (picture,), "q?", references=("yes",)) for row in range(2))
    data = Dataset("textvqa", "own", None, "own", None, 16, examples)
    made = Batches(tiny, data, image_size=56, skip_bad=True)
    with pytest.raises(RequestError, match="connection"):
        list(made.walk())
    broken[0] = False
    assert [batch.ids for batch in made.walk()] == [("0",), ("1",)]
    assert made.bad == {}


def test_nothing_but_bad_pictures_is_an_error(tiny: Subject) -> None:
    """There is nothing to measure, and the reasons are given."""
    with pytest.raises(RequestError, match=r"none of 2 images can be read: row 0 \(id 0\)"):
        list(Batches(tiny, written("bb"), image_size=56, skip_bad=True).walk())


def test_missing_files_are_counted_with_those_that_are_met(tiny: Subject, tmp_path: Path) -> None:
    """What is told before the walk and what is met in it stand together; samples are those that are left."""
    folder = image_folder(tmp_path)
    (folder / "0.png").unlink()
    (folder / "3.png").write_bytes(BROKEN)
    data = datasets.load("textvqa", source=folder, count=5, skip_bad=True)
    made = Batches(tiny, data, batch_size=3, image_size=56, skip_bad=True)
    assert [batch.ids for batch in made.walk()] == [("1", "2", "4")]
    assert (list(made.bad), made.samples) == (["0", "3"], 3)


def test_no_batch_keeps_a_picture(tiny: Subject) -> None:
    """A picture is opened anew in each walk, one batch's at a time."""
    opened: list[str] = []

    def picture(row: int) -> object:
        opened.append(str(row))
        return read_image(GOOD, None)

    examples = tuple(Example(str(row), (partial(picture, row),), "q?", references=("yes",)) for row in range(4))  # type: ignore[arg-type]  # it is an image
    made = Batches(tiny, Dataset("textvqa", "own", None, "own", None, 16, examples), batch_size=2, image_size=56)
    assert opened == []
    walk = made.walk()
    next(walk)
    assert opened == ["0", "1"]
    list(walk)
    assert opened == list("0123")
    list(made.walk())
    assert opened == list("0123") * 2


def test_rows_are_told_as_the_table_counts_them(tiny: Subject, tmp_path: Path) -> None:
    """In a drawn order, too, the row that is named is the table's."""
    folder = image_folder(tmp_path)
    (folder / "2.png").write_bytes(BROKEN)
    assert text_row(2)["file_name"] == "2.png"
    with pytest.raises(RequestError, match=r"row 2 \(id 2\): 2.png"):
        list(Batches(tiny, datasets.load("textvqa", source=folder, seed=5, count=5), image_size=56).walk())
