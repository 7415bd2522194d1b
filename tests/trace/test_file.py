"""Trace files: read in pieces to the same events, whatever is in them; errors that say what to do."""

from __future__ import annotations

import gzip
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layerprof.errors import TraceError
from layerprof.trace import file
from layerprof.trace.file import TraceFile, write_chrome

AWKWARD: list[dict[str, Any]] = [
    {"ph": "X", "name": 'a "quoted" }, { name', "ts": 1, "dur": 2, "args": {}},
    {"ph": "X", "name": "lists", "args": {"shapes": [{"a": 1}, {"b": [{}, {}]}, []], "x": {"y": {"z": 1}}}, "ts": 3},
    {"ph": "X", "name": "back\\slash } , {", "ts": 4.125, "dur": 0},
    {"ph": "M", "name": "ümlaut ☃", "args": {"name": "]}"}},
    {},
]
"""Events whose text looks as if an event ended inside them."""


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read a few bytes at a time, so that pieces end everywhere."""
    monkeypatch.setattr(file, "PIECE", 40)


def events_of(path: Path) -> list[dict[str, Any]]:
    """All events of a file."""
    return [event for piece in TraceFile(path) for event in piece]


def written(path: Path, text: str | bytes) -> Path:
    """Write a file as it stands."""
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


LAYOUTS = {
    "as torch writes it": lambda body: (
        f'{{\n "schemaVersion": 1,\n "traceEvents": [\n  {body}\n  ],\n"traceName": "x" }}'
    ),
    "on one line": lambda body: f'{{"traceEvents":[{body}]}}',
    "events first": lambda body: f'{{"traceEvents" : [{body}], "deviceProperties": [{{"id": 0}}, {{"id": 1}}]}}',
    "a bare list": lambda body: f"[{body}]\n",
    "with a byte order mark": lambda body: f'\ufeff {{"traceEvents": [{body}]}}',
    "named twice": lambda body: f'{{"note": "\\"traceEvents\\": [", "traceEvents": [{body}]}}',
}


@pytest.mark.usefixtures("small_pieces")
class TestReading:
    """The same events come out, however the file is laid out and wherever the pieces end."""

    @pytest.mark.parametrize("layout", sorted(LAYOUTS))
    @pytest.mark.parametrize("packed", [False, True])
    @pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" ,\n  ", " : ")])
    def test_every_layout_gives_the_events(
        self, layout: str, packed: bool, separators: tuple[str, str], tmp_path: Path
    ) -> None:
        """Objects, lists, white space, packing: all the same."""
        events = AWKWARD * 7
        body = json.dumps(events, separators=separators)[1:-1]
        text = LAYOUTS[layout](body).encode()
        path = written(tmp_path / "trace.json", gzip.compress(text) if packed else text)
        assert events_of(path) == events

    def test_metadata_of_both_ends_is_kept(self, tmp_path: Path) -> None:
        """What stands before and after the events is there when they are read."""
        path = written(tmp_path / "t.json", '{"schemaVersion": 1, "traceEvents": [{"ph": "X"}, {}], "tail": {"a": 2}}')
        trace = TraceFile(path)
        assert len([event for piece in trace for event in piece]) == 2
        assert trace.metadata == {"schemaVersion": 1, "tail": {"a": 2}}

    def test_signs_that_json_forbids_are_read(self, tmp_path: Path) -> None:
        """Some writers leave NaN, Infinity and raw control characters in their traces."""
        body = ",".join(['{"ph": "X", "ts": NaN, "args": {"v": Infinity, "s": "tab\there"}}'] * 9)
        assert len(events_of(written(tmp_path / "t.json", f'{{"traceEvents": [{body}]}}'))) == 9

    def test_things_between_the_events_that_are_none_are_passed_over(self, tmp_path: Path) -> None:
        """Numbers, nulls and lists among the events are not given out."""
        path = written(tmp_path / "t.json", '{"traceEvents": [1, null, {"ph": "X"}, [2], {"ph": "M"}, "x"]}')
        assert events_of(path) == [{"ph": "X"}, {"ph": "M"}]

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        st.lists(
            st.dictionaries(
                st.text(max_size=4),
                st.recursive(
                    st.one_of(st.integers(-9, 9), st.text('{}[],:"\\ aé', max_size=9), st.none()),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
                    max_leaves=6,
                ),
                max_size=3,
            ),
            min_size=1,
            max_size=12,
        )
    )
    def test_any_events_survive(self, tmp_path: Path, events: list[dict[str, Any]]) -> None:
        """Whatever JSON the events hold, cutting into pieces changes nothing."""
        path = written(tmp_path / "t.json", json.dumps({"traceEvents": events}))
        assert events_of(path) == events


@pytest.mark.skipif(not Path("/dev/fd").is_dir(), reason="a system without /dev/fd")
class TestPipes:
    """What cannot be read twice is read like a file, packed or not."""

    @pytest.mark.parametrize("packed", [False, True])
    @pytest.mark.parametrize("standard", [False, True])
    def test_a_pipe_is_a_trace(self, packed: bool, standard: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        """By the path that a shell gives it, and by `-` for standard input."""
        text = json.dumps({"traceEvents": AWKWARD}).encode()
        number = piped(gzip.compress(text) if packed else text)
        with os.fdopen(number) as end:
            monkeypatch.setattr(sys, "stdin", end)
            assert events_of(Path("-" if standard else f"/dev/fd/{number}")) == AWKWARD

    def test_standard_input_that_is_no_trace(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The message calls it what it is."""
        with os.fdopen(piped(b"hello")) as end:
            monkeypatch.setattr(sys, "stdin", end)
            with pytest.raises(TraceError, match="standard input is not a profiler trace"):
                events_of(Path("-"))


