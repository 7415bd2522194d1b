"""Tables of text alone, for models that read text alone: no column of images is needed, and none is opened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig

import layerprof
from layerprof.data import datasets
from layerprof.errors import RequestError
from layerprof.report import fed

ROWS = [
    {"question": f"which one is {number}?", "choices": ["zero", "one", "two"], "answer": number} for number in range(3)
]


def table(folder: Path, **more: Any) -> Path:
    """Write a table of multiple-choice questions."""
    folder.mkdir()
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(row | more) for row in ROWS))
    return folder


def test_a_table_without_images_is_taken_where_none_are_asked_for(tmp_path: Path) -> None:
    """All rows, none dropped for having no image."""
    found = datasets.load("scienceqa", source=table(tmp_path / "t"), count="all", pictured=False)
    assert [example.question for example in found.examples] == [row["question"] for row in ROWS]
    assert found.dropped == {}


def test_a_model_that_reads_images_needs_their_column(tmp_path: Path) -> None:
    """The same table is refused for it, with the columns that are due."""
    with pytest.raises(RequestError, match="has no column 'image'") as caught:
        datasets.load("scienceqa", source=table(tmp_path / "t"), count="all")
    assert "an empty list, []" in caught.value.remedy


def test_an_empty_list_is_a_sample_without_an_image(tmp_path: Path) -> None:
    """What the refusal advises is taken."""
    found = datasets.load("scienceqa", source=table(tmp_path / "t", images=[]), count="all")
    assert [example.pictures for example in found.examples] == [(), (), ()]


def test_a_table_that_lacks_another_column_is_told_nothing_of_images(tmp_path: Path) -> None:
    """The hint stands where the images are what is missing."""
    folder = tmp_path / "t"
    folder.mkdir()
    (folder / "metadata.jsonl").write_text(json.dumps({"images": [], "question": "which?"}))
    with pytest.raises(RequestError, match="has no column") as caught:
        datasets.load("scienceqa", source=folder, count="all")
    assert "empty list" not in caught.value.remedy


def test_images_that_are_not_there_are_no_trouble_where_nobody_looks(tmp_path: Path) -> None:
    """A table may have a column of images whose files stayed behind."""
    folder = table(tmp_path / "t", image="gone.png")
    with pytest.raises(RequestError, match="cannot be read"):
        datasets.load("scienceqa", source=folder, count="all")
    found = datasets.load("scienceqa", source=folder, count="all", pictured=False)
    assert [example.pictures for example in found.examples] == [(), (), ()]


def test_a_text_model_is_profiled_on_a_text_table(tmp_path: Path) -> None:
    """The run answers all rows, has no vision tower, and its header says that there were no images."""
    shape: Any = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    LlamaConfig(vocab_size=600, **shape).save_pretrained(tmp_path / "model")
    run = layerprof.profile(
        model=str(tmp_path / "model"),
        weights="random",
        dataset="scienceqa",
        source=str(table(tmp_path / "t")),
        samples="all",
        max_new_tokens=2,
        trace=False,
        energy="off",
        output=str(tmp_path / "run"),
    )
    assert run.samples == 3
    assert {row.tower for row in run.layers} == {"language"}
    assert fed.told(run) == "text only, no images"
    assert run.ledger.flops.residual == 0
