"""Runs over a folder of one's own: fewer samples than asked for, and pictures that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from image_folders import image_folder, png, text_row

import layerprof
from layerprof.errors import RunFailedError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six samples and a row without a picture."""
    place = tmp_path / "samples"
    place.mkdir()
    image_folder(place)
    (place / "5.png").write_bytes(png((9, 9, 9)))
    rows = [text_row(number) for number in range(6)] + [text_row(6, file_name=None)]
    (place / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return place


def profiled(folder: Path, **more: Any) -> layerprof.Run:
    """Profile the bundled model on the folder, as little as possible, without asking for a number of samples."""
    few: dict[str, Any] = {
        "image_size": 56,
        "max_new_tokens": 1,
        "trace": False,
        "energy": "off",
        "layers": "language[0]",
    }
    output = str(folder.parent / "run")
    return layerprof.profile(model="demo", device="cpu", source=str(folder), output=output, **few | more)


def test_six_samples_run_by_default(folder: Path) -> None:
    """All are taken, and the run says that there are fewer than were asked for, and why."""
    run = profiled(folder)
    assert run.samples == 6
    assert any("has 6, 1 dropped for no image: all of them are taken" in warning for warning in run.warnings)
    assert (run.dataset["asked"], run.dataset["dropped"], run.dataset["bad"]) == (32, {"no image": 1}, {})


def test_a_bad_picture_ends_the_run_with_what_was_finished(folder: Path) -> None:
    """It is told when it is met; the two batches before it are saved."""
    (folder / "4.png").write_bytes(png()[:30])
    with pytest.raises(RunFailedError, match=r"row 4 \(id 4\): 4\.png"):
        profiled(folder, batch_size=2)
    run = layerprof.load_run(folder.parent / "run")
    assert (run.status, run.samples) == ("failed", 4)
    assert "--skip-bad" in run.warnings[-1]


def test_bad_pictures_are_left_out_when_asked(folder: Path) -> None:
    """Named and counted, those that are not there and those that are broken; batches stay full."""
    (folder / "0.png").unlink()
    (folder / "2.png").write_bytes(png()[:30])
    run = profiled(folder, batch_size=2, skip_bad=True, samples="all")
    lines = (folder.parent / "run" / run.files["samples"]).read_text().splitlines()
    assert [(row["id"], row["batch"]) for row in map(json.loads, lines)] == [("1", 0), ("3", 0), ("4", 1), ("5", 1)]
    assert (run.status, run.samples, run.instrumented, run.dataset["ids"]) == ("done", 4, 4, ["1", "3", "4", "5"])
    assert list(run.dataset["bad"]) == ["0", "2"]
    (told,) = [warning for warning in run.warnings if "left out" in warning]
    assert told.startswith("2 samples were left out, whose pictures cannot be read: row 0 (id 0): 0.png: No such file")