def piped(content: bytes) -> int:
    """Return the reading end of a pipe that holds a few bytes."""
    end, begin = os.pipe()
    os.write(begin, content)
    os.close(begin)
    return end


class TestErrors:
    """A file of which nothing can be read ends in one sentence of what is wrong and one of what to do."""

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (b"", "is empty"),
            (b"  \n ", "is empty"),
            (b"{}", "no traceEvents"),
            (b'{"format": 1, "layers": []}', "no traceEvents"),
            (b'"text"', "no traceEvents"),
            (b"\x89PNG\r\n\x1a\n", "no traceEvents"),
            (b"not json at all", "no traceEvents"),
            (b'{"schemaVersion": 1, "devi', "before its first event"),
            (b'{"traceEvents": []}', "holds no events"),
            (b"[]", "holds no events"),
            (b'{"traceEvents": [{"ph":', "truncated"),
            (b'{"traceEvents": [', "truncated"),
            (b'{"traceEvents": [{"ph": X}]}', "malformed"),
        ],
    )
    def test_a_file_without_an_event(self, content: bytes, says: str, tmp_path: Path) -> None:
        """Empty, something else, cut off too early, or broken: told apart, with exit status 2."""
        path = written(tmp_path / "t.json", content)
        with pytest.raises(TraceError, match=says) as caught:
            events_of(path)
        assert caught.value.remedy
        assert caught.value.exit_code == 2
        assert str(path) in caught.value.problem

    def test_a_missing_file(self, tmp_path: Path) -> None:
        """The path is in the message."""
        with pytest.raises(TraceError, match=r"no trace .*absent\.json"):
            events_of(tmp_path / "absent.json")

    def test_a_folder(self, tmp_path: Path) -> None:
        """A run's folder given for its trace: the traces in it are named."""
        (tmp_path / "trace").mkdir()
        written(tmp_path / "trace" / "batch0.json.gz", b"")
        with pytest.raises(TraceError, match="is a folder") as caught:
            events_of(tmp_path)
        assert "batch0.json.gz" in caught.value.remedy


class TestWriting:
    """What is written is what any viewer of Chrome traces reads."""

    @pytest.mark.parametrize("name", ["t.json", "t.json.gz"])
    def test_events_come_back(self, name: str, tmp_path: Path) -> None:
        """Plain JSON by its name, packed by its name, with the metadata, in folders that need not exist."""
        path = write_chrome(iter(AWKWARD), tmp_path / "deep" / name, {"baseTimeNanoseconds": 5})
        text = gzip.decompress(path.read_bytes()) if name.endswith("gz") else path.read_bytes()
        whole = json.loads(text)
        assert whole["traceEvents"] == AWKWARD
        assert whole["baseTimeNanoseconds"] == 5
        assert whole["displayTimeUnit"] == "ms"

    def test_a_failure_leaves_no_half_file(self, tmp_path: Path) -> None:
        """Nobody finds half a trace after an error."""

        def failing() -> Any:
            yield {"ph": "X"}
            raise ValueError("boom")

        with pytest.raises(ValueError, match="boom"):
            write_chrome(failing(), tmp_path / "t.json.gz")
        assert list(tmp_path.iterdir()) == []
