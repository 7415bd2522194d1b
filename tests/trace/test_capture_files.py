"""Folders of captures: all their traces are read, and what is none is left out and named."""

from __future__ import annotations

from pathlib import Path

import pytest
from attributions import buckets, selves
from scenario import GRAPH, Scenario
from traces_graphs import capture, layered, replay, written

from layerprof.errors import RequestError, TraceError
from layerprof.trace.attribute import attribute
from layerprof.trace.graphs import capture_files

STACK = layered(3, "norm", "gemm", "act")


@pytest.fixture
def recorded() -> Scenario:
    """Return a trace of two replays, whose kernels belong to the layers of the capture."""
    s = Scenario()
    replay(s, STACK, replay(s, STACK, 100))
    return s


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a capture two levels down."""
    s = Scenario()
    capture(s, STACK)
    inner = tmp_path / "run" / "rank0" / "captures"
    inner.mkdir(parents=True)
    written(s, inner / "graph.json.gz")
    return tmp_path / "run"


class TestFolders:
    """`captures` may be folders, from Python as on the command line."""

    @pytest.mark.parametrize("as_text", [False, True])
    def test_they_are_searched_at_any_depth(self, recorded: Scenario, folder: Path, as_text: bool) -> None:
        """Every kernel finds its layer, and there is nothing to be said."""
        result = attribute(recorded.events, captures=[str(folder) if as_text else folder], infer=False)
        assert selves(result) == pytest.approx(recorded.self_us)
        assert buckets(result)[GRAPH] == 0
        assert result.remarks == ()

    def test_what_is_no_capture_is_left_out_and_named(self, recorded: Scenario, folder: Path) -> None:
        """Other JSON, an empty file and a trace without captures; three by name, the others by number."""
        for name in ("a.json", "b.json", "c.json.gz"):
            (folder / name).write_text('{"layers": 12}')
        (folder / "d.json").touch()
        (folder / "notes.txt").write_text("not looked at")
        written(recorded, folder / "rank0" / "other.json")
        result = attribute(recorded.events, captures=[folder], infer=False)
        assert selves(result) == pytest.approx(recorded.self_us)
        told = "5 files are left out, for want of a captured CUDA graph: a.json, b.json, c.json.gz and 2 more."
        assert result.remarks == (f"Of {folder} {told}",)

    def test_the_trace_itself_may_lie_in_it(self, recorded: Scenario, folder: Path) -> None:
        """It is no capture of its own replays."""
        trace = written(recorded, folder / "replay.json")
        result = attribute(trace, captures=[folder], infer=False)
        assert selves(result) == pytest.approx(recorded.self_us)
        assert "1 file is left out" in result.remarks[0]
        assert "replay.json" in result.remarks[0]

    def test_a_trace_with_a_capture_of_its_own_is_not_read_twice(self, folder: Path) -> None:
        """Its own capture counts once, and it is not told as one without."""
        s = Scenario()
        replay(s, STACK, capture(s, STACK))
        trace = written(s, folder / "both.json")
        alone, beside = attribute(trace, infer=False), attribute(trace, captures=[folder], infer=False)
        assert selves(beside) == selves(alone)
        assert beside.remarks == ()

    def test_nothing_captured_in_all_of_it_is_an_error(self, recorded: Scenario, folder: Path) -> None:
        """The message names the folder."""
        (folder / "rank0" / "captures" / "graph.json.gz").unlink()
        with pytest.raises(RequestError, match="has no traces of captures"):
            attribute(recorded.events, captures=[folder])
        (folder / "config.json").write_text("{}")
        with pytest.raises(RequestError, match=f"No CUDA graph was captured in {folder}"):
            attribute(recorded.events, captures=[folder])

    def test_a_file_given_by_itself_keeps_its_error(self, recorded: Scenario, folder: Path) -> None:
        """Also where the folder around it is given."""
        (folder / "config.json").write_text("{}")
        with pytest.raises(TraceError, match=r"config\.json is not a profiler trace"):
            attribute(recorded.events, captures=[folder, folder / "config.json"])


def test_each_file_is_listed_once(folder: Path) -> None:
    """A file that is given beside its folder, or by two spellings, is read once."""
    path = folder / "rank0" / "captures" / "graph.json.gz"
    assert [file.path for file in capture_files.listed([folder, path, folder / "rank0"])] == [path]
    assert capture_files.listed([folder])[0].folder == folder
