"""Tables whose rows list images, or the frames of a video, in any format; rows without any; bad ones among several."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from layerprof.data import datasets
from layerprof.data.pictures import UnreadableImageError, opened
from layerprof.data.spec import Picture
from layerprof.errors import RequestError

COLORS = {"red": (250, 10, 10), "green": (10, 250, 10), "blue": (10, 10, 250), "black": (0, 0, 0)}
ROWS: list[list[str]] = [["red"], ["green", "blue"], [], ["blue", "red", "black"], ["black"]]
"""What the images of each row show, in order."""


def png(color: str) -> bytes:
    """Bytes of a plain picture."""
    stream = io.BytesIO()
    Image.new("RGB", (8, 6), COLORS[color]).save(stream, "PNG")
    return stream.getvalue()


def seen(pictures: Sequence[Picture]) -> list[str]:
    """Return what pictures show."""
    names = {color: name for name, color in COLORS.items()}
    return [names[opened(one).getpixel((1, 1))] for one in pictures]  # type: ignore[index]  # an RGB pixel is a tuple


def texts(number: int) -> dict[str, Any]:
    """Return what a row says."""
    return {"question": f"q{number}?", "answers": ["yes"]}


def files(folder: Path) -> None:
    """Write a file of each colour."""
    for color in COLORS:
        (folder / f"{color}.png").write_bytes(png(color))


# --- the same rows in each format ---------------------------------------------------------------------------------


def paths(row: list[str]) -> list[str]:
    """Name the files of a row."""
    return [f"{color}.png" for color in row]


def jsonl(folder: Path, name: str, rows: list[Any]) -> Path:
    """Paths in a list."""
    lines = (json.dumps(texts(number) | {name: paths(row)}) for number, row in enumerate(rows))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def json_of_structs(folder: Path, name: str, rows: list[Any]) -> Path:
    """Paths in `{"bytes", "path"}`."""
    listed = [
        texts(number) | {name: [{"bytes": None, "path": path} for path in paths(row)]}
        for number, row in enumerate(rows)
    ]
    (folder / "metadata.json").write_text(json.dumps(listed))
    return folder


def csv_of_lists(folder: Path, name: str, rows: list[Any]) -> Path:
    """Write lists as text."""
    with (folder / "metadata.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [name, "question", "answers"])
        writer.writeheader()
        for number, row in enumerate(rows):
            writer.writerow({name: json.dumps(paths(row)), "question": f"q{number}?", "answers": "yes"})
    return folder


def _cells(rows: list[Any]) -> list[list[dict[str, Any]]]:
    return [[{"bytes": png(color), "path": f"{color}.png"} for color in row] for row in rows]


def parquet_of_bytes(folder: Path, name: str, rows: list[Any]) -> Path:
    """Bytes inside the table, three rows a group."""
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.Table.from_pylist([texts(n) | {name: cell} for n, cell in enumerate(_cells(rows))])
    parquet.write_table(table, folder / "metadata.parquet", row_group_size=3)
    return folder


def parquet_of_bare_bytes(folder: Path, name: str, rows: list[Any]) -> Path:
    """Bytes without a path beside them."""
    import pyarrow
    from pyarrow import parquet

    listed = [texts(n) | {name: [png(color) for color in row]} for n, row in enumerate(rows)]
    parquet.write_table(pyarrow.Table.from_pylist(listed), folder / "metadata.parquet", row_group_size=3)
    return folder


def parquet_of_paths(folder: Path, name: str, rows: list[Any]) -> Path:
    """Files beside the table."""
    import pyarrow
    from pyarrow import parquet

    listed = [texts(n) | {name: paths(row)} for n, row in enumerate(rows)]
    parquet.write_table(pyarrow.Table.from_pylist(listed), folder / "metadata.parquet")
    return folder


def saved(folder: Path, name: str, rows: list[Any]) -> Path:
    """Write as `datasets.save_to_disk` does, with a feature of images."""
    import datasets as hub

    kinds = {"question": hub.Value("string"), "answers": hub.List(hub.Value("string")), name: hub.List(hub.Image())}
    listed = [texts(n) | {name: cell} for n, cell in enumerate(_cells(rows))]
    hub.Dataset.from_list(listed, features=hub.Features(kinds)).save_to_disk(folder / "saved")
    return folder / "saved"


def saved_in_another_order(folder: Path, name: str, rows: list[Any]) -> Path:
    """Rows that stand otherwise in the file than they are listed."""
    import datasets as hub

    kinds = {"question": hub.Value("string"), "answers": hub.List(hub.Value("string")), name: hub.List(hub.Image())}
    listed = [texts(n) | {name: cell} for n, cell in enumerate(_cells(rows))]
    turned = hub.Dataset.from_list(listed[::-1], features=hub.Features(kinds))
    turned.select(range(len(rows) - 1, -1, -1)).save_to_disk(folder / "saved")
    return folder / "saved"


WRITERS = (
    *(jsonl, json_of_structs, csv_of_lists, parquet_of_bytes, parquet_of_bare_bytes, parquet_of_paths),
    *(saved, saved_in_another_order),
)
Writer = Callable[[Path, str, list[Any]], Path]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("name", ["images", "image"])
def test_all_images_of_a_list_are_taken_and_an_empty_list_is_a_sample_without_any(
    tmp_path: Path, write: Writer, name: str
) -> None:
    """In each format, in their order, twice the same."""
    files(tmp_path)
    loaded = datasets.load("textvqa", source=write(tmp_path, name, ROWS), count="all")
    for _ in range(2):
        assert [seen(example.pictures) for example in loaded.examples] == ROWS
    assert (loaded.dropped, loaded.bad) == ({}, {})
    assert all(example.frames == () for example in loaded.examples)


@pytest.mark.parametrize("write", WRITERS)
def test_a_drawn_order_finds_the_images_again(tmp_path: Path, write: Writer) -> None:
    """Each row's images are those of its question, whatever the order; each row is there."""
    files(tmp_path)
    loaded = datasets.load("textvqa", source=write(tmp_path, "images", ROWS), count="all", seed=3)
    assert sorted(example.row or 0 for example in loaded.examples) == [0, 1, 2, 3, 4]
    for example in loaded.examples:
        assert seen(example.pictures) == ROWS[int(example.question[1:-1])]
    last_first = [seen(example.pictures[::-1]) for example in reversed(loaded.examples)]
    assert last_first == [ROWS[int(example.question[1:-1])][::-1] for example in reversed(loaded.examples)]


