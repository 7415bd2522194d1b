"""Tables and saved datasets: texts come first and alone, and a picture is found again in whatever order it is asked."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from image_folders import png, text_row
from pyarrow import parquet

from layerprof.data import datasets, saved
from layerprof.data.pictures import UnreadableImageError, opened
from layerprof.data.spec import Example
from layerprof.errors import RequestError

ROWS = 11


def color(row: int) -> tuple[int, int, int]:
    """Return the colour that tells a row's picture."""
    return 20 * row, 100, 7


def seen(examples: Sequence[Example]) -> list[Any]:
    """Open pictures and return a pixel of each."""
    return [opened(picture).getpixel((1, 1)) for example in examples for picture in example.pictures]


def table(rows: int = ROWS, **cells: Any) -> pyarrow.Table:
    """Make rows with pictures inside; `r3=None` replaces the image of row 3."""
    listed: list[dict[str, Any]] = []
    for row in range(rows):
        made = text_row(row)
        del made["file_name"]
        listed.append(made | {"image": cells.get(f"r{row}", {"bytes": png(color(row)), "path": f"{row}.png"})})
    image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    columns = [("question", pyarrow.string()), ("answers", pyarrow.list_(pyarrow.string())), ("image", image)]
    return pyarrow.Table.from_pylist(listed, schema=pyarrow.schema(columns))


def write(folder: Path, whole: pyarrow.Table, **how: Any) -> Path:
    """Write two shards, in row groups of three."""
    how = {"row_group_size": 3} | how
    for shard, part in enumerate((whole.slice(0, 7), whole.slice(7))):
        parquet.write_table(part, folder / f"validation-{shard:05d}-of-00002.parquet", **how)
    return folder


def save(folder: Path, whole: pyarrow.Table) -> Path:
    """Write as `datasets.save_to_disk` does."""
    import datasets as hub

    hub.Dataset(whole).save_to_disk(folder / "saved")
    return folder / "saved"


WRITERS = pytest.mark.parametrize("write", [write, save])


@WRITERS
def test_pictures_are_found_in_any_order(tmp_path: Path, write: Any) -> None:
    """In order, again, backwards, and by jumps across row groups and files."""
    loaded = datasets.load("textvqa", source=write(tmp_path, table()), count="all")
    assert [example.question for example in loaded.examples] == [f"what is {row}?" for row in range(ROWS)]
    for order in (range(ROWS), range(3), range(ROWS - 1, -1, -1), (2, 10, 4, 4, 6, 7, 0, 9)):
        assert seen([loaded.examples[row] for row in order]) == [color(row) for row in order]


@WRITERS
@pytest.mark.parametrize("seed", [1, 9])
def test_a_drawn_order_keeps_question_and_picture_together(tmp_path: Path, write: Any, seed: int) -> None:
    """The draw is over all rows, the picture is the row's, and a second look gives it again."""
    source = write(tmp_path, table())
    loaded = datasets.load("textvqa", source=source, count=6, seed=seed)
    rows = [example.row for example in loaded.examples if example.row is not None]
    assert len(set(rows)) == 6
    assert rows != sorted(rows)
    assert [example.question for example in loaded.examples] == [f"what is {row}?" for row in rows]
    for _ in range(2):
        assert seen(loaded.examples) == [color(row) for row in rows]


def test_seeds_draw_as_the_libraries_do(tmp_path: Path) -> None:
    """A table's rows as `random.shuffle` has them, a saved dataset's as `Dataset.shuffle`."""
    import datasets as hub

    listed = list(range(ROWS))
    random.Random(4).shuffle(listed)
    loaded = datasets.load("textvqa", source=write(tmp_path, table()), count="all", seed=4)
    assert [example.row for example in loaded.examples] == listed
    path = save(tmp_path, table())
    shuffled = hub.load_from_disk(str(path)).shuffle(seed=4)["question"]
    loaded = datasets.load("textvqa", source=path, count="all", seed=4)
    assert [example.question for example in loaded.examples] == list(shuffled)


