"""Samples of the hub: streamed at a commit that is recorded, and what is told when it cannot be reached."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import HfApi
from image_folders import png
from PIL import Image

from layerprof.data import datasets
from layerprof.data.pictures import opened
from layerprof.data.spec import Example
from layerprof.errors import RequestError


def test_no_network_is_told_with_the_ways_around_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is swapped for something else: the error names the bundled samples and a folder."""

    def no_route(*_args: object, **_asked: object) -> None:
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(HfApi, "dataset_info", no_route)
    with pytest.raises(RequestError) as caught:
        datasets.load("textvqa", source="hub", count=1)
    assert "lmms-lab/textvqa" in caught.value.problem
    assert "--source bundled" in caught.value.remedy
    assert "--source FOLDER" in caught.value.remedy


def fake_hub(
    monkeypatch: pytest.MonkeyPatch, rows: int, fail_at: int | None = None, lists: bool = False
) -> dict[str, Any]:
    """Replace the hub by streams of `rows` rows, with an image feature; returns what was asked of it and drawn.

    With `lists` a row has as many images as its number says, 0 to 3 in turn.
    """
    import datasets as hub

    asked: dict[str, Any] = {"streams": [], "drawn": Counter()}

    def draw() -> Any:
        for number in range(rows):
            if number == fail_at:
                raise ConnectionError("reset by peer")
            asked["drawn"][number] += 1
            cell: Any = {"bytes": png(color(number)), "path": None}
            cell = [cell] * (number % 4) if lists else cell
            yield {"image": cell, "question": f"q{number}", "answers": ["yes"]}

    features = hub.Features(
        {
            "image": hub.List(hub.Image()) if lists else hub.Image(),
            "question": hub.Value("string"),
            "answers": hub.List(hub.Value("string")),
        }
    )

    def load_dataset(*args: Any, columns: list[str] | None = None, **kwargs: Any) -> Any:
        asked.update(args=args, **kwargs)
        asked["streams"].append(columns)
        return hub.IterableDataset.from_generator(draw, features=features)

    monkeypatch.setattr(hub, "load_dataset", load_dataset)
    monkeypatch.setattr(HfApi, "dataset_info", lambda *_args, revision, **_: SimpleNamespace(sha=revision or "f" * 40))
    return asked


def color(row: int) -> tuple[int, int, int]:
    """Return the colour that tells a row's picture."""
    return row % 256, row // 256, 9


def seen(examples: Sequence[Example]) -> list[Any]:
    """Open pictures and return a pixel of each."""
    return [opened(picture).getpixel((1, 1)) for example in examples for picture in example.pictures]


def test_hub_rows_are_streamed_at_a_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the rows in use are drawn, at the commit that is recorded."""
    asked = fake_hub(monkeypatch, 1000)
    loaded = datasets.load("textvqa", source="hub", count=3)
    assert (loaded.source, loaded.revision) == ("hub:lmms-lab/textvqa", "f" * 40)
    assert (asked["split"], asked["streaming"], asked["revision"]) == ("validation", True, "f" * 40)
    assert [example.question for example in loaded.examples] == ["q0", "q1", "q2"]
    assert max(asked["drawn"]) < 10


def test_texts_are_streamed_first_and_images_in_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stream asks for its columns alone; that of images begins with the walk, and goes no further than it does."""
    asked = fake_hub(monkeypatch, 1000)
    loaded = datasets.load("textvqa", source="hub", count=50)
    assert asked["streams"] == [None, ["question", "answers"]]
    asked["drawn"].clear()
    assert seen(loaded.examples[:2]) == [color(0), color(1)]
    assert asked["streams"][2:] == [["image"]]
    assert max(asked["drawn"]) < 10


def test_a_second_walk_downloads_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What was met lies in a temporary file without a name: the stream is not begun again, and nothing stays behind."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    asked = fake_hub(monkeypatch, 20)
    loaded = datasets.load("textvqa", source="hub", count=6)
    expected = [color(row) for row in range(6)]
    assert seen(loaded.examples[:1]) == expected[:1]
    assert seen(loaded.examples) == expected
    streams, drawn = len(asked["streams"]), asked["drawn"].total()
    assert seen(loaded.examples) == expected
    assert seen(loaded.examples[::-1]) == expected[::-1]
    assert (len(asked["streams"]), asked["drawn"].total()) == (streams, drawn)
    assert list(tmp_path.iterdir()) == []


def test_lists_of_images_are_taken_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """How many there are is known when they are there: they are kept as rows are met."""
    asked = fake_hub(monkeypatch, 20, lists=True)
    loaded = datasets.load("textvqa", source="hub", count=6)
    assert [len(example.pictures) for example in loaded.examples] == [0, 1, 2, 3, 0, 1]
    streams = len(asked["streams"])
    for _ in range(2):
        assert seen(loaded.examples) == [color(row) for row in (1, 2, 2, 3, 3, 3, 5)]
    assert len(asked["streams"]) == streams


