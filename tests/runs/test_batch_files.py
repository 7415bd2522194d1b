"""Times of batches in a file: written as they were taken, read back the same, older files included."""

from __future__ import annotations

import csv
from pathlib import Path

from layerprof.readings import Generated, Made, Walked
from layerprof.runs import batch_files
from layerprof.runs.batch_files import BatchTime


def _walked(seconds: float, first: float | None, wall: float | None = None) -> Walked:
    return Walked(2, seconds, Generated(("", ""), ((), ()), (3, 4), (False, False), first, ()), wall)


WALK = [_walked(1.0, 0.25, 1.125), _walked(2.0, None)]
MADE = [Made(0.5, 0.25, 0.125, 1.0), Made(0.0, 0.5, 0.0, 0.5)]


def test_the_request_of_a_batch_is_kept_beside_its_answer(tmp_path: Path) -> None:
    """Parts of its making, all of it, and the wall time from its turn to its answer: 1 s + 1.125 s.

    Nothing was read for the second, which is 0; how long its answering took in all nobody looked at, which is None.
    """
    files = batch_files.write(tmp_path, WALK, WALK[:1], None, (), MADE)
    assert files == {"batches": "batches.csv"}
    assert batch_files.load_batches(tmp_path) == (
        BatchTime(0, 2, 1.0, 0.25, 7, read_s=0.5, process_s=0.25, copy_s=0.125, made_s=1.0, wall_s=2.125),
        BatchTime(1, 2, 2.0, None, 7, read_s=0.0, process_s=0.5, copy_s=0.0, made_s=0.5, wall_s=None),
    )
    with (tmp_path / "batches.csv").open() as file:
        assert [row["hooked_s"] for row in csv.DictReader(file)] == ["1.0", ""]


def test_batches_whose_making_nobody_timed_have_no_request(tmp_path: Path) -> None:
    """A walk that was not given how its batches were made says so by empty cells."""
    batch_files.write(tmp_path, WALK, (), None, ())
    assert batch_files.load_batches(tmp_path) == (BatchTime(0, 2, 1.0, 0.25, 7), BatchTime(1, 2, 2.0, None, 7))


def test_files_of_older_runs_are_read(tmp_path: Path) -> None:
    """They end at `hooked_s`, or before it."""
    (tmp_path / "batches.csv").write_text("batch,rows,latency_s,first_token_s,new_tokens\n0,2,1.0,,7\n")
    assert batch_files.load_batches(tmp_path) == (BatchTime(0, 2, 1.0, None, 7),)
