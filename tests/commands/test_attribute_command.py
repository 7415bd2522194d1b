"""`layerprof attribute` as a person calls it: tables, files, several traces, and what is no trace."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import traces_synthetic as synthetic

from layerprof import cli
from layerprof.trace.file import write_chrome

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def attribute(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Call the command in this process; return exit code, standard output and standard error."""

    def call(*args: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["layerprof", "attribute", *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return call


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Write a trace of 36 us of GPU work in a layer and its submodule."""
    return write_chrome(synthetic.nested_ranges().events, tmp_path / "nested.json.gz")


class TestShowing:
    """What comes out."""

    def test_a_table_without_being_asked(self, attribute: Cli, trace: Path) -> None:
        """Layers, buckets and the total, in ASCII for a pipe."""
        code, out, err = attribute(trace)
        assert (code, err) == (0, "")
        assert out.isascii()
        layer, mlp = out.splitlines()[2:4]
        assert layer.split()[:4] == ["model.layers.0", "decode", "1", "18.0"]
        assert mlp.split()[:4] == ["mlp", "decode", "1", "18.0"]
        assert mlp.startswith("  mlp"), "below its layer"
        assert next(line for line in out.splitlines() if line.startswith("total")).split()[1:] == ["36.0", "100"]

    def test_json_on_standard_output(self, attribute: Cli, trace: Path) -> None:
        """Both ways of asking give the same, in whole nanoseconds."""
        first, second = attribute(trace, "--json", "-"), attribute(trace, "--format", "json")
        assert json.loads(first[1]) == json.loads(second[1])
        assert json.loads(first[1])["total_ns"] == 36_000

    def test_json_and_a_file_are_both_written(self, attribute: Cli, trace: Path, tmp_path: Path) -> None:
        """Who asks for two things gets two."""
        assert attribute(trace, "--json", tmp_path / "a.json", "-o", tmp_path / "b.csv")[0] == 0
        assert json.loads((tmp_path / "a.json").read_text())["total_ns"] == 36_000
        assert (tmp_path / "b.csv").read_text().startswith("name,phase")

    @pytest.mark.parametrize("suffix", [".csv", ".json", ".md", ".txt"])
    def test_a_file_by_its_suffix(self, attribute: Cli, trace: Path, tmp_path: Path, suffix: str) -> None:
        """The suffix picks the format, folders are made."""
        target = tmp_path / "deep" / f"out{suffix}"
        code, out, _ = attribute(trace, "-o", target)
        assert (code, out) == (0, f"Wrote {target}\n")
        text = target.read_text()
        assert ("  mlp" if suffix == ".txt" else "model.layers.0.mlp") in text
        if suffix == ".csv":
            rows = list(csv.DictReader(io.StringIO(text)))
            assert sum(float(row["self_s"]) for row in rows) == pytest.approx(36e-6)
        if suffix == ".md":
            assert text.startswith("# GPU work, 36.0")
            assert "| total | 36.0" in text

    def test_several_traces_add_up(self, attribute: Cli, trace: Path, tmp_path: Path) -> None:
        """Two files of the same work are one table of their sum."""
        other = write_chrome(synthetic.nested_ranges().events, tmp_path / "other.json")
        _, out, _ = attribute(trace, other, "--json", "-")
        assert json.loads(out)["total_ns"] == 72_000

    def test_a_trace_without_gpu_work_is_one_of_operators(self, attribute: Cli, tmp_path: Path) -> None:
        """Said in the heading; no bucket of launches is shown."""
        code, out, _ = attribute(write_chrome(synthetic.on_a_cpu().events, tmp_path / "cpu.json"))
        assert code == 0
        assert "operators on the CPU" in out
        assert "no launch seen" not in out


WRONG = {
    "missing": (None, "There is no trace"),
    "a folder": ("folder", "is a folder"),
    "empty": (b"", "is empty"),
    "not JSON": (b"hello", "no traceEvents"),
    "other JSON": (b'{"format": 1, "layers": []}', "no traceEvents"),
    "a picture": (b"\x89PNG\r\n\x1a\n0000", "no traceEvents"),
    "truncated": (b'{"traceEvents": [{"ph": "X", "name": ', "truncated"),
    "truncated and packed": (gzip.compress(b'{"traceEvents": [{"ph": "M"}]}')[:20], "truncated"),
    "without events": (b'{"traceEvents": []}', "no events"),
}


class TestRefusals:
    """What is no trace ends in one message with its remedy, and exit 2."""

    @pytest.mark.parametrize("what", sorted(WRONG))
    def test_wrong_files(self, attribute: Cli, tmp_path: Path, what: str) -> None:
        """Each kind is told apart, with the path."""
        content, says = WRONG[what]
        path = tmp_path / "given.json"
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content:
            path.mkdir()
        code, out, err = attribute(path)
        assert (code, out) == (2, "")
        problem, remedy = err.rstrip("\n").split("\n")
        assert problem.startswith("layerprof: ")
        assert says in problem
        assert str(path) in problem
        assert len(remedy) > 10

    def test_one_wrong_file_among_several(self, attribute: Cli, trace: Path, tmp_path: Path) -> None:
        """Nothing is shown of the others, which would look like all."""
        code, out, err = attribute(trace, tmp_path / "absent.json")
        assert (code, out) == (2, "")
        assert "absent.json" in err

    def test_traces_that_do_not_mix(self, attribute: Cli, trace: Path, tmp_path: Path) -> None:
        """GPU work and operators are not added."""
        code, _, err = attribute(trace, write_chrome(synthetic.on_a_cpu().events, tmp_path / "cpu.json"))
        assert code == 2
        assert "cpu.json has no GPU work" in err

    @pytest.mark.parametrize("args", [("--format", "xml"), ("-o", "page.html"), ("-o", "noend")])
    def test_formats_that_there_are_not(self, attribute: Cli, trace: Path, args: tuple[str, str]) -> None:
        """The message lists those that there are."""
        code, _, err = attribute(trace, *args)
        assert code == 2
        assert "csv" in err

    @pytest.mark.parametrize("option", ["-o", "--json"])
    def test_a_file_that_cannot_be_written(self, attribute: Cli, trace: Path, tmp_path: Path, option: str) -> None:
        """No traceback, and nothing half-written."""
        (tmp_path / "file").write_text("")
        code, _, err = attribute(trace, option, tmp_path / "file" / "out.json")
        assert code == 2
        assert "cannot be written" in err

    def test_no_trace_at_all(self, attribute: Cli) -> None:
        """The usage is shown."""
        code, _, err = attribute()
        assert code == 2
        assert "TRACE" in err
