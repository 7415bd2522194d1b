"""The command line: mistakes end with one message and exit 2, before a model is loaded where that is possible."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sample_run import sample_run

from layerprof import cli
from layerprof.runs import store

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run_cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Call the command line in this process; return exit code, standard output and standard error."""

    def call(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["layerprof", *args])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return call


def _mistake(run_cli: Cli, *args: str) -> str:
    """Return the message of a refused request, having checked that it is one message with a remedy and no traceback."""
    code, _, err = run_cli(*args)
    assert code == 2, err
    assert "Traceback" not in err
    assert err.startswith("layerprof: ")
    problem, _, remedy = err.strip().partition("\n")
    assert problem.endswith((".", "?"))
    assert len(remedy) > 10
    return err


def test_help_loads_no_torch_and_names_every_command() -> None:
    """`layerprof --help` answers without torch, so it answers at once."""
    code = (
        "import sys; sys.argv = ['layerprof', '--help']\nfrom layerprof import cli\n"
        "try: cli.main()\nfinally: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0
    assert done.stdout.strip().endswith("False")
    for command in ("profile", "sweep", "compare", "report", "layers", "estimate", "attribute", "view", "doctor"):
        assert f"\n  {command} " in done.stdout


def test_version_is_the_packages() -> None:
    """`--version` prints the version that the metadata has."""
    from importlib.metadata import version

    done = subprocess.run(
        [sys.executable, "-m", "layerprof", "--version"], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == f"layerprof {version('layerprof')}"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--dataset", "textvqe"], ["textvqe", "Did you mean 'textvqa'", "scienceqa"]),
        (["--dtype", "fp17"], ["fp17", "fp16", "bf16"]),
        (["--optimization", "compiled"], ["compiled", "Did you mean 'compile'"]),
        (["--energy", "rapl"], ["rapl", "replay", "attributed"]),
        (["--weights", "trained"], ["trained", "pretrained"]),
        (["--batch-size", "0"], ["--batch-size is 0", "at least 1"]),
        (["--samples", "-3"], ["--samples is -3", "at least 1"]),
        (["--max-input-len", "0"], ["--max-input-len", "at least 1"]),
        (["--max-new-tokens", "0"], ["--max-new-tokens", "at least 1"]),
        (["--image-size", "0"], ["--image-size", "at least 1"]),
        (["--image-size", "230"], ["230", "28", "224", "252"]),
        (["--layers", "language["], ["language["]),
        (["--layers", ""], ["selector"]),
        (["--device", "cuda:99"], ["cuda"]),
        (["--device", "gpu"], ["gpu", "cuda"]),
        (["--model", "dmeo"], ["dmeo", "demo"]),
        (["--source", "/no/such/folder"], ["/no/such/folder", "bundled"]),
        (["--hook", "latencyy"], ["latencyy", "latency"]),
        (["--hook", "no_such_module:Hook"], ["no_such_module"]),
        (["--assume-watts", "-5"], ["above 0"]),
        (["--source", ""], ["--source is empty", "default"]),
        (["--seed", "-1"], ["--seed is -1", "between 0"]),
        (["--seed", str(2**70)], ["between 0"]),
        (["--hook", "shapes", "--hook", "shapes"], ["given twice"]),
        (["--hook", "memory"], ["memory", "no batch"]),
        (["--samples", "many"], ["--samples", "many", "32", "all"]),
    ],
)
def test_wrong_values_are_refused_with_the_nearest_right_one(run_cli: Cli, args: list[str], words: list[str]) -> None:
    """Every wrong value ends with exit 2, one problem, one remedy."""
    message = _mistake(run_cli, "profile", "--model", "demo", *args)
    for word in words:
        assert word in message


def test_a_selector_that_matches_nothing_names_the_nearest_layers(run_cli: Cli, tmp_path: Path) -> None:
    """A selector is checked against the model's real layers, and the answer helps."""
    message = _mistake(
        run_cli,
        "profile",
        "--model",
        "demo",
        "--samples",
        "1",
        "--layers",
        "language[7:9]",
        "--output",
        str(tmp_path / "x"),
    )
    assert "language[7:9]" in message


def test_an_output_folder_that_holds_something_is_refused_and_left_alone(run_cli: Cli, tmp_path: Path) -> None:
    """A run never mixes with what is already there."""
    (tmp_path / "notes.txt").write_text("mine")
    message = _mistake(run_cli, "profile", "--model", "demo", "--output", str(tmp_path))
    assert str(tmp_path) in message
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_output_that_is_a_file_is_refused(run_cli: Cli, tmp_path: Path) -> None:
    """--output takes a folder."""
    file = tmp_path / "run"
    file.write_text("")
    assert "folder" in _mistake(run_cli, "profile", "--model", "demo", "--output", str(file))


