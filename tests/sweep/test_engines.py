"""Cells on a local Ray with several workers.

Every end is a result, a crash is tried once more, a dead driver loses nothing.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from paths import TESTS
from processes import gone, started

from layerprof.errors import RequestError
from layerprof.sweep import conduct
from layerprof.sweep.cells import Status
from layerprof.sweep.engines.choose import open_engine
from layerprof.sweep.folder import CELL_FILE, SweepFolder

RUNNER = "fake_cells:FakeRunner"
HERE = TESTS


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("raise KeyError('libamd_smi.so')", "which cannot be imported .KeyError: 'libamd_smi.so'."),
        ("import a_package_that_is_gone", "which cannot be imported .ModuleNotFoundError"),
    ],
)
def test_a_ray_that_cannot_be_imported_is_one_message(
    content: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray looks for accelerators while it is imported, where another package's library can fail in any way."""
    (tmp_path / "ray.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    with pytest.raises(RequestError, match=said) as caught, open_engine("ray", runner=RUNNER):
        pass
    assert caught.value.remedy


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Start a Ray of this process's own with three places to measure.

    Give its address and the file that cells write to.
    """
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install ray")
    log = tmp_path_factory.mktemp("ray") / "started.txt"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("LAYERPROF_FAKE_LOG", str(log))
        variables = {"PYTHONPATH": str(HERE), "LAYERPROF_FAKE_LOG": str(log)}
        try:
            ray.init(
                num_cpus=4,
                resources={"measure": 3},
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
                runtime_env={"env_vars": variables},
            )
        except Exception as error:  # Ray gives its own processes 15 seconds, which a busy machine may not have
            pytest.skip(f"Ray did not start: {error}")
        yield ray.get_runtime_context().gcs_address, log
        ray.shutdown()


@pytest.fixture
def log(cluster: tuple[str, Path]) -> Path:
    """Return the file in which cells note that they started, empty."""
    cluster[1].write_text("")
    return cluster[1]


def _experiment(folder: Path, layers: list[str]) -> Path:
    path = folder / "fake.toml"
    path.write_text('[base]\nmodel = "demo"\n[axes]\nlayers = [' + ", ".join(f'"{name}"' for name in layers) + "]\n")
    return path


def _started(log: Path) -> list[list[str]]:
    return [line.split() for line in log.read_text().splitlines()]


def test_every_end_is_a_result_and_only_crashes_are_tried_again(tmp_path: Path, log: Path) -> None:
    """Each cell has a process of its own; lack of memory, errors and timeouts happen once, a crash twice."""
    path = _experiment(tmp_path, ["ok", "oom", "error", "refuse", "kill", "hang"])
    done = conduct.sweep(path, output=tmp_path / "sweep", runner=RUNNER, engine="ray", timeout_s=8)
    ends = {cell.choices["layers"]: done.outcomes[cell.key] for cell in done.record.cells}
    assert {name: (outcome.status, outcome.attempts) for name, outcome in ends.items()} == {
        "ok": (Status.DONE, 1),
        "oom": (Status.OUT_OF_MEMORY, 1),
        "error": (Status.FAILED, 1),
        "refuse": (Status.SKIPPED, 1),
        "kill": (Status.CRASHED, 2),
        "hang": (Status.TIMED_OUT, 1),
    }
    pids = [entry[0] for entry in _started(log)]
    assert len(pids) == len(set(pids)) == 7
    assert SweepFolder(done.folder).run(ends["ok"].key) is not None
    hung = next(int(entry[0]) for entry in _started(log) if entry[2] == "hang")
    assert _gone(hung)


def test_a_worker_that_is_killed_in_the_middle_of_a_cell_is_replaced(tmp_path: Path, log: Path) -> None:
    """A cell whose process dies the first time is done at the second."""
    done = conduct.sweep(
        _experiment(tmp_path, [f"flaky:{tmp_path / 'mark'}"]), output=tmp_path / "sweep", runner=RUNNER, engine="ray"
    )
    (outcome,) = done.outcomes.values()
    assert (outcome.status, outcome.attempts) == (Status.DONE, 2)


def test_a_killed_driver_goes_on_where_it_was(tmp_path: Path, cluster: tuple[str, Path], log: Path) -> None:
    """Kill -9 of the sweep ends its cells on the cluster; resumed, it repeats none that was finished."""
    path = _experiment(tmp_path, ["slow", "hang", "ok"])
    code = (
        "from layerprof.sweep import conduct as sweep\n"
        f"sweep.sweep({str(path)!r}, output={str(tmp_path / 's')!r}, runner={RUNNER!r}, engine='ray', "
        f"address={cluster[0]!r})"
    )
    with started([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(HERE)}) as driver:
        deadline = time.monotonic() + 90
        while len(list((tmp_path / "s").glob(f"cells/*/{CELL_FILE}"))) < 2:
            assert driver.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    finished = {file.parent.name for file in (tmp_path / "s").glob(f"cells/*/{CELL_FILE}")}
    hung = next(int(entry[0]) for entry in _started(log) if entry[2] == "hang")
    assert _gone(hung)
    before = Counter(entry[1] for entry in _started(log))
    done = conduct.sweep(path, output=tmp_path / "s", runner=RUNNER, engine="ray", resume=True, timeout_s=3)
    again = Counter(entry[1] for entry in _started(log)) - before
    assert not finished & set(again)
    assert sorted(outcome.status.value for outcome in done.outcomes.values()) == ["done", "done", "timed out"]


def test_what_no_node_has_is_refused_before_it_waits_for_ever(tmp_path: Path, log: Path) -> None:
    """A cell that needs a GPU on a cluster without one is a result with the reason; nothing is submitted for it."""
    path = tmp_path / "fake.toml"
    path.write_text('[base]\nlayers = "ok"\n[axes]\ndevice = ["cuda", "cpu"]\n')
    done = conduct.sweep(path, output=tmp_path / "sweep", runner=RUNNER, engine="ray")
    ends = {cell.choices["device"]: done.outcomes[cell.key] for cell in done.record.cells}
    assert ends["cpu"].status is Status.DONE
    assert ends["cuda"].status is Status.SKIPPED
    assert "no node of the cluster has" in (ends["cuda"].reason or "")
    assert len(_started(log)) == 1


def test_ray_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package, the engine says how to get it."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RequestError) as caught:
        open_engine("ray", runner=RUNNER)
    assert "pip install ray" in caught.value.remedy


def test_an_unknown_engine_is_refused_with_the_nearest() -> None:
    """A misspelt engine is answered with what there is."""
    with pytest.raises(RequestError) as caught:
        open_engine("rya", runner=RUNNER)
    assert "Did you mean 'ray'?" in caught.value.remedy


def _gone(pid: int, seconds: float = 20) -> bool:
    """Tell whether a process ends in time."""
    deadline = time.monotonic() + seconds
    while not gone(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    return gone(pid)
