"""Sweeps on fake cells: every end is a result, nothing finished is lost or repeated.

And a folder has one sweep at a time.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from paths import TESTS
from processes import end_all_with, gone, started

from layerprof.errors import RequestError, RunFailedError
from layerprof.records import Run
from layerprof.report.sweep.progress import Lines
from layerprof.sweep import conduct
from layerprof.sweep.audience import Show
from layerprof.sweep.cells import Outcome, Status
from layerprof.sweep.engines.engine import Job
from layerprof.sweep.folder import CELL_FILE, SweepFolder

RUNNER = "fake_cells:FakeRunner"


def _experiment(folder: Path, layers: list[str], base: str = 'model = "demo"', more: str = "") -> Path:
    path = folder / "fake.toml"
    listed = ", ".join(f'"{name}"' for name in layers)
    path.write_text(f"{more}\n[base]\n{base}\n[axes]\nlayers = [{listed}]\n")
    return path


def _driver(path: Path, output: Path, resume: bool = False, **more: Any) -> AbstractContextManager[Any]:
    """Start a sweep in a process of its own, which ends with the block."""
    call = f"sweep.sweep({str(path)!r}, output={str(output)!r}, runner={RUNNER!r}, resume={resume})"
    code = f"from layerprof.sweep import conduct as sweep; {call}"
    return started([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(TESTS)}, **more)


def _started(log: Path) -> list[list[str]]:
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield the file in which fake cells note that they started; no worker that knows it outlives the test."""
    path = tmp_path / "started.txt"
    monkeypatch.setenv("LAYERPROF_FAKE_LOG", str(path))
    yield path
    end_all_with("LAYERPROF_FAKE_LOG", str(path))


def test_every_end_is_a_result_with_its_reason(tmp_path: Path, log: Path) -> None:
    """Out of memory, errors, crashes, kills and timeouts are cell results, and the sweep goes on after each."""
    path = _experiment(tmp_path, ["ok", "oom", "error", "refuse", "crash", "kill", "hang", "noisy"])
    done = conduct.sweep(path, output=tmp_path / "sweep", runner=RUNNER, timeout_s=6)
    ends = {cell.choices["layers"]: done.outcomes[cell.key] for cell in done.record.cells}
    assert {name: outcome.status for name, outcome in ends.items()} == {
        "ok": Status.DONE,
        "oom": Status.OUT_OF_MEMORY,
        "error": Status.FAILED,
        "refuse": Status.SKIPPED,
        "crash": Status.CRASHED,
        "kill": Status.CRASHED,
        "hang": Status.TIMED_OUT,
        "noisy": Status.DONE,
    }
    words = {"oom": "2 GiB", "error": "ValueError: the tensor has no end", "refuse": "would cut the options"}
    words |= {"crash": "exit code 7", "kill": "SIGKILL", "hang": "6 s"}
    for name, word in words.items():
        assert word in (ends[name].reason or "")
    assert "about to go" in (ends["kill"].reason or "")
    assert {outcome.status for outcome in done.failed} == set(Status) - {Status.DONE, Status.SKIPPED}
    run = SweepFolder(done.folder).run(ends["ok"].key)
    assert run is not None
    assert run.samples == 4


def test_cells_share_a_process_until_one_dies(tmp_path: Path, log: Path) -> None:
    """One worker carries out consecutive cells, so that a model is loaded once; only a death brings a new one."""
    path = _experiment(tmp_path, ["ok", "error", "refuse", "kill", "noisy", "all"])
    conduct.sweep(path, output=tmp_path / "sweep", runner=RUNNER)
    pids = [entry[0] for entry in _started(log)]
    assert len(pids) == 6
    assert len(set(pids[:4])) == 1
    assert len(set(pids[4:])) == 1
    assert pids[0] != pids[4]


