"""Samples in a folder of one's own: a table in any form, with pictures beside it or in it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from image_folders import RED, image_folder, png, text_row
from PIL import Image

from layerprof.data import datasets
from layerprof.data.pictures import opened, read_image
from layerprof.data.rows import as_list
from layerprof.errors import RequestError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five pictures and a metadata.jsonl, as an image folder."""
    return image_folder(tmp_path)


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write one object a line."""
    (path / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))


def write_json(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write a list under a name, as published JSON files have it."""
    (path / "data.json").write_text(json.dumps({"data": rows}))


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write lists as JSON in their cells."""
    with (path / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({key: json.dumps(v) if isinstance(v, list) else v for key, v in row.items()} for row in rows)


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write images inside the table, as the hub keeps them, in two shards beside another split."""
    import pyarrow
    from pyarrow import parquet

    (path / "data").mkdir()
    inside = [{"image": {"bytes": png(), "path": None}} | row for row in rows]
    for row in inside:
        del row["file_name"]
    for shard, part in enumerate((inside[:2], inside[2:])):
        table = pyarrow.Table.from_pylist(part)
        parquet.write_table(table, path / "data" / f"validation-{shard:05d}-of-00002.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(inside[:1] * 9), path / "data" / "train-00000-of-00001.parquet")


def write_saved(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write as `datasets.save_to_disk` does."""
    import datasets as hub

    whole = [{"image": Image.open(io.BytesIO(png()))} | row for row in rows]
    splits = {"train": hub.Dataset.from_list(whole[:1]), "validation": hub.Dataset.from_list(whole)}
    hub.DatasetDict(splits).save_to_disk(path / "saved")


@pytest.mark.parametrize("write", [write_jsonl, write_json, write_csv, write_parquet, write_saved])
def test_a_folder_may_be_written_in_any_of_these_ways(
    tmp_path: Path, write: Callable[[Path, list[dict[str, Any]]], None]
) -> None:
    """The same three rows come out of each format, with their images."""
    rows = [text_row(number, question_id=number + 100) for number in range(3)]
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(png())
    write(tmp_path, rows)
    place = tmp_path / "saved" if (tmp_path / "saved").exists() else tmp_path
    loaded = datasets.load("textvqa", source=place, count=3)
    assert [example.id for example in loaded.examples] == ["100", "101", "102"]
    assert [example.references for example in loaded.examples] == [(str(number),) * 10 for number in range(3)]
    for example in loaded.examples:
        (picture,) = example.pictures
        assert (picture().size, opened(picture).getpixel((0, 0))) == ((8, 6), RED)


@pytest.mark.parametrize("asked", [32, "all"])
def test_a_folder_of_fewer_samples_is_taken_whole(folder: Path, asked: Any) -> None:
    """More than there are takes all and says so, with what was dropped and why; all needs no remark."""
    rows = [text_row(number) for number in range(5)] + [text_row(5, file_name=None), text_row(6, answers=[])]
    write_jsonl(folder, rows)
    loaded = datasets.load("textvqa", source=folder, count=asked)
    assert (len(loaded.examples), loaded.asked) == (5, asked)
    expected = f"32 samples of textvqa were asked for, but {folder} has 5, 1 dropped for no image, 1 dropped for empty "
    assert loaded.remark == (None if asked == "all" else f"{expected}references: all of them are taken.")


def test_a_folder_without_a_sample_is_an_error(folder: Path) -> None:
    """Nothing is left to take: the reasons are the message."""
    write_jsonl(folder, [text_row(0, answers=[" "]), text_row(1, file_name="")])
    with pytest.raises(RequestError, match="has 0, 1 dropped for empty references, 1 dropped for no image"):
        datasets.load("textvqa", source=folder, count="all")


def test_a_table_file_can_be_given_itself(folder: Path) -> None:
    """The path of the table works like its folder; image paths start beside it."""
    assert len(datasets.load("textvqa", source=folder / "metadata.jsonl", count=5).examples) == 5


def test_a_seed_shuffles_a_folder(folder: Path) -> None:
    """All rows come, in another order, the same one each time; a row keeps its number."""
    orders = [
        [example.question for example in datasets.load("textvqa", source=folder, count=5, seed=seed).examples]
        for seed in (0, 3, 3)
    ]
    assert orders[1] == orders[2] != orders[0]
    assert sorted(orders[1]) == sorted(orders[0])
    shuffled = datasets.load("textvqa", source=folder, seed=3).examples
    assert [example.question for example in shuffled] == [f"what is {example.row}?" for example in shuffled]


def test_rows_that_cannot_be_scored_are_dropped_and_counted(tmp_path: Path) -> None:
    """Empty references, no image, and no right option: passed over, counted by reason, replaced by later rows."""
    (tmp_path / "x.png").write_bytes(png())
    rows = [text_row(0, file_name="x.png", answers=["", " "]), text_row(1, file_name=None)]
    rows += [text_row(2, file_name="x.png", answers=["", "yes"]), text_row(3, file_name="x.png", answers="yes")]
    write_jsonl(tmp_path, rows)
    loaded = datasets.load("textvqa", source=tmp_path, count=2)
    assert loaded.dropped == {"empty references": 1, "no image": 1}
    assert [example.references for example in loaded.examples] == [("", "yes"), ("yes",)]


def test_scienceqa_rows_without_a_right_option_are_dropped(tmp_path: Path) -> None:
    """The published test split marks unknown answers with -1 or nothing."""
    (tmp_path / "x.png").write_bytes(png())
    rows = [
        {"image": "x.png", "question": "?", "choices": ["p", "q"], "answer": answer, "hint": None}
        for answer in (-1, None, 1)
    ]
    write_jsonl(tmp_path, rows)
    loaded = datasets.load("scienceqa", source=tmp_path, count=1)
    assert loaded.dropped == {"no answer among the choices": 2}
    assert loaded.examples[0].references == ("B",)
    assert loaded.examples[0].hint == ""


def test_questions_about_one_image_keep_apart(tmp_path: Path) -> None:
    """Ids that repeat get a number, so samples can be told apart."""
    (tmp_path / "x.png").write_bytes(png())
    write_jsonl(tmp_path, [text_row(number, file_name="x.png", image_id="i") for number in range(3)])
    loaded = datasets.load("textvqa", source=tmp_path, count=3)
    assert [example.id for example in loaded.examples] == ["i", "i#2", "i#3"]


def test_coco_needs_no_question_and_takes_captions_under_other_names(tmp_path: Path) -> None:
    """A folder of captions has image and caption; one caption alone is a reference."""
    (tmp_path / "x.png").write_bytes(png())
    write_jsonl(tmp_path, [{"image": "x.png", "caption": "a red field"}])
    assert datasets.load("coco", source=tmp_path, count=1).examples[0].references == ("a red field",)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (["a", "b"], ["a", "b"]),
        ('["a", "b"]', ["a", "b"]),
        ("['a', 'b']", ["a", "b"]),
        ("a", ["a"]),
        ("[unclosed", ["[unclosed"]),
        (None, []),
        (float("nan"), []),
        ("", []),
        (7, [7]),
    ],
)
def test_a_cell_becomes_a_list(cell: Any, expected: list[Any]) -> None:
    """Lists, lists written as text by JSON or pandas, single values and nothing."""
    assert as_list(cell) == expected


@pytest.mark.parametrize("form", ["bytes", "mapping", "nested", "image"])
def test_an_image_cell_may_have_any_form(form: str) -> None:
    """Bytes, the hub's mapping, a list of one, and an image itself give the same pixels."""
    data = png()
    cells = {"bytes": data, "mapping": {"bytes": data, "path": "x"}, "nested": [{"bytes": data}]}
    cell = cells.get(form, Image.open(io.BytesIO(data)))
    image = read_image(cell, None)
    assert image.convert("RGB").getpixel((1, 1)) == RED


@pytest.mark.parametrize("sign", ["\u2028", "\x85", "\x0c", "\x1e"])
@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_only_line_feeds_end_a_line(sign: str, suffix: str, folder: Path) -> None:
    """Separators of Unicode stand inside a text, in a table as in JSON, and part no row."""
    question = f"one{sign}two"
    (folder / "metadata.jsonl").unlink()
    if suffix == "jsonl":
        (folder / "rows.jsonl").write_text(json.dumps(text_row(0, question=question), ensure_ascii=False) + "\r\n")
    else:
        (folder / "rows.csv").write_text(f"file_name,question,answers\r\n0.png,{question},yes\r\n", newline="")
    (example,) = datasets.load("textvqa", source=folder, count=1).examples
    assert example.question == question


@pytest.mark.parametrize("sign", [";", "\t"])
def test_a_table_of_a_spreadsheet_is_read(sign: str, folder: Path) -> None:
    """Where the decimal sign is a comma, spreadsheets part the cells of a .csv by semicolons."""
    (folder / "metadata.jsonl").unlink()
    (folder / "rows.csv").write_text(f"file_name{sign}question{sign}answers\n0.png{sign}what, then?{sign}yes\n")
    (example,) = datasets.load("textvqa", source=folder, count=1).examples
    assert (example.question, example.references) == ("what, then?", ("yes",))


def test_half_a_character_in_a_question_costs_that_sign_only(folder: Path) -> None:
    """JSON can hold half of a surrogate pair, which no tokenizer takes."""
    (folder / "metadata.jsonl").write_text(json.dumps(text_row(0, question="broken \ud83d emoji", answers=["\ud83d"])))
    (example,) = datasets.load("textvqa", source=folder, count=1).examples
    assert (example.question, example.references) == ("broken ? emoji", ("?",))
