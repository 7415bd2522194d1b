"""The scripts for a machine with a GPU, tried without one: what they would run, what they keep, and how they judge."""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE, STDOUT
from typing import Any

import pytest
from processes import started
from sample_run import sample_run

from layerprof.records import EnergyClosure, NotRecorded, Phase, Quality, Run, Sample
from layerprof.runs import store

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
        first, last = ["machine", "probe", "tests", "batch1", "batch16"], ["compiled", "teardown", "peers", "sweep"]
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
        full = [line for line in lines if "profile" in line and "qwen2.5-vl-3b" in line]
        assert sorted(re.findall(r"--batch-size (\d+)", line)[0] for line in full) == ["1", "16"]
        assert all("--energy replay" in line and "--no-trace" not in line for line in full)
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
                options = {name.replace("-", "_") for name in re.findall(r"--([a-z][\w-]*)", line)}
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


# --- how results are judged ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report() -> Any:
    """Import the script."""
    spec = importlib.util.spec_from_file_location("gpu_report", ROOT / "experiments" / "gpu_report.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["gpu_report"] = module
    spec.loader.exec_module(module)
    return module


def run_with(**changes: Any) -> Run:
    """Return the sample run as a GPU's, with these totals, ledger columns, passes or settings changed."""
    run = sample_run()
    totals = run.totals.model_copy(update=changes.pop("totals", {}))
    ledger = run.ledger.model_copy(update=changes.pop("ledger", {}))
    return sample_run(**({"totals": totals, "ledger": ledger, "passes": {"spans_dropped": 0}} | changes))


def judged(
    report: Any, folder: Path, run: Run, name: str = "batch1", **files: Any
) -> dict[str, tuple[str, bool | None]]:
    """Return what is measured and whether it holds, by figure."""
    store.save(run, folder / name)
    for file, content in files.items():
        (folder / name / f"{file}.json").write_text(json.dumps(content))
    return {check.what: (check.measured, check.holds) for check in report.checks(folder)}


class TestChecks:
    """Each figure against what it had to be, on runs whose figures were chosen by hand."""

    def test_spans(self, report: Any, tmp_path: Path) -> None:
        """Residual 0.1 of 250 ms, no call dropped, +0.8 % for measuring."""
        found = judged(report, tmp_path, run_with())
        assert found["span residual"] == ("<0.1 %", True)
        assert found["calls without a span"] == ("0", True)
        assert found["cost of measuring"] == ("+0.8 % [+0.3, +1.4]", True)

    def test_spans_that_fall_short(self, report: Any, tmp_path: Path) -> None:
        """5 of 250 ms are nowhere, three calls were dropped, hooks cost 2.1 %."""
        span = sample_run().ledger.span_s.model_copy(update={"residual": 0.005})
        run = run_with(
            ledger={"span_s": span},
            totals={"overhead_ratio": 1.021, "overhead_ci95": (1.02, 1.03)},
            passes={"spans_dropped": 3},
        )
        found = judged(report, tmp_path, run)
        assert found["span residual"] == ("2.0 %", False)
        assert found["calls without a span"] == ("3", False)
        assert found["cost of measuring"][1] is False

    def test_a_cost_without_an_interval_is_not_known(self, report: Any, tmp_path: Path) -> None:
        """Neither held nor missed."""
        found = judged(report, tmp_path, run_with(totals={"overhead_ci95": None}))
        assert found["cost of measuring"][1] is None
        wide = run_with(totals={"overhead_ratio": 0.94, "overhead_ci95": (0.76, 1.06)})
        told, holds = judged(report, tmp_path / "wide", wide)["cost of measuring"]
        assert "[-24.0, +6.0]" in told
        assert holds is None, "what the run does not print as a figure proves nothing"

    def test_kernels(self, report: Any, tmp_path: Path) -> None:
        """All recorded, all with a launch; one block is busier than its span."""
        found = judged(report, tmp_path, run_with())
        assert found["launched, not recorded"] == ("0", True)
        assert found["no launch seen"] == ("0 %", True)
        assert found["busy / span"] == ("0.17 to 0.80 in 8 of 8 rows", True)
        rows = tuple(row.model_copy(update={"busy_share": 1.2}) for row in sample_run().layers)
        assert judged(report, tmp_path / "b", run_with(layers=rows))["busy / span"][1] is False

    def test_kernels_that_are_missing(self, report: Any, tmp_path: Path) -> None:
        """Seven launches lost; 1 of 64.15 ms without a launch; blocks without a figure."""
        busy = sample_run().ledger.busy_s
        rest = busy.rest | {"no launch seen": 0.001}
        lost = NotRecorded(launches=7, of=100, may_be=None)
        rows = tuple(row.model_copy(update={"busy_share": None}) for row in sample_run().layers[:3])
        run = run_with(ledger={"busy_s": busy.model_copy(update={"rest": rest, "not_recorded": lost})}, layers=rows)
        found = judged(report, tmp_path, run)
        assert found["launched, not recorded"] == ("7", False)
        assert found["no launch seen"] == ("1.6 %", False)
        assert found["busy / span"][1] is None

    def test_decode_of_the_full_size_model_by_its_closed_form(self, report: Any, tmp_path: Path) -> None:
        """One row of 100 positions (90 and padding), 3 tokens: 2 x 154,140,672 + 8,192 x (101 + 102) a layer."""
        due = 2 * 154_140_672 + 8_192 * (101 + 102)
        sample = Sample(
            id="a",
            batch=0,
            prompt="?",
            references=(),
            answer="",
            answer_tokens=(),
            truncated=False,
            prompt_tokens=90,
            image_tokens=64,
            pad_tokens=10,
        )
        for flops, holds in ((due, True), (due + 1, False)):
            folder = tmp_path / str(flops)
            rows = tuple(
                row.model_copy(update={"flops": flops}) if row.phase is Phase.DECODE else row
                for row in sample_run().layers
            )
            run = run_with(layers=rows, model={"parameters": 3_754_622_976}, settings={"max_new_tokens": 3})
            store.save(run, folder / "batch1", [sample])
            found = {check.what: check for check in report.checks(folder)}
            assert found["FLOPs of a decoder layer in decode"].holds is holds
            assert found["FLOPs of a decoder layer in decode"].due == f"{due:,}"

    def test_energy(self, report: Any, tmp_path: Path) -> None:
        """1 of 20 J left over, two rounds, a replayed decoder call of 3.03 ms where the model's takes 3.0."""
        closure = EnergyClosure(
            quality=Quality.REPLAYED,
            source="nvml_counter",
            total_j=20.0,
            total_ci95=(19.5, 20.5),
            parts_j=17.0,
            gap_j=2.0,
            residual_j=1.0,
            residual_ci95=(0.4, 1.6),
            tolerance=0.05,
            passed=True,
            rule="",
            rows=16,
            missing=(("norm", Phase.DECODE),),
        )
        rows = [{"name": "model.language_model.layers.0", "phase": "decode", "seconds": 0.00303}]
        replay = {"replay": {"rounds": 2, "gap_w": {"watts": 120.0}, "rows": rows}}
        found = judged(report, tmp_path, run_with(energy_closure=closure), energy=replay)
        assert found["energy residual"] == ("+5.0 % [+2.0, +8.0]", True)
        assert found["rows without joules"] == ("1", False)
        assert found["rounds of replay"] == ("2", True)
        assert found["replayed / in the model, decoder_layer in decode"] == ("1.010", True)

    def test_the_probe(self, report: Any, tmp_path: Path) -> None:
        """Ours lost nothing; torch's own 1, 2, 3; work takes 4 % longer after a session."""

        def session(ours: bool, lost: int) -> dict[str, Any]:
            return {"ours": ours, "launches": 40, "lost": lost, "orphans": 0}

        sessions = [session(False, 1), session(False, 2), session(False, 3), session(True, 0), session(True, 0)]
        probe = {"probe": {"sessions": sessions, "slowdown": 0.04, "noise": 0.01}}
        (tmp_path / "probe.json").write_text(json.dumps(probe))
        found = {check.what: (check.measured, check.holds) for check in report.checks(tmp_path)}
        assert found["lost, as layerprof records"] == ("0, 0", True)
        assert found["lost, as torch records"] == ("1, 2, 3", True)
        assert found["work after a session"] == ("+4.0 % (noise 1.0 %)", True)

    def test_the_page_sets_each_figure_beside_what_it_had_to_be(self, report: Any, tmp_path: Path) -> None:
        """The device, a line a figure, what falls short, and what was not measured."""
        store.save(run_with(totals={"overhead_ratio": 1.05, "overhead_ci95": (1.04, 1.06)}), tmp_path / "batch1")
        text = report.page(tmp_path)
        assert text.startswith("# What Imaginary GPU had to prove")
        assert "| batch1 | cost of measuring | +5.0 % \\[+4.0, +6.0\\] | ≤ 2 % | NO |" in text
        assert "- batch1: cost of measuring is +5.0 % [+4.0, +6.0], due ≤ 2 %" in text
        assert "- batch1: energy residual (–)" in text.partition("Not measured:")[2]

    def test_a_file_that_was_cut_off_costs_its_own_figures_only(self, report: Any, tmp_path: Path) -> None:
        """A stage that was killed while writing leaves half of one."""
        store.save(run_with(), tmp_path / "batch1")
        (tmp_path / "probe.json").write_text('{"probe": {"sess')
        (tmp_path / "doctor.json").write_text("[1]")
        (tmp_path / "batch16").mkdir()
        (tmp_path / "batch16" / "run.json").write_text('{"format": 2')
        found = list(report.checks(tmp_path))
        assert any(check.source == "batch1" and check.holds for check in found)
        broken = {check.source: check.measured for check in found if check.what == "results"}
        assert broken.keys() == {"doctor", "probe", "teardown", "batch16", "compiled"}
        assert "cannot be read" in broken["batch16"]
        assert "- batch16: results (cannot be read" in report.page(tmp_path)
        (tmp_path / "batch1" / "run.json").unlink()
        assert report.page(tmp_path).startswith("# What this device had to prove")

    def test_a_run_that_was_cut_short_says_so(self, report: Any, tmp_path: Path) -> None:
        """Its figures may hold; it did not end."""
        assert judged(report, tmp_path, run_with(status="interrupted"))["how it ended"] == ("interrupted", False)

    def test_a_profiler_that_recorded_nothing_proves_nothing(self, report: Any, tmp_path: Path) -> None:
        """No launch, so none lost: that is no success."""
        sessions = [{"ours": ours, "launches": 0, "lost": 0, "orphans": 0} for ours in (False, True)]
        probe = {"probe": {"sessions": sessions, "slowdown": 0.0, "noise": 0.0}}
        (tmp_path / "probe.json").write_text(json.dumps(probe))
        found = [check for check in report.checks(tmp_path) if check.source == "probe"]
        assert [(check.what, check.holds) for check in found] == [("launches recorded", False)]

    def test_operators_of_a_cpu_prove_nothing_of_kernels(self, report: Any, tmp_path: Path) -> None:
        """A CPU launches nothing, and loses nothing."""
        run = run_with(environment={"device": "cpu"})
        assert "launched, not recorded" not in judged(report, tmp_path, run)

    def test_an_empty_folder_proves_nothing(self, report: Any, tmp_path: Path) -> None:
        """Each missing result is named, and nothing is claimed."""
        assert {(check.what, check.holds) for check in report.checks(tmp_path)} == {("results", None)}
        assert "falls short" not in report.page(tmp_path)
        assert "- batch1: results (none)" in report.page(tmp_path)
