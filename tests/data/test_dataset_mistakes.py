"""Mistakes in a folder of samples: each is told with the rows, files or columns that it is about."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from image_folders import image_folder, png, text_row

from layerprof.data import datasets
from layerprof.data.pictures import UnreadableImageError, read_image
from layerprof.errors import RequestError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five pictures and a metadata.jsonl, as an image folder."""
    return image_folder(tmp_path)


def test_missing_columns_are_named_with_what_was_found(folder: Path) -> None:
    """The error lists the missing column and all that are there."""
    with pytest.raises(RequestError) as caught:
        datasets.load("scienceqa", source=folder, count=2)
    assert "'choices'" in caught.value.problem
    assert "file_name, question, answers" in caught.value.problem


def test_every_missing_image_is_named_before_anything_is_opened(folder: Path) -> None:
    """Files that are not there, that are empty, or that are folders are told together, by row and reason."""
    (folder / "0.png").write_bytes(b"")
    (folder / "2.png").unlink()
    (folder / "2.png").mkdir()
    (folder / "4.png").unlink()
    with pytest.raises(RequestError) as caught:
        datasets.load("textvqa", source=folder, count=5)
    assert "3 images" in caught.value.problem
    for row in ("row 0 (id 0): 0.png: empty", "row 2 (id 2): 2.png: is a folder", "row 4 (id 4): 4.png: No such file"):
        assert row in caught.value.problem
    assert "row 1" not in caught.value.problem
    assert "--skip-bad" in caught.value.remedy


def test_missing_images_are_left_out_when_asked(folder: Path) -> None:
    """The following rows take their place, and each is kept with its reason."""
    (folder / "0.png").unlink()
    (folder / "2.png").unlink()
    loaded = datasets.load("textvqa", source=folder, count=2, skip_bad=True)
    assert [example.id for example in loaded.examples] == ["1", "3"]
    assert loaded.bad == {f"{n}": f"row {n} (id {n}): {n}.png: No such file or directory" for n in (0, 2)}
    assert loaded.remark is None


def test_ten_unreadable_images_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    """A folder whose paths are all wrong does not fill the screen."""
    (tmp_path / "metadata.jsonl").write_text("\n".join(json.dumps(text_row(number)) for number in range(14)))
    with pytest.raises(RequestError) as caught:
        datasets.load("textvqa", source=tmp_path, count=14)
    assert "row 9 " in caught.value.problem
    assert "row 10 " not in caught.value.problem
    assert "and 4 more" in caught.value.problem


@pytest.mark.parametrize("content", ["", "{]", '["a"]', "\x00\x01"])
def test_a_broken_table_is_told_with_its_file(tmp_path: Path, content: str) -> None:
    """A table that cannot be parsed, or holds no rows, ends in a message."""
    (tmp_path / "metadata.jsonl").write_text(content)
    with pytest.raises(RequestError) as caught:
        datasets.load("textvqa", source=tmp_path, count=1)
    assert str(tmp_path) in caught.value.problem


def test_an_empty_folder_and_several_tables_are_told(tmp_path: Path) -> None:
    """No table to read, or no way to choose between several."""
    with pytest.raises(RequestError, match="no parquet, jsonl, json or csv"):
        datasets.load("textvqa", source=tmp_path, count=1)
    for name in ("one.csv", "two.csv"):
        (tmp_path / name).write_text("question\nx\n")
    with pytest.raises(RequestError, match=r"2 tables \(one.csv, two.csv\)"):
        datasets.load("textvqa", source=tmp_path, count=1)


def test_base64_text_is_no_path() -> None:
    """Text that is no file is told as unreadable, briefly."""
    with pytest.raises(UnreadableImageError):
        read_image(base64.b64encode(png()).decode(), None)


@pytest.mark.parametrize(("name", "text"), [("t.csv", ""), ("t.csv", "image,question\n"), ("t.json", "[]")])
def test_a_table_without_rows_says_so(name: str, text: str, tmp_path: Path) -> None:
    """A header alone is told as what it is, not as missing columns."""
    (tmp_path / name).write_text(text)
    with pytest.raises(RequestError, match=f"{name} has no rows"):
        datasets.load("textvqa", source=tmp_path, count=1)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ("https://example.com/a.png", "not fetched"),
        ("a\0b.png", "null"),
        ("~nobody_of_that_name/a.png", "home"),
        ("gone.png", "No such file"),
    ],
)
def test_a_path_that_leads_nowhere_is_named(image: str, reason: str, folder: Path) -> None:
    """Addresses, impossible names and missing files are told like any unreadable image, with the name."""
    (folder / "metadata.jsonl").write_text(json.dumps(text_row(0, file_name=image)))
    with pytest.raises(RequestError) as caught:
        datasets.load("textvqa", source=folder, count=1)
    assert image in caught.value.problem
    assert reason in caught.value.problem