def test_a_refused_request_leaves_no_folder_behind(
    run_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake that is found after the folder was made takes the folder away again."""
    monkeypatch.chdir(tmp_path)
    _mistake(run_cli, "profile", "--model", "demo", "--samples", "1", "--layers", "language[99]")
    assert list(tmp_path.rglob("*")) in ([], [tmp_path / "traces"])


def test_a_hub_id_without_network_names_the_ways_round(run_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network for a hub id: the message names random weights and local folders."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    message = _mistake(run_cli, "profile", "--model", "some-org/some-model-that-is-not-cached")
    assert "--weights random" in message


def test_an_incomplete_checkpoint_names_what_is_missing(run_cli: Cli, tmp_path: Path) -> None:
    """A folder without weights is refused before anything is loaded."""
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
    message = _mistake(run_cli, "profile", "--model", str(tmp_path))
    assert "safetensors" in message


def test_report_of_something_that_is_no_run_is_refused(run_cli: Cli, tmp_path: Path) -> None:
    """`layerprof report` says what a run is when it is given something else."""
    assert "run.json" in _mistake(run_cli, "report", str(tmp_path))


def test_a_misspelt_option_is_refused_with_the_nearest(run_cli: Cli) -> None:
    """A wrong option is a wrong request like any other: one message, exit 2."""
    assert "--batch-size" in _mistake(run_cli, "profile", "--batchsize", "2")


@pytest.mark.parametrize(
    "args", [["reportt"], ["report"], ["report", "a", "b"], ["view", "a", "--port", "x"], ["--versio"]]
)
def test_a_command_line_that_cannot_be_read_ends_in_one_message(run_cli: Cli, args: list[str]) -> None:
    """Commands, arguments and values that do not exist are told like every other mistake."""
    assert "--help" in _mistake(run_cli, *args)


def test_the_command_alone_is_answered_with_its_help(run_cli: Cli) -> None:
    """Nothing was asked for, so it is a wrong request, whose remedy is the list of what there is."""
    code, out, err = run_cli()
    assert (code, out) == (2, "")
    assert "\n  profile " in err


def test_a_fault_of_ours_is_not_told_as_a_mistake_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """What no error of the family says keeps its traceback, so that it can be reported."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(store, "load", broken)
    monkeypatch.setattr(sys, "argv", ["layerprof", "report", "run"])
    with pytest.raises(ZeroDivisionError, match="ours"):
        cli.main()


def test_a_dash_as_file_is_standard_output(run_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`-o -` shows the report, as `--json -` does; no file of that name appears."""
    store.save(sample_run(), tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    code, out, _ = run_cli("report", "run", "--format", "json", "-o", "-")
    assert code == 0
    assert json.loads(out)["format"] == 5
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_report_never_goes_over_the_files_of_a_run(run_cli: Cli, tmp_path: Path) -> None:
    """A comparison or report that names a run's own file is refused, and the run stays."""
    store.save(sample_run(), tmp_path)
    before = (tmp_path / "run.json").read_bytes()
    own = str(tmp_path / "run.json")
    assert "belongs to a run" in _mistake(run_cli, "report", str(tmp_path), "--format", "markdown", "-o", own)
    assert "belongs to a run" in _mistake(run_cli, "compare", str(tmp_path), str(tmp_path), "-o", own)
    (tmp_path / "batches.csv").write_text("measured")
    times = str(tmp_path / "batches.csv")
    assert "belongs to a run" in _mistake(run_cli, "report", str(tmp_path), "--format", "csv", "-o", times)
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link.json"
    link.symlink_to(tmp_path / "run.json")
    assert "belongs to a run" in _mistake(run_cli, "report", str(tmp_path), "--format", "json", "-o", str(link))
    assert (tmp_path / "run.json").read_bytes() == before


@pytest.mark.parametrize("name", ["trace/batch0.json.gz", "energy.json", "events.out.tfevents.1.layerprof"])
def test_a_report_never_goes_over_what_lies_beside_a_run(name: str, run_cli: Cli, tmp_path: Path) -> None:
    """Whatever the run names among its files is its own; another file in its folder may be written anew."""
    files = {"one": name}
    store.save(sample_run(files=files), tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("measured")
    (tmp_path / "report.md").write_text("old")
    message = _mistake(run_cli, "report", str(tmp_path), "--format", "json", "-o", str(tmp_path / name))
    assert "belongs to a run" in message
    assert (tmp_path / name).read_text() == "measured"
    assert run_cli("report", str(tmp_path), "-o", str(tmp_path / "report.md"))[0] == 0


def test_a_limit_that_is_no_number_is_refused(run_cli: Cli, tmp_path: Path) -> None:
    """`--fail-above nan` would call every figure a regression, and `inf` none."""
    store.save(sample_run(), tmp_path)
    for limit in ("nan", "inf", "-1"):
        assert "--fail-above" in _mistake(run_cli, "compare", str(tmp_path), str(tmp_path), "--fail-above", limit)


def test_a_message_obeys_nothing_that_a_name_holds(run_cli: Cli) -> None:
    """A file whose name is an escape sequence is named, and the terminal stays as it is."""
    message = _mistake(run_cli, "report", "no\x1b[2Jrun\x07")
    assert "no [2Jrun" in message
    assert "\x1b" not in message


def test_an_interrupt_is_one_line_and_exit_130(run_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in any command ends without a traceback, and not in silence."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "load", stop)
    code, _, err = run_cli("report", "run")
    assert (code, err) == (130, "layerprof: interrupted.\n")