def test_a_cell_that_leaves_its_mark_on_the_process_is_the_last_there(tmp_path: Path, log: Path) -> None:
    """A trace of a GPU slows what comes after it in the process: the next cell gets a new one."""
    path = _experiment(tmp_path, ["ok", "traced", "noisy", "all"])
    done = conduct.sweep(path, output=tmp_path / "sweep", runner=RUNNER)
    pids = [entry[0] for entry in _started(log)]
    assert pids[0] == pids[1] != pids[2] == pids[3]
    assert {outcome.status for outcome in done.outcomes.values()} == {Status.DONE}


def test_resume_repeats_nothing_and_retry_only_what_failed(tmp_path: Path, log: Path) -> None:
    """A second go on a finished sweep starts no cell; with retry it starts those that did not get to their end."""
    path = _experiment(tmp_path, ["ok", "error", "refuse"])
    conduct.sweep(path, output=tmp_path / "sweep", runner=RUNNER)
    assert len(_started(log)) == 3
    again = conduct.sweep(path, output=tmp_path / "sweep", runner=RUNNER, resume=True)
    assert len(_started(log)) == 3
    assert len(again.outcomes) == 3
    conduct.sweep(path, output=tmp_path / "sweep", runner=RUNNER, resume=True, retry=True)
    assert [entry[2] for entry in _started(log)][3:] == ["error"]


def test_resume_after_the_experiment_grew_measures_what_is_new(tmp_path: Path, log: Path) -> None:
    """Cells are known by their content, so an edited experiment keeps the cells that it still has."""
    conduct.sweep(_experiment(tmp_path, ["ok", "all"]), output=tmp_path / "sweep", runner=RUNNER)
    path = _experiment(tmp_path, ["all", "vision", "ok"])
    done = conduct.sweep(path, output=tmp_path / "sweep", runner=RUNNER, resume=True)
    assert [entry[2] for entry in _started(log)] == ["ok", "all", "vision"]
    assert [cell.choices["layers"] for cell in done.record.cells] == ["all", "vision", "ok"]


@pytest.mark.parametrize("kills", [(0.3, 0.7, 1.1), (0.5, 0.9)])
def test_a_driver_killed_at_any_point_loses_and_repeats_no_finished_cell(
    tmp_path: Path, log: Path, kills: tuple[float, ...]
) -> None:
    """Kill -9 of the sweep while it plans or measures, several times.

    Then resume: each finished cell ran to its end once.
    """
    path = _experiment(tmp_path, ["slow", "ok", "all"], more="repeats = 2")
    finished: set[str] = set()
    for number, seconds in enumerate(kills):
        with _driver(path, tmp_path / "sweep", resume=number > 0) as driver:
            time.sleep(seconds)
            driver.send_signal(signal.SIGKILL)
            driver.wait()
        now = {file.parent.name for file in (tmp_path / "sweep").glob(f"cells/*/{CELL_FILE}")}
        assert finished <= now
        finished = now
    resumed = (tmp_path / "sweep").exists() and any((tmp_path / "sweep").iterdir())
    started_before = Counter(entry[1] for entry in _started(log))
    done = conduct.sweep(path, output=tmp_path / "sweep", runner=RUNNER, resume=resumed)
    after = Counter(entry[1] for entry in _started(log)) - started_before
    assert not finished & set(after)
    assert len(done.outcomes) == 6
    assert all(outcome.status is Status.DONE for outcome in done.outcomes.values())
    assert all((SweepFolder(done.folder).run(key)) is not None for key in done.outcomes)


def test_a_worker_does_not_outlive_its_driver(tmp_path: Path, log: Path) -> None:
    """When the sweep is killed, its worker ends at once, also in the middle of a cell."""
    with _driver(_experiment(tmp_path, ["hang"]), tmp_path / "s") as driver:
        pid = int(_wait_for(log)[0][0])
        assert not gone(pid)
        driver.kill()
        driver.wait()
        deadline = time.monotonic() + 20
        while not gone(pid):
            assert time.monotonic() < deadline, "the worker is still there"
            time.sleep(0.1)