@pytest.mark.parametrize("write", WRITERS)
def test_a_video_is_a_list_of_frames(tmp_path: Path, write: Writer) -> None:
    """The column alone is enough; frames are no images."""
    files(tmp_path)
    rows = [["red", "green"], ["blue", "blue", "black"]]
    loaded = datasets.load("textvqa", source=write(tmp_path, "video", rows), count="all")
    assert [seen(example.frames) for example in loaded.examples] == rows
    assert [example.pictures for example in loaded.examples] == [(), ()]


# --- folders of frames --------------------------------------------------------------------------------------------


def lines(folder: Path, *rows: dict[str, Any]) -> Path:
    """Write rows of jsonl."""
    listed = (json.dumps(texts(number) | row) for number, row in enumerate(rows))
    (folder / "metadata.jsonl").write_text("\n".join(listed))
    return folder


def test_a_video_may_be_a_folder_of_its_frames(tmp_path: Path) -> None:
    """In the order of their names, other files left out; an image may stand beside it."""
    files(tmp_path)
    (tmp_path / "clip").mkdir()
    for number, color in enumerate(("black", "red", "blue")):
        (tmp_path / "clip" / f"{number:04d}.png").write_bytes(png(color))
    (tmp_path / "clip" / "notes.txt").write_text("?")
    source = lines(tmp_path, {"video": "clip", "image": "red.png"}, {"video": None, "image": "blue.png"})
    first, second = datasets.load("textvqa", source=source, count="all").examples
    assert (seen(first.pictures), seen(first.frames)) == (["red"], ["black", "red", "blue"])
    assert (seen(second.pictures), second.frames) == (["blue"], ())


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("clip.mp4", "clip.mp4: a video is given as its frames"),
        ("none.mp4", "none.mp4: No such file"),
        ("empty", "empty: holds no images"),
        (["red.png", "gone.png"], "frame 2: gone.png: No such file"),
    ],
)
def test_a_video_that_is_no_list_of_frames_is_told(tmp_path: Path, cell: Any, told: str) -> None:
    """A file is not decoded; the message says how to have its frames."""
    files(tmp_path)
    (tmp_path / "clip.mp4").write_bytes(b"0000ftyp")
    (tmp_path / "empty").mkdir()
    source = lines(tmp_path, {"video": cell}, {"video": ["red.png"]})
    with pytest.raises(RequestError, match="row 0") as caught:
        datasets.load("textvqa", source=source, count="all")
    assert told in caught.value.problem
    left = datasets.load("textvqa", source=source, count="all", skip_bad=True)
    assert [seen(example.frames) for example in left.examples] == [["red"]]


