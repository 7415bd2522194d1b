"""Datasets: rows of any source become the same examples, and every mistake is told with its remedy."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sample_rows import RED, png, text_row

from layerprof.data import datasets, sources
from layerprof.errors import RequestError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five pictures and a metadata.jsonl, as an image folder."""
    rows = [text_row(number) for number in range(5)]
    for number in range(5):
        (tmp_path / f"{number}.png").write_bytes(png((50 * number, 0, 0)))
    (tmp_path / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return tmp_path


# --- conversion and prompts -------------------------------------------------------------------------------------


def test_textvqa_asks_as_lmms_eval_does() -> None:
    """The question is capitalised and followed by the instruction."""
    example = datasets.Example("1", None, "what does the SIGN say?")
    assert datasets.prompt("textvqa", example).text() == (
        "What does the sign say?\nAnswer the question using a single word or phrase."
    )


@pytest.mark.parametrize(("hint", "context"), [("", ""), ("It is cold.", "Context: It is cold.\n")])
def test_scienceqa_asks_as_lmms_eval_does(hint: str, context: str) -> None:
    """Context only where there is a hint, lettered options, the instruction."""
    example = datasets.Example("1", None, "Which one?", ("red", "blue"), hint)
    assert datasets.prompt("scienceqa", example).text() == (
        f"{context}Which one?\nA. red\nB. blue\nAnswer with the option's letter from the given choices directly."
    )


def test_coco_asks_the_same_of_every_picture() -> None:
    """The caption prompt does not depend on the row."""
    texts = {datasets.prompt("coco", datasets.Example(name, None, name)).text() for name in "ab"}
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
        assert one.image is not None
        assert other.image is not None
        assert one.image.tobytes() == other.image.tobytes()
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


def test_more_samples_than_there_are_is_an_error() -> None:
    """No silent cap: the message says how many there are."""
    with pytest.raises(RequestError, match="400 samples of coco were asked for, but bundled has 300") as caught:
        datasets.load("coco", count=400)
    assert "--samples 300" in caught.value.remedy


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


def test_missing_columns_are_named_with_what_was_found(folder: Path) -> None:
    """The error lists the missing column and all that are there."""
    with pytest.raises(RequestError) as caught:
        datasets.load("scienceqa", source=folder, count=2)
    assert "'choices'" in caught.value.problem
    assert "file_name, question, answers" in caught.value.problem


def test_every_unreadable_image_is_named(folder: Path) -> None:
    """Cut-off, foreign and missing files are told together, by row and reason, before a model is loaded."""
    (folder / "0.png").write_bytes(png()[:30])
    (folder / "2.png").write_text("not an image")
    (folder / "4.png").unlink()
    with pytest.raises(RequestError) as caught:
        datasets.load("textvqa", source=folder, count=5)
    assert "3 images" in caught.value.problem
    for row in ("row 0 (id 0): 0.png", "row 2 (id 2): 2.png", "row 4 (id 4): 4.png"):
        assert row in caught.value.problem
    assert "row 1" not in caught.value.problem


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


# --- folders ----------------------------------------------------------------------------------------------------


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
    assert all(example.image is not None and example.image.size == (8, 6) for example in loaded.examples)
    assert loaded.examples[0].image is not None
    assert loaded.examples[0].image.convert("RGB").getpixel((0, 0)) == RED


def test_a_table_file_can_be_given_itself(folder: Path) -> None:
    """The path of the table works like its folder; image paths start beside it."""
    assert len(datasets.load("textvqa", source=folder / "metadata.jsonl", count=5).examples) == 5


def test_a_seed_shuffles_a_folder(folder: Path) -> None:
    """All rows come, in another order, the same one each time."""
    orders = [
        [example.question for example in datasets.load("textvqa", source=folder, count=5, seed=seed).examples]
        for seed in (0, 3, 3)
    ]
    assert orders[1] == orders[2] != orders[0]
    assert sorted(orders[1]) == sorted(orders[0])


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
    assert sources.as_list(cell) == expected


@pytest.mark.parametrize("form", ["bytes", "mapping", "nested", "image"])
def test_an_image_cell_may_have_any_form(form: str) -> None:
    """Bytes, the hub's mapping, a list of one, and an image itself give the same pixels."""
    data = png()
    cells = {"bytes": data, "mapping": {"bytes": data, "path": "x"}, "nested": [{"bytes": data}]}
    cell = cells.get(form, Image.open(io.BytesIO(data)))
    image = sources.read_image(cell, None)
    assert image is not None
    assert image.convert("RGB").getpixel((1, 1)) == RED


def test_base64_text_is_no_path() -> None:
    """Text that is no file is told as unreadable, briefly."""
    with pytest.raises(sources.UnreadableImageError):
        sources.read_image(base64.b64encode(png()).decode(), None)


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


@pytest.mark.parametrize(("name", "text"), [("t.csv", ""), ("t.csv", "image,question\n"), ("t.json", "[]")])
def test_a_table_without_rows_says_so(name: str, text: str, tmp_path: Path) -> None:
    """A header alone is told as what it is, not as missing columns."""
    (tmp_path / name).write_text(text)
    with pytest.raises(RequestError, match=f"{name} has no rows"):
        datasets.load("textvqa", source=tmp_path, count=1)


def test_half_a_character_in_a_question_costs_that_sign_only(folder: Path) -> None:
    """JSON can hold half of a surrogate pair, which no tokenizer takes."""
    (folder / "metadata.jsonl").write_text(json.dumps(text_row(0, question="broken \ud83d emoji", answers=["\ud83d"])))
    (example,) = datasets.load("textvqa", source=folder, count=1).examples
    assert (example.question, example.references) == ("broken ? emoji", ("?",))


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
