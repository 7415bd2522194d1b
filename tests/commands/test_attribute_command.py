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

H200 = Path(__file__).parents[1] / "trace" / "h200"
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
        assert "all rows in decode" in out.splitlines()[0]
        assert layer.split()[:5] == ["model.layers.0", "36.0", "100", "####----", "18.0"]
        assert mlp.split()[:5] == ["mlp", "18.0", "50.0", "####", "18.0"]
        assert mlp.startswith("  mlp"), "below its layer"
        assert next(line for line in out.splitlines() if line.startswith("total")).split()[1:] == ["36.0", "100"]

    def test_json_on_standard_output(self, attribute: Cli, trace: Path) -> None:
        """All ways of asking give the same, in whole nanoseconds: no value for --json is standard output."""
        asked = [(trace, "--json", "-"), (trace, "--format", "json"), (trace, "--json"), ("--json", "--infer", trace)]
        told = [json.loads(attribute(*args)[1]) for args in asked]
        assert all(each == told[0] for each in told)
        assert told[0]["total_ns"] == 36_000

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
        assert {".txt": "  mlp", ".md": "| · mlp |"}.get(suffix, "model.layers.0.mlp") in text
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


class TestNaming:
    """Where names come from: ranges by name, captures, inference."""

    def test_ranges_are_chosen_by_name_and_pattern(self, attribute: Cli, trace: Path) -> None:
        """Commas join; a name that has one inside its brackets is one name."""
        both = json.loads(attribute(trace, "--layers", "model.layers.0.mlp, *.nothing", "--json")[1])
        assert [row["name"] for row in both["rows"]] == ["model.layers.0.mlp"]
        code, _, err = attribute(trace, "--layers", "kernel<1, 2>")
        assert code == 2
        assert "kernel<1, 2>" in err

    def test_a_capture_names_what_a_graph_ran(self, attribute: Cli) -> None:
        """From a file and from its folder; the rows of the replay are those of the capture."""
        replay, capture = H200 / "graph-replay.json.gz", H200 / "graph-capture.json.gz"
        told = json.loads(attribute(replay, "--capture", capture, "--json")[1])
        assert {row["naming"] for row in told["rows"] if row["self_ns"]} == {"captured"}
        assert told["buckets_ns"]["graph launch"] < 0.01 * told["total_ns"]
        assert sum(row["self_ns"] for row in told["rows"]) + sum(told["buckets_ns"].values()) == told["total_ns"]

    def test_a_folder_of_captures(self, attribute: Cli, tmp_path: Path) -> None:
        """All its traces are read, packed or not."""
        (tmp_path / "notes.txt").write_text("no trace")
        (tmp_path / "capture.json").write_bytes(gzip.decompress((H200 / "graph-capture.json.gz").read_bytes()))
        code, out, err = attribute(H200 / "graph-replay.json.gz", "--capture", tmp_path)
        assert (code, err) == (0, "")
        assert "rows, captured" in out

    def test_a_result_in_a_folder_of_captures_can_be_written_again(self, attribute: Cli, tmp_path: Path) -> None:
        """It is no trace; a trace there is not written over."""
        capture = tmp_path / "capture.json.gz"
        capture.write_bytes((H200 / "graph-capture.json.gz").read_bytes())
        args = (H200 / "graph-replay.json.gz", "--capture", tmp_path)
        for _ in range(2):
            assert attribute(*args, "-o", tmp_path / "out.json")[0] == 0
        code, _, err = attribute(*args, "--json", capture)
        assert (code, "would write over the trace" in err) == (2, True)

    def test_inference_can_be_turned_off(self, attribute: Cli) -> None:
        """Then all of it stays in the bucket, and the screen says what would help."""
        _, out, _ = attribute(H200 / "graph-replay.json.gz", "--no-infer")
        assert "(inferred)" not in out
        assert "--capture CAPTURE" in " ".join(out.split())