def test_a_second_sweep_on_the_folder_is_refused_while_the_first_runs(tmp_path: Path, log: Path) -> None:
    """The lock names its holder; a holder that was killed blocks nobody."""
    path = _experiment(tmp_path, ["hang"])
    with _driver(path, tmp_path / "s") as driver:
        _wait_for(log)
        for resume in (True, False):
            with pytest.raises(RequestError, match=f"A sweep is running.*{driver.pid}"):
                conduct.sweep(path, output=tmp_path / "s", runner=RUNNER, resume=resume)
    done = conduct.sweep(path, output=tmp_path / "s", runner=RUNNER, resume=True, timeout_s=1)
    assert [outcome.status for outcome in done.outcomes.values()] == [Status.TIMED_OUT]


def test_an_interrupt_keeps_what_is_finished(tmp_path: Path, log: Path) -> None:
    """Ctrl-C ends the sweep and its worker; finished cells stay."""
    path = _experiment(tmp_path, ["ok", "hang"])
    with _driver(path, tmp_path / "s", stderr=subprocess.PIPE) as driver:
        worker = int(_wait_for(log, 2)[-1][0])
        driver.send_signal(signal.SIGINT)
        _, said = driver.communicate(timeout=20)
        assert gone(worker)
    assert "KeyboardInterrupt" in said
    outcomes = [SweepFolder(tmp_path / "s").outcome(cell.key) for cell in SweepFolder(tmp_path / "s").record().cells]
    assert [outcome.status for outcome in outcomes if outcome] == [Status.DONE]


class Stops(Show):
    """Presses Ctrl-C when the first cell has ended, and keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        """Keep it."""
        self.notes.append(text)

    def ended(self, job: Job, outcome: Outcome, run: Run | None) -> None:
        """Interrupt."""
        raise KeyboardInterrupt


def test_an_interrupt_says_how_to_go_on(tmp_path: Path, log: Path) -> None:
    """The last line counts what is kept and is the command that measures the rest."""
    path, show = _experiment(tmp_path, ["ok", "all"]), Stops()
    with pytest.raises(KeyboardInterrupt):
        conduct.sweep(path, output=tmp_path / "a sweep", runner=RUNNER, show=show)
    assert "1 of 2 cells are finished" in show.notes[-1]
    assert f"layerprof sweep {path} --resume --output '{tmp_path / 'a sweep'}'" in show.notes[-1]


def test_an_interrupt_before_there_is_a_plan_leaves_nothing(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while cells are identified takes the new folder away again."""

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(conduct, "plan", stop)
    with pytest.raises(KeyboardInterrupt):
        conduct.sweep(_experiment(tmp_path, ["ok"]), output=tmp_path / "s", runner=RUNNER)
    assert not (tmp_path / "s").exists()


def test_dry_run_tells_what_is_there_and_writes_nothing(tmp_path: Path, log: Path) -> None:
    """The plan names each cell and whether it is cached; no cell starts and no folder appears."""
    path = _experiment(tmp_path, ["ok", "all"])
    steps = conduct.dry_run(path, output=tmp_path / "sweep", runner=RUNNER)
    assert [step.cached for step in steps] == [False, False]
    assert not (tmp_path / "sweep").exists()
    conduct.sweep(path, output=tmp_path / "sweep", runner=RUNNER, only={"layers": ("ok",)})
    assert [step.cached for step in conduct.dry_run(path, output=tmp_path / "sweep", runner=RUNNER)] == [True, False]
    assert len(_started(log)) == 1


def test_cells_that_resolve_to_the_same_run_run_once(tmp_path: Path, log: Path) -> None:
    """`auto` and what it stands for are one cell, which stands at both points of its table."""
    path = tmp_path / "fake.toml"
    path.write_text('[base]\nlayers = "ok"\n[[cells]]\nimage_size = 224\n[[cells]]\nimage_size = 224\ndevice = "cpu"\n')
    done = conduct.sweep(path, output=tmp_path / "sweep", runner=RUNNER)
    assert len(_started(log)) == 1
    (cell,) = done.record.cells
    assert cell.points == {"fake": ({"image_size": 224}, {"image_size": 224, "device": "cpu"})}