def test_a_seed_draws_from_the_first_thousands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions and pictures stay together, and no row beyond the 2,000 is streamed."""
    asked = fake_hub(monkeypatch, 2600)
    loaded, again = (datasets.load("textvqa", source="hub", count=30, seed=3) for _ in range(2))
    rows = [example.row for example in loaded.examples]
    assert rows == [example.row for example in again.examples]
    assert rows != sorted(filter(None, rows))
    assert [example.question for example in loaded.examples] == [f"q{row}" for row in rows]
    assert seen(loaded.examples) == [color(row or 0) for row in rows]
    assert max(asked["drawn"]) < 2010


def test_a_seed_draws_from_all_when_all_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row comes once."""
    fake_hub(monkeypatch, 2100)
    loaded = datasets.load("textvqa", source="hub", count="all", seed=3)
    assert sorted(example.row or 0 for example in loaded.examples) == list(range(2100))
    assert max(example.row or 0 for example in loaded.examples[:50]) > 1500


def test_a_repository_of_parquet_files_gives_only_the_columns_in_use(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The library's own streaming, on a folder laid out as the hub has it: with its images, in any order."""
    import datasets as hub

    rows = [{"image_id": f"i{n}", "question": f"q{n}", "answers": ["a"], "other": "x" * 9} for n in range(5)]
    whole = hub.Dataset.from_list([row | {"image": Image.new("RGB", (8, 6), color(n))} for n, row in enumerate(rows)])
    (tmp_path / "data").mkdir()
    whole.to_parquet(tmp_path / "data" / "validation-00000-of-00001.parquet")
    here = dataclasses.replace(datasets.SPECS["textvqa"], hub_id=str(tmp_path))
    monkeypatch.setitem(datasets.SPECS, "textvqa", here)
    monkeypatch.setattr(HfApi, "dataset_info", lambda *_args, **_: SimpleNamespace(sha="e" * 40))
    loads: list[Any] = []
    real = hub.load_dataset

    def noted(*args: Any, **kwargs: Any) -> Any:
        loads.append(real(*args, **kwargs))
        return loads[-1]

    monkeypatch.setattr(hub, "load_dataset", noted)
    loaded = datasets.load("textvqa", source="hub", count="all")
    assert [(example.id, example.question) for example in loaded.examples] == [(f"i{n}", f"q{n}") for n in range(5)]
    assert seen(loaded.examples[::-1]) == [color(n) for n in range(4, -1, -1)]
    assert [set(stream.column_names) for stream in loads[1:]] == [{"image_id", "question", "answers"}, {"image"}]


def test_files_that_take_no_choice_of_columns_are_streamed_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A folder of images with a table, as many datasets of the hub are: more is downloaded, the rows are the same."""
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(png(color(number)))
    listed = [{"file_name": f"{number}.png", "caption": f"c{number}"} for number in range(3)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in listed))
    here = dataclasses.replace(datasets.SPECS["coco"], hub_id=str(tmp_path), split="train")
    monkeypatch.setitem(datasets.SPECS, "coco", here)
    monkeypatch.setattr(HfApi, "dataset_info", lambda *_args, **_: SimpleNamespace(sha="e" * 40))
    loaded = datasets.load("coco", source="hub", count="all")
    assert [example.references for example in loaded.examples] == [("c0",), ("c1",), ("c2",)]
    assert seen(loaded.examples) == [color(number) for number in range(3)]


def test_a_revision_can_be_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """hub@REVISION asks for that commit."""
    asked = fake_hub(monkeypatch, 5)
    assert datasets.load("textvqa", source="hub@abc123", count=1).revision == "abc123"
    assert asked["revision"] == "abc123"


def test_a_connection_that_breaks_half_way_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in the stream ends like no network, not in a traceback."""
    fake_hub(monkeypatch, 10, fail_at=2)
    with pytest.raises(RequestError, match="reset by peer"):
        datasets.load("textvqa", source="hub", count=5)


def test_a_connection_that_breaks_in_the_walk_is_told_and_may_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no bad picture, so that nothing is left out for it."""
    import datasets as hub

    fake_hub(monkeypatch, 10)
    loaded = datasets.load("textvqa", source="hub", count=5)
    whole = hub.load_dataset
    fake_hub(monkeypatch, 10, fail_at=2)
    assert seen(loaded.examples[:2]) == [color(0), color(1)]
    with pytest.raises(RequestError, match="reset by peer"):
        seen(loaded.examples)
    monkeypatch.setattr(hub, "load_dataset", whole)
    assert seen(loaded.examples) == [color(row) for row in range(5)]
