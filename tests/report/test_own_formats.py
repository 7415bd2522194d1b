"""Formats of a user's own: found by import path or entry point, as ours are, and told in one message when they fail."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sample_run import sample_run
from sample_sweep import sample_sweep

from layerprof import cli, registry
from layerprof.report.formats import find
from layerprof.runs import store

Report = Callable[..., tuple[int, str, str]]

OWN = """
class Names:
    def render(self, run, out):
        out.writelines(f"{row.name}\\n" for row in run.layers)

    def render_sweep(self, sweep, out):
        out.writelines(f"{cell.key} {sweep.outcomes[cell.key].status}\\n" for cell in sweep.record.cells)


class Runs:
    def render(self, run, out):
        out.write("a run")


class Nothing:
    pass


class Asks:
    def __init__(self, colour):
        pass


class Fails:
    def render(self, run, out):
        out.write("half of it")
        return run.no_such_figure


class Leaves:
    def render(self, run, out):
        raise SystemExit(0)


class Numbers:
    def render(self, run, out):
        out.write(1)


class Returns:
    def render(self, run, out):
        return "a run"


class Late:
    async def render(self, run, out):
        out.write("a run")


class Closes:
    def render(self, run, out):
        with out:
            out.write("a run")


ready = Runs()
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a folder with a run, a sweep, and a module of the user's that only its being there makes known."""
    store.save(sample_run(), tmp_path / "RUN")
    sample_sweep(tmp_path / "SWEEP")
    (tmp_path / "own_formats.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.delitem(sys.modules, "own_formats", raising=False)
    return tmp_path


@pytest.fixture
def report(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Report:
    """Call `layerprof report` in this process; return exit code, standard output and standard error."""

    def call(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["layerprof", "report", *args])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return call


def _install(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the user's module as a package that registers one of its classes under a short name."""
    about = place / "own_formats-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: own-formats\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[layerprof.formats]\nnames = own_formats:Names\n")
    monkeypatch.syspath_prepend(place)


def _line(words: str) -> str:
    """Return how the line of the user's module that holds these words is named."""
    return f"own_formats.py, line {OWN[: OWN.index(words)].count(chr(10)) + 1}"


def test_our_formats_stand_in_the_group_that_users_have() -> None:
    """All five, and they come first where formats are listed."""
    assert {"terminal", "markdown", "csv", "json", "html"} <= set(registry.names(find.GROUP))
    assert find.names()[:5] == ("terminal", "markdown", "csv", "json", "html")


def test_a_class_beside_the_user_shows_a_run(report: Report) -> None:
    """On standard output what it writes, and nothing else."""
    names = [row.name for row in sample_run().layers]
    code, out, err = report("RUN", "--format", "own_formats:Names")
    assert (code, out.splitlines(), err) == (0, names, "")


def test_what_it_writes_goes_into_the_file(report: Report, place: Path) -> None:
    """Whatever the suffix, which otherwise would pick one of ours."""
    code, out, _ = report("RUN", "--format", "own_formats:Names", "-o", "deep/names.md")
    assert (code, out) == (0, "Wrote deep/names.md\n")
    assert (place / "deep" / "names.md").read_text().splitlines() == [row.name for row in sample_run().layers]


def test_an_object_that_is_ready_is_taken_as_it_is(report: Report) -> None:
    """Not everything that has a `render` is a class."""
    assert report("RUN", "--format", "own_formats:ready") == (0, "a run", "")


def test_a_registered_class_has_a_short_name(report: Report, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed in the group, it is found by name, offered where a name is misspelt, and takes nothing from ours."""
    _install(place, monkeypatch)
    by_path, by_name = (report("RUN", "--format", name) for name in ("own_formats:Names", "names"))
    assert by_name == by_path
    code, _, err = report("RUN", "--format", "nams")
    assert code == 2
    assert "Did you mean 'names'" in err
    assert "terminal, markdown, csv, json, html, names; or your own, as package.module:Class." in err
    assert find.names()[:5] == ("terminal", "markdown", "csv", "json", "html")


def test_a_format_may_close_its_stream(report: Report, place: Path) -> None:
    """`with out:` is what one writes to files with, and nothing is lost by it."""
    assert report("RUN", "--format", "own_formats:Closes") == (0, "a run", "")
    assert report("RUN", "--format", "own_formats:Closes", "-o", "closed.txt")[0] == 0
    assert (place / "closed.txt").read_text() == "a run"


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
def test_a_format_that_only_prepares_to_write_has_failed(report: Report) -> None:
    """An `async def render` is begun by nobody."""
    code, out, err = report("RUN", "--format", "own_formats:Late")
    assert (code, out) == (1, "")
    assert "render wrote nothing" in err


def test_a_name_of_ours_stays_ours(report: Report, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package that registers `json`, too, is not taken for it; its import path still is."""
    _install(place, monkeypatch)
    entries = place / "own_formats-1.0.dist-info" / "entry_points.txt"
    entries.write_text(
        "[layerprof.formats]\njson = own_formats:Names\n[layerprof.hooks]\nlatency = own_formats:Names\n"
    )
    assert report("RUN", "--format", "json")[1] == store.dump(sample_run()).decode()
    assert getattr(registry.find("latency"), "__name__", "") == "LatencyHook"


def test_a_class_that_takes_sweeps_shows_one(report: Report) -> None:
    """It gets the cells in order, with how each ended."""
    code, out, _ = report("SWEEP", "--format", "own_formats:Names")
    assert (code, out.splitlines()) == (0, ["aa done", "bb done", "cc crashed", "dd skipped"])


def test_a_class_that_takes_no_sweeps_says_so(report: Report) -> None:
    """The method that it would need is named, and what can be done without it."""
    code, out, err = report("SWEEP", "--format", "own_formats:Runs")
    assert (code, out) == (2, "")
    assert "render_sweep" in err
    assert "cells/" in err


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("own_formats:Nothing", 2, ["no method render", "docs/formats.md"]),
        ("own_formats:Asks", 2, ["Asks() raised TypeError", "colour", "without arguments"]),
        ("own_formats:Missing", 2, ["own_formats:Missing", "import path"]),
        ("no_such_module:Format", 2, ["no_such_module", "Install the package"]),
        ("own_formats:", 2, ["own_formats:", "package.module:Class"]),
        ("own_formats", 2, ["Unknown report format 'own_formats'", "terminal"]),
        ("own_formats:Fails", 1, ["AttributeError", "no_such_figure", _line("return run.no_such"), "Correct it"]),
        ("own_formats:Leaves", 1, ["SystemExit", _line("raise SystemExit")]),
        ("own_formats:Numbers", 1, ["TypeError", _line("out.write(1)")]),
        ("own_formats:Returns", 1, ["render wrote nothing", "Write to the stream"]),
        ("own_formats", 2, ["package.module:Class"]),
    ],
)
def test_what_fails_is_one_message_and_leaves_no_half_report(
    report: Report, place: Path, name: str, code: int, words: list[str]
) -> None:
    """A wrong request is 2, a format that failed is 1; nothing is shown, and a file that was there stays."""
    (place / "kept.txt").write_text("kept")
    for args in ((), ("-o", "kept.txt")):
        status, out, err = report("RUN", "--format", name, *args)
        assert (status, out) == (code, "")
        problem, remedy = err.rstrip("\n").split("\n")
        assert problem.startswith("layerprof: ")
        assert len(remedy) > 10
        assert [word for word in words if word not in err] == []
    assert (place / "kept.txt").read_text() == "kept"


def test_a_fault_of_one_of_ours_keeps_its_traceback(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a user's own format is the user's to correct."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(store, "dump", broken)
    with pytest.raises(ZeroDivisionError, match="ours"):
        report("RUN", "--format", "json")