class TestViews:
    """What of it is shown."""

    def test_options_reach_the_tree(self, attribute: Cli, trace: Path) -> None:
        """One level; the submodule is counted as not shown."""
        _, out, _ = attribute(trace, "--depth", "1", "--sort", "own", "--phase", "decode", "--only", "layers")
        assert "  mlp" not in out
        assert "1 deeper or lighter row, 18.0 us of their own (50.0 %), is not shown" in out

    def test_markdown_has_the_same_tree(self, attribute: Cli, trace: Path) -> None:
        """A document can be cut, too."""
        _, out, _ = attribute(trace, "--format", "markdown", "--top", "1")
        assert "| model.layers.0 |" in out
        assert "mlp" not in out


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

    def test_a_trace_given_twice(self, attribute: Cli, trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Under one spelling or two, it would be added to itself."""
        monkeypatch.chdir(trace.parent)
        for again in (trace, Path(trace.name), Path("..", trace.parent.name, trace.name)):
            code, out, err = attribute(trace, again)
            assert (code, out) == (2, "")
            assert "given twice" in err
            assert len(err.splitlines()) == 2

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

    @pytest.mark.parametrize(
        ("args", "says", "known"),
        [
            (("--sort", "tiem"), "no column 'tiem'", "Did you mean 'time'?"),
            (("--phase", "encode"), "no phase 'encode'", "vision, prefill, decode, mixed"),
            (("--phase", "vision"), "phase 'vision'", "It has decode"),
            (("--depth", "0"), "depth 0", "--depth 1"),
            (("--top", "-3"), "-3 lines", "0 shows all"),
            (("--only", "layer.0"), "'layer.0'", "model.layers.0"),
            (("--only", "mpl"), "'mpl'", "Did you mean mlp?"),
            (("--only", "nothing"), "'nothing'", "row of the trace is called 'nothing'.\nGive a part of the names"),
            (("--layers", " , "), "--layers names nothing", "leave it out"),
            (("--layers", "model.layers.7"), "model.layers.7", "model.layers.0"),
            (("--format", "csv", "--top", "3"), "csv holds every row", "--format terminal"),
            (("-o", "x.json", "--only", "mlp"), "json holds every row", "--only"),
        ],
    )
    def test_values_that_there_are_not(
        self, attribute: Cli, trace: Path, args: tuple[str, ...], says: str, known: str
    ) -> None:
        """One message, with what there is; nothing on standard output."""
        code, out, err = attribute(trace, *args)
        assert (code, out) == (2, "")
        assert says in err
        assert known in err
        assert len(err.splitlines()) == 2

    @pytest.mark.parametrize(
        ("what", "says"),
        [("absent", "There is no trace"), ("empty", "no traces of captures"), ("eager", "No CUDA graph")],
    )
    def test_captures_that_are_none(self, attribute: Cli, trace: Path, tmp_path: Path, what: str, says: str) -> None:
        """A missing file, a folder without traces, and a trace in which nothing was captured."""
        (tmp_path / "empty").mkdir()
        given = trace if what == "eager" else tmp_path / what
        code, out, err = attribute(trace, "--capture", given)
        assert (code, out) == (2, "")
        assert says in err
        assert len(err.splitlines()) == 2

    @pytest.mark.parametrize("option", ["-o", "--json"])
    def test_a_trace_is_never_written_over(self, attribute: Cli, trace: Path, tmp_path: Path, option: str) -> None:
        """`attribute --json trace.json` takes the trace for the file that it is to write."""
        other = write_chrome(synthetic.nested_ranges().events, tmp_path / "other.json")
        before = other.read_bytes()
        code, _, err = attribute(option, other, trace, other)
        assert code == 2
        assert "would write over the trace" in err
        assert other.read_bytes() == before

    def test_no_trace_at_all(self, attribute: Cli) -> None:
        """The usage is shown."""
        code, _, err = attribute()
        assert code == 2
        assert "TRACE" in err