@WRITERS
def test_empty_cells_are_dropped_before(tmp_path: Path, write: Any) -> None:
    """Neither bytes nor path, or no cell at all, is no image; a path alone is one, told when it is met."""
    cells: dict[str, Any] = {"r1": None, "r4": {"bytes": None, "path": None}, "r8": {"bytes": None, "path": "gone.png"}}
    loaded = datasets.load("textvqa", source=write(tmp_path, table(**cells)), count="all")
    assert loaded.dropped == {"no image": 2}
    assert [example.row for example in loaded.examples] == [0, 2, 3, 5, 6, 7, 8, 9, 10]
    assert seen(loaded.examples[:6]) == [color(row) for row in (0, 2, 3, 5, 6, 7)]
    with pytest.raises(UnreadableImageError, match=r"gone\.png: No such file"):
        seen(loaded.examples[6:7])
    assert seen(loaded.examples[7:]) == [color(9), color(10)]


def test_empty_cells_are_found_without_statistics(tmp_path: Path) -> None:
    """A writer may leave them out; then the column is looked at, a few rows at a time."""
    source = write(tmp_path, table(r5=None), write_statistics=False)
    assert datasets.load("textvqa", source=source, count="all").dropped == {"no image": 1}


def test_texts_are_read_without_the_images_beside_them(tmp_path: Path) -> None:
    """Where the images' part of a file is destroyed, texts are as before, and each image is told when it is met."""
    source = write(tmp_path, table())
    file = source / "validation-00000-of-00002.parquet"
    found = parquet.read_metadata(file).row_group(1)
    (column,) = [
        found.column(index) for index in range(found.num_columns) if found.column(index).path_in_schema == "image.bytes"
    ]
    start = column.dictionary_page_offset or column.data_page_offset
    data = bytearray(file.read_bytes())
    data[start : start + column.total_compressed_size] = os.urandom(column.total_compressed_size)
    file.write_bytes(data)
    loaded = datasets.load("textvqa", source=source, count="all")
    assert [example.question for example in loaded.examples] == [f"what is {row}?" for row in range(ROWS)]
    for row in (3, 4, 5):
        with pytest.raises(UnreadableImageError, match="parquet file cannot be read"):
            seen(loaded.examples[row : row + 1])
    assert seen(loaded.examples[:3] + loaded.examples[6:]) == [color(row) for row in (0, 1, 2, 6, 7, 8, 9, 10)]


def test_a_file_of_one_large_row_group_is_not_held(tmp_path: Path) -> None:
    """64 images of 1 MB in one row group: what Arrow holds while they are read is a small part of that."""
    noise = [{"bytes": os.urandom(1 << 20), "path": None} for _ in range(64)]
    whole = table(64, **{f"r{row}": cell for row, cell in enumerate(noise)})
    parquet.write_table(whole, tmp_path / "t.parquet", row_group_size=64, write_batch_size=1)
    del whole, noise
    before, most = pyarrow.total_allocated_bytes(), 0
    for example in datasets.load("textvqa", source=tmp_path, count="all").examples:
        with pytest.raises(UnreadableImageError, match="1048576 bytes"):
            seen([example])
        most = max(most, pyarrow.total_allocated_bytes() - before)
    assert most < 30 << 20


def test_a_saved_datasets_files_are_mapped_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read through a mapping counts as memory of the process, so that it is closed from time to time."""
    loads = []
    real = saved._load

    def noted(*asked: Any) -> Any:
        loads.append(asked)
        return real(*asked)

    source = save(tmp_path, table())
    monkeypatch.setattr(saved, "_load", noted)
    monkeypatch.setattr(saved, "MAPPED", 2 * len(png(color(0))))
    loaded = datasets.load("textvqa", source=source, count="all")
    assert seen(loaded.examples) == [color(row) for row in range(ROWS)]
    assert len(loads) >= 1 + ROWS // 4


def test_a_picture_column_named_as_files_are_serves_as_id_too(tmp_path: Path) -> None:
    """In COCO's form the file's name is both."""
    (tmp_path / "a.png").write_bytes(png())
    parquet.write_table(
        pyarrow.table({"file_name": ["a.png", None], "caption": ["red", "none"]}), tmp_path / "t.parquet"
    )
    loaded = datasets.load("coco", source=tmp_path, count="all")
    assert [example.id for example in loaded.examples] == ["a.png"]
    assert (loaded.dropped, seen(loaded.examples)) == ({"no image": 1}, [(250, 10, 10)])


def test_a_missing_file_of_a_parquet_table_is_told_before(tmp_path: Path) -> None:
    """As of any other table."""
    parquet.write_table(pyarrow.table({"file_name": ["b.png"], "caption": ["red"]}), tmp_path / "t.parquet")
    with pytest.raises(RequestError, match=r"row 0 \(id b\.png\): b\.png: No such file"):
        datasets.load("coco", source=tmp_path, count=1)