def test_a_cell_that_cannot_be_identified_is_a_result_and_is_looked_at_again(tmp_path: Path, log: Path) -> None:
    """A cell that this machine cannot do is skipped with the reason; it is not held against it the next time."""
    path = tmp_path / "fake.toml"
    path.write_text('[base]\nlayers = "ok"\n[axes]\nmodel = ["demo", "none"]\n')
    done = conduct.sweep(path, output=tmp_path / "sweep", runner=RUNNER)
    ends = {cell.choices["model"]: done.outcomes[cell.key] for cell in done.record.cells}
    assert ends["none"].status is Status.SKIPPED
    assert "no model 'none'" in (ends["none"].reason or "")
    steps = conduct.dry_run(path, output=tmp_path / "sweep", runner=RUNNER)
    assert sorted(step.cached for step in steps) == [False, True]


def test_a_mistake_that_is_in_every_cell_is_a_wrong_request(tmp_path: Path, log: Path) -> None:
    """When all cells are refused for one reason, the sweep is refused with its remedy and leaves no folder behind."""
    path = _experiment(tmp_path, ["ok", "all"], base='model = "none"')
    with pytest.raises(RequestError, match="no model 'none'") as caught:
        conduct.sweep(path, output=tmp_path / "sweep", runner=RUNNER)
    assert caught.value.remedy == "Give another."
    assert not (tmp_path / "sweep").exists()


def test_a_worker_that_dies_while_planning_ends_the_sweep(tmp_path: Path, log: Path) -> None:
    """Without knowing what the cells are there is no sweep; the error says how the process ended."""
    with pytest.raises(RunFailedError, match="SIGKILL"):
        conduct.sweep(_experiment(tmp_path, ["ok"], base='model = "dies"'), output=tmp_path / "sweep", runner=RUNNER)


def test_folders_are_not_mixed(tmp_path: Path, log: Path) -> None:
    """A folder with a sweep asks for --resume, a folder with other things for another place.

    Resuming nothing is told.
    """
    path = _experiment(tmp_path, ["ok"])
    conduct.sweep(path, output=tmp_path / "sweep", runner=RUNNER)
    with pytest.raises(RequestError) as caught:
        conduct.sweep(path, output=tmp_path / "sweep", runner=RUNNER)
    assert "--resume" in caught.value.remedy
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(RequestError, match="not empty"):
        conduct.sweep(path, output=tmp_path / "mine", runner=RUNNER, resume=True)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"


def test_resume_without_a_folder_finds_the_newest_sweep_of_that_name(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--resume` alone goes on where the last sweep of this experiment lies, below traces/."""
    monkeypatch.chdir(tmp_path)
    path = _experiment(tmp_path, ["ok"])
    with pytest.raises(RequestError, match="no sweep of 'fake'"):
        conduct.sweep(path, runner=RUNNER, resume=True)
    first = conduct.sweep(path, runner=RUNNER)
    assert first.folder.parent == Path("traces")
    assert conduct.sweep(path, runner=RUNNER, resume=True).folder == first.folder
    assert len(_started(log)) == 1


def test_each_cell_that_ends_is_a_line_with_its_guards_and_the_time_left(tmp_path: Path, log: Path) -> None:
    """Progress is one line a cell: position, what it is, figures, guards, and what the rest will take."""
    lines: list[str] = []
    conduct.sweep(
        _experiment(tmp_path, ["ok", "error"]), output=tmp_path / "s", runner=RUNNER, show=Lines(lines.append)
    )
    assert lines[0].startswith("[1/2] layers=ok: WER 0.250, 125 ms a batch")
    assert "guards ok (same alone 100 %" in lines[0]
    assert lines[0].endswith("left")
    assert lines[1].startswith("[2/2] layers=error: failed: ValueError")


def _wait_for(log: Path, entries: int = 1) -> list[list[str]]:
    for _ in range(300):
        if len(found := _started(log)) >= entries:
            return found
        time.sleep(0.05)
    raise AssertionError("no cell started")