# --- bad and missing ones -----------------------------------------------------------------------------------------


def test_a_bad_file_among_several_is_told_by_its_place(tmp_path: Path) -> None:
    """Of three images, the second is not there; with --skip-bad the sample is left out whole."""
    files(tmp_path)
    source = lines(tmp_path, {"images": ["red.png", "gone.png", "blue.png"]}, {"images": ["red.png"]})
    with pytest.raises(RequestError, match=r"row 0 \(id 0\): image 2: gone.png: No such file"):
        datasets.load("textvqa", source=source, count="all")
    loaded = datasets.load("textvqa", source=source, count="all", skip_bad=True)
    assert [example.id for example in loaded.examples] == ["1"]


def test_an_empty_place_in_a_list_is_a_bad_image(tmp_path: Path) -> None:
    """One of two is missing, which is told; where all are, the cell is an empty one."""
    files(tmp_path)
    source = lines(tmp_path, {"images": ["red.png", None]}, {"images": [None, ""]}, {"images": ["blue.png"]})
    loaded = datasets.load("textvqa", source=source, count="all", skip_bad=True)
    assert [example.id for example in loaded.examples] == ["2"]
    assert loaded.bad == {"0": "row 0 (id 0): image 2: is missing"}
    assert loaded.dropped == {"no image": 1}


def test_bytes_that_are_no_image_are_met_when_they_are_opened(tmp_path: Path) -> None:
    """The others of the row can be opened all the same."""
    import pyarrow
    from pyarrow import parquet

    row = texts(0) | {"images": [{"bytes": png("red"), "path": None}, {"bytes": b"no image", "path": None}]}
    parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "metadata.parquet")
    (example,) = datasets.load("textvqa", source=tmp_path, count="all").examples
    assert seen(example.pictures[:1]) == ["red"]
    with pytest.raises(UnreadableImageError):
        example.pictures[1]()


@pytest.mark.parametrize(("name", "kept"), [("textvqa", 0), ("scienceqa", 1), ("coco", 0)])
def test_a_row_whose_image_is_missing_is_kept_where_the_dataset_asks_without_one(
    tmp_path: Path, name: str, kept: int
) -> None:
    """ScienceQA has many such questions; a word to read or a caption needs something to look at."""
    row = {"question": "q?", "choices": ["a", "b"], "answer": 1 if name == "scienceqa" else "yes", "answers": ["yes"]}
    files(tmp_path)
    rows = [row | {"image": None}, row | {"image": "red.png"}, row | {"image": []}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    loaded = datasets.load(name, source=tmp_path, count="all")
    assert [len(example.pictures) for example in loaded.examples] == [0] * kept + [1, 0]
    assert loaded.dropped == ({} if kept else {"no image": 1})


def test_an_empty_list_of_frames_is_a_sample_without_any(tmp_path: Path) -> None:
    """Of a table of videos alone, a row may say that it has none; a cell that is empty is missing its own."""
    files(tmp_path)
    source = lines(tmp_path, {"video": []}, {"video": None}, {"video": ["red.png"]})
    loaded = datasets.load("textvqa", source=source, count="all")
    assert [seen(example.frames) for example in loaded.examples] == [[], ["red"]]
    assert loaded.dropped == {"no image": 1}


def test_a_path_that_looks_like_a_list_is_a_path(tmp_path: Path) -> None:
    """Brackets may stand in the name of a file."""
    (tmp_path / "[1] red.png").write_bytes(png("red"))
    (example,) = datasets.load("textvqa", source=lines(tmp_path, {"image": "[1] red.png"}), count="all").examples
    assert seen(example.pictures) == ["red"]


def test_a_table_without_images_or_video_says_so(tmp_path: Path) -> None:
    """The names that an image's column may have are listed."""
    with pytest.raises(RequestError, match="no column 'image' or 'images'"):
        datasets.load("textvqa", source=lines(tmp_path, {}), count="all")


def test_opening_one_row_after_the_other_reads_a_list_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row's images are opened one by one, and the file is not read again for each."""
    from layerprof.data.parquet import Cells

    parquet_of_bytes(tmp_path, "images", ROWS)
    (*_, example, _last) = datasets.load("textvqa", source=tmp_path, count="all").examples
    starts: list[int] = []
    real = Cells.forward

    def forward(self: Cells, group: int = 0) -> Any:
        starts.append(group)
        return real(self, group)

    monkeypatch.setattr(Cells, "forward", forward)
    assert seen(example.pictures) == ROWS[3]
    assert starts == [1]
