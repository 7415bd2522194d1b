"""The script for a machine with a GPU, tried without one: what it would run, and what it keeps."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE, STDOUT

import pytest
from processes import started

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "experiments" / "gpu.sh"

STUB = """#!/bin/sh
# Stands for Python: answers what gpu.sh asks before it begins, and does little for each command.
case "$*" in
*registry*) exit 0 ;;
*get_device_name*) echo fake-card ;;
*gpu_report*) exec {python} "$@" ;;
*gpu_probe*) echo "probed with TEARDOWN_CUPTI=${{TEARDOWN_CUPTI:-}}" ;;
*pytest*) echo "tests ran"; exit 1 ;;
*"--output "*batch16*) exec sleep 30 ;;
*"--output "*batch1*)
    for word in "$@"; do [ "$before" = --output ] && run=$word; before=$word; done
    mkdir -p "$run/trace" && echo trace >"$run/trace/batch0.json.gz" && echo "profiled"
    ;;
*) echo "did $*" ;;
esac
"""


def shell(*stages: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the script."""
    return subprocess.run(
        ["sh", SCRIPT, *stages], env=os.environ | environment, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[Path]:
    """Make an interpreter that stands for a machine with a GPU."""
    import sys

    file = tmp_path / "python"
    file.write_text(STUB.format(python=sys.executable))
    file.chmod(0o755)
    before = set((ROOT / "traces").iterdir())
    yield file
    for folder in set((ROOT / "traces").iterdir()) - before:
        subprocess.run(["rm", "-r", folder], check=True)


class TestDryRun:
    """What would run, and for how long."""

    def test_every_stage_has_its_commands_and_minutes(self) -> None:
        """In their order, most valuable first; the minutes add up to the last line; nothing runs."""
        done = shell("--dry-run", PYTHON="/nowhere/python")
        assert done.returncode == 0
        stages = re.findall(r"^== (\w+), about (\d+) min$", done.stdout, re.M)
        first = ["machine", "probe", "tests", "traces", "batch1", "batch16"]
        last = ["graph", "request", "formats", "towers", "compiled", "teardown", "peers", "sweep"]
        assert [name for name, _ in stages] == first + last
        assert f"== {sum(int(minutes) for _, minutes in stages)} min in all" in done.stdout
        for part in done.stdout.split("\n== ")[:-1]:
            assert re.search(r"^    \S", part, re.M), part

    def test_what_fits_a_quarter_of_an_hour_comes_first(self) -> None:
        """Trust, then the full-size model at both batch sizes: 12 minutes."""
        done = shell("--dry-run", "machine", "probe", "tests", "batch1", "batch16")
        assert "== 12 min in all" in done.stdout

    def test_no_command_stands_there_twice(self) -> None:
        """Nothing is measured twice: each full-size setting has one run, which gives spans, kernels and joules."""
        lines = [line for line in shell("--dry-run").stdout.splitlines() if line.startswith("    ")]
        assert len(lines) == len(set(lines))
        asked = [line for line in lines if "profile" in line and "qwen2.5-vl-3b" in line]
        full = [line for line in asked if "--instrumented" not in line]  # the other is of the whole request
        eager = [line for line in full if "--optimization" not in line]
        assert sorted(re.findall(r"--batch-size (\d+)", line)[0] for line in eager) == ["1", "16"]
        assert all("--energy replay" in line for line in eager)
        assert not any("--no-trace" in line for line in full)
        assert [line.count("--optimization graph") for line in full if line not in eager] == [1]
        tests = next(line for line in lines if "pytest" in line)
        assert "'not full_size and not repeats'" in tests
        assert "test_profile_gpu" not in tests

    def test_the_commands_are_ours(self) -> None:
        """Options and scripts that they name exist."""
        from layerprof.settings import Settings

        for line in shell("--dry-run").stdout.splitlines():
            for script in re.findall(r"experiments/[\w/]+\.(?:py|sh)|tests/gpu/\w+\.py", line):
                assert (ROOT / script).is_file(), script
            if " profile " in line:
                options = {name.removeprefix("no-").replace("-", "_") for name in re.findall(r"--([a-z][\w-]*)", line)}
                assert options <= set(Settings.model_fields), line

    def test_options_stand_anywhere(self) -> None:
        """Behind the stages too; --help says what there is."""
        assert shell("machine", "--dry-run").stdout == shell("--dry-run", "machine").stdout
        assert "OUT=FOLDER" in shell("--help").stdout

    def test_an_unknown_stage_is_refused(self) -> None:
        """Before anything runs, with those that there are."""
        done = shell("batch1", "batch2")
        assert done.returncode == 2
        assert "unknown stage batch2: choose from machine probe" in done.stderr


class TestResults:
    """Where results go, and what an interrupted run keeps."""

    def test_they_are_packed_into_few_files_as_each_stage_ends(self, stub: Path, tmp_path: Path) -> None:
        """A stage that fails stops none after it, and the exit status tells."""
        out = tmp_path / "out"
        done = shell("probe", "tests", "batch1", PYTHON=str(stub), OUT=str(out))
        assert done.returncode == 1
        assert "failed in: tests" in done.stdout
        assert {file.name for file in out.iterdir()} == {"results-probe.tgz", "traces-batch1.tgz"}
        with tarfile.open(out / "results-probe.tgz") as packed:
            names = {name.removeprefix("./") for name in packed.getnames()}
        assert {"probe.txt", "tests.txt", "batch1.txt", "README.md"} <= names
        assert not any("trace/" in name for name in names)
        with tarfile.open(out / "traces-batch1.tgz") as packed:
            assert packed.getnames() == ["batch1/trace/batch0.json.gz"]

    def test_the_probe_runs_with_and_without_teardown(self, stub: Path, tmp_path: Path) -> None:
        """Each in a process of its own, since CUPTI stays attached."""
        out = tmp_path / "out"
        shell("probe", "teardown", PYTHON=str(stub), OUT=str(out))
        with tarfile.open(out / "results-probe.tgz") as packed:
            told = {
                name: packed.extractfile(f"./{name}").read().decode().strip()  # type: ignore[union-attr]  # it is a file
                for name in ("probe.txt", "teardown.txt")
            }
        assert told == {
            "probe.txt": "probed with TEARDOWN_CUPTI=",
            "teardown.txt": "probed with TEARDOWN_CUPTI=1",
        }

    def test_an_interrupted_run_keeps_the_stages_that_ended(self, stub: Path, tmp_path: Path) -> None:
        """Killed in its second stage, as a job is that outruns its time: the first stage's results are there."""
        out = tmp_path / "out"
        environment = os.environ | {"PYTHON": str(stub), "OUT": str(out)}
        with started(["sh", SCRIPT, "probe", "batch16"], env=environment, stdout=PIPE, stderr=STDOUT):
            deadline = time.monotonic() + 30
            while not (out / "results-probe.tgz").exists() and time.monotonic() < deadline:
                time.sleep(0.05)
        with tarfile.open(out / "results-probe.tgz") as packed:
            assert "./probe.txt" in packed.getnames()

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_ends_what_runs_and_packs_what_there_is(self, stub: Path, tmp_path: Path, number: int) -> None:
        """Ctrl-C in a stage of half a minute: it is over at once, what it has is kept, and the folder is named."""
        out = tmp_path / "out"
        environment = os.environ | {"PYTHON": str(stub), "OUT": str(out)}
        with started(["sh", SCRIPT, "batch16"], env=environment, stdout=PIPE, stderr=STDOUT) as running:
            assert running.stdout is not None
            assert "== batch16" in running.stdout.readline()
            time.sleep(1)
            running.send_signal(number)
            told, _ = running.communicate(timeout=25)
            assert running.returncode == 130
        assert "interrupted in stage batch16" in told
        assert re.search(r"results so far in traces/gpu-\w+, packed into", told)
        assert (out / "results-batch16.tgz").exists()

    def test_a_device_that_is_not_there_is_one_sentence(self, tmp_path: Path) -> None:
        """No traceback of the driver's."""
        file = tmp_path / "python"
        file.write_text(
            '#!/bin/sh\ncase "$*" in *registry*) exit 0 ;; esac\necho "RuntimeError: no driver" >&2; exit 1\n'
        )
        file.chmod(0o755)
        done = shell("machine", PYTHON=str(file), OUT=str(tmp_path / "out"))
        assert done.returncode == 2
        assert done.stderr.startswith("The device cuda cannot be used: RuntimeError: no driver\n")

    def test_what_cannot_be_loaded_is_named(self, tmp_path: Path) -> None:
        """A wheel that is missing is not blamed on layerprof's installation."""
        file = tmp_path / "python"
        file.write_text("#!/bin/sh\necho \"ModuleNotFoundError: No module named 'orjson'\" >&2; exit 1\n")
        file.chmod(0o755)
        done = shell("machine", PYTHON=str(file), OUT=str(tmp_path / "out"))
        assert done.returncode == 2
        assert "cannot be loaded here: ModuleNotFoundError: No module named 'orjson'" in done.stderr
        assert "put its wheel on PYTHONPATH" in done.stderr
