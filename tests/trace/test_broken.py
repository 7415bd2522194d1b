"""Broken trace files: what is whole in them is read, what is not is counted, and the reader is told."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from broken import BACKSLASH, BLOCK, EVENTS, GOOD, KERNEL, LAUNCH, QUOTES, held, packed, read
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layerprof.errors import TraceError
from layerprof.trace import file
from layerprof.trace.attribute import attribute
from layerprof.trace.for_tensorboard import rewrite_for_tensorboard

SHARED = Path(__file__).parents[3] / "shared" / "cases"


@pytest.fixture(params=[40, 300, 4 << 20])
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read in pieces that end everywhere, in pieces of an event or two, and at once."""
    monkeypatch.setattr(file, "PIECE", request.param)


WHOLE = held(*GOOD)
READ_WHOLE: dict[str, str | bytes] = {
    "a list left open": "[" + ",\n".join(GOOD) + ",\n",
    "a list left open without a comma": "[" + ",\n".join(GOOD),
    "UTF-16 with a byte order mark": WHOLE.encode("utf-16"),
    "UTF-16 of the other order": b"\xfe\xff" + WHOLE.encode("utf-16-be"),
    "UTF-16 little-endian": WHOLE.encode("utf-16-le"),
    "UTF-16 big-endian": WHOLE.encode("utf-16-be"),
    "UTF-32": WHOLE.encode("utf-32"),
    "UTF-16, packed": gzip.compress(WHOLE.encode("utf-16")),
    "UTF-8 with a byte order mark": b"\xef\xbb\xbf" + WHOLE.encode(),
    "a comma behind the last event": held(BLOCK, LAUNCH, KERNEL + ","),
    "commas too many": held(BLOCK, "", "", LAUNCH, KERNEL),
    "a comma behind the last field": held(BLOCK, LAUNCH[:-1] + " , }", KERNEL[:-2] + ",}}"),
    "no commas": held("\n".join(GOOD)),
    "nothing between the events": held("".join(GOOD)),
    "nulls among the events": held("null", BLOCK, "null", LAUNCH, KERNEL, "null"),
    "keys before and behind": held(
        *GOOD, head='"a":{"b":[{"c":{}}]},"traceEvent":[],', tail=',"z":[{"id":0},{"id":1}],"y":{}'
    ),
    "events of another object before": held(*GOOD, head='"other":{"traceEvents":[{"ph":"X"}]},'),
    "one event a line": "\n".join(GOOD),
    "one event a line, ended": "\r\n".join(GOOD) + "\r\n",
    "signs between the events": held(BLOCK, f"x {LAUNCH}", f"}} {KERNEL}"),
    "a bracket too many": held(BLOCK + "]", LAUNCH, KERNEL),
    "packed twice": packed(WHOLE[:90]) + packed(WHOLE[90:]),
    "packed and padded": packed(WHOLE) + bytes(600),
}
"""Files that lack nothing: each holds the three events."""

READ_AS_ONE = {
    "two traces, one behind the other": held(BLOCK) + "\n" + held(LAUNCH, KERNEL),
    "a list behind a list": f"[{BLOCK}][{LAUNCH},{KERNEL}]",
    "a list behind a trace": held(BLOCK, LAUNCH) + f"[{KERNEL}]",
    "a byte order mark between two traces": held(BLOCK, LAUNCH) + "\ufeff" + held(KERNEL, head='"a":1,'),
    "a trace behind one without its end": '{"traceEvents":[' + BLOCK + "," + held(LAUNCH, KERNEL, head='"a":1,'),
    "an empty trace before": held() + held(*GOOD),
}
"""Files that hold two traces, as a writer leaves them that began again; the three events are in both together."""


@pytest.mark.usefixtures("pieces")
class TestNothingLost:
    """What JSON forbids and still says all is read, and nothing is said about it."""

    @pytest.mark.parametrize("case", sorted(READ_WHOLE))
    def test_all_events_are_read(self, case: str, tmp_path: Path) -> None:
        """The three events, none unreadable, no end missing."""
        found = read(tmp_path / "t.json", READ_WHOLE[case])
        assert found.events == EVENTS
        assert (found.unreadable, found.cut_off) == (0, False)
        assert found.remarks == ()

    @pytest.mark.parametrize("case", sorted(READ_AS_ONE))
    def test_traces_one_behind_the_other_are_read_as_one(self, case: str, tmp_path: Path) -> None:
        """All events of both, and the reader is told."""
        found = read(tmp_path / "t.json", READ_AS_ONE[case])
        assert found.events == EVENTS
        assert (found.unreadable, found.cut_off, len(found.remarks)) == (0, False, 1)
        assert "holds 2 traces" in found.remarks[0]

    def test_signs_within_an_event(self, tmp_path: Path) -> None:
        """NaN, Infinity, control signs, bytes that are no UTF-8, half a surrogate pair."""
        odd = b'{"ph":"X","name":"a\xff\x01\tb\\ud83d","ts":NaN,"dur":-Infinity,"n":123456789012345678901234567890}'
        found = read(tmp_path / "t.json", b"[" + KERNEL.encode() + b",\n" + odd + b",\n" + BLOCK.encode() + b"]")
        assert [event["name"] for event in found.events] == ["gemm", "a\ufffd\x01\tb\ufffd", "block0"]
        assert found.events[1]["n"] == 123456789012345678901234567890.0
        assert found.unreadable == 0


ONE_LOST = {
    "quotes in a name": held(QUOTES, *GOOD),
    "quotes in the name of the last": held(*GOOD, QUOTES),
    "quotes in a name between": held(BLOCK, QUOTES, LAUNCH, KERNEL),
    "backslashes in a name": held(BACKSLASH, *GOOD),
    "one event a line, one of them broken": "\n".join([BLOCK, QUOTES, LAUNCH, KERNEL]),
    "one event a line, the first of them broken": "\n".join([QUOTES, *GOOD]),
    "a brace and a quote in a name": held('{"ph":"X","name":"a"}b","ts":1,"dur":1}', *GOOD),
    "a missing brace": held(BLOCK, LAUNCH[:-1], KERNEL, BLOCK).replace(",\n" + BLOCK + "\n]", "\n]"),
    "no opening brace": held(BLOCK, KERNEL[1:], LAUNCH, KERNEL),
    "nothing for a value": held('{"ph":"X","name":"a","ts":,"dur":1}', *GOOD),
    "cut short by a trace that begins again": '{"traceEvents":[{"ph":"X","na' + held(*GOOD, head='"a":1,'),
    "cut short by a list that begins again": '[{"ph":"X","args":{"a":[1,' + "[" + ",".join(GOOD) + "]",
    "brackets without an end": held("[" * 5000, *GOOD),
}
"""Files with the three events, or two of them, and one that is none."""


@pytest.mark.usefixtures("pieces")
class TestOneLost:
    """What is broken costs itself."""

    @pytest.mark.parametrize("case", sorted(set(ONE_LOST) - {"a missing brace", "brackets without an end"}))
    def test_the_others_are_read(self, case: str, tmp_path: Path) -> None:
        """The three events; the one that cannot be read is counted, and the reader told."""
        found = read(tmp_path / "t.json", ONE_LOST[case])
        assert found.events == EVENTS
        assert found.unreadable == 1
        assert not found.cut_off
        assert "1 of its events cannot be read" in found.remarks[0]

    def test_a_missing_brace_costs_its_event(self, tmp_path: Path) -> None:
        """The one behind it is whole again."""
        found = read(tmp_path / "t.json", ONE_LOST["a missing brace"])
        assert [event["name"] for event in found.events] == ["block0", "gemm"]
        assert found.unreadable == 1

    def test_a_thousand_in_a_row(self, tmp_path: Path) -> None:
        """Each counts, and what stands between them is read."""
        found = read(tmp_path / "t.json", held(*([QUOTES] * 500 + [KERNEL] + [BACKSLASH] * 500)))
        assert (found.events, found.unreadable) == ([EVENTS[2]], 1000)

    def test_the_time_of_the_others_is_attributed(self, tmp_path: Path) -> None:
        """The kernel's 30 us are its range's; the broken event is counted, and what to do is said."""
        (tmp_path / "t.json").write_text(ONE_LOST["quotes in a name"])
        result = attribute(tmp_path / "t.json")
        assert [(row.name, row.self_ns) for row in result.rows] == [("block0", 30_000)]
        assert result.skipped == 1
        assert "record with a newer one" in result.remarks[0]

    def test_tensorboard_reads_it_too(self, tmp_path: Path) -> None:
        """The rewritten trace has the events that could be read, and is whole."""
        (tmp_path / "t.json").write_text(ONE_LOST["quotes in a name"] + "\\ud83d")
        names = [event["name"] for piece in file.TraceFile(_rewritten(tmp_path)) for event in piece]
        assert "gemm" in names
        assert "nn.Module: block0" in names

    def test_half_a_surrogate_pair_can_be_written_again(self, tmp_path: Path) -> None:
        """A name that no UTF-8 can hold does not end the rewriting."""
        (tmp_path / "t.json").write_text(held(BLOCK.replace("block0", "a\\ud83d"), LAUNCH, KERNEL))
        names = [event["name"] for piece in file.TraceFile(_rewritten(tmp_path)) for event in piece]
        assert "nn.Module: a\ufffd" in names


def _rewritten(folder: Path) -> Path:
    return rewrite_for_tensorboard(folder / "t.json", folder / "tb", "w.1")


PIECEWISE = ("quotes in a name between", "a brace and a quote in a name", "no opening brace")
"""Cases in which it was seen to matter where a piece ends."""


def test_it_matters_nowhere_where_a_piece_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole files and broken ones give the same in pieces of every size."""
    texts = [held(*GOOD, head='"a":{"b":[{}]}, ', tail=', "z" : [{}, {}] '), *(ONE_LOST[case] for case in PIECEWISE)]
    for text in texts:
        readings = set()
        for size in range(16, 800):
            monkeypatch.setattr(file, "PIECE", size)
            found = read(tmp_path / "t.json", text)
            readings.add((len(found.events), found.unreadable, found.cut_off, *sorted(found.metadata)))
        assert len(readings) == 1, text


class TestCutOff:
    """A file that breaks off gives everything before the break."""

    @pytest.mark.parametrize("size", [40, 4 << 20])
    def test_at_every_byte(self, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """All events that are whole, none twice, and never taken for a whole file."""
        monkeypatch.setattr(file, "PIECE", size)
        written = [json.dumps(event, ensure_ascii=False) for event in (*EVENTS, *AWKWARD)]
        begin = '{"schemaVersion": 1, "traceEvents": ['
        whole = begin + ", ".join(written) + '], "traceName": "x", "z": [{}, {}]}'
        ends = [len((begin + ", ".join(written[: count + 1])).encode()) for count in range(len(written))]
        content = whole.encode()
        for length in range(len(content)):
            before = sum(end <= length for end in ends)
            if not before:
                with pytest.raises(TraceError):
                    read(tmp_path / "t.json", content[:length])
                continue
            found = read(tmp_path / "t.json", content[:length])
            assert found.events == [*EVENTS, *AWKWARD][:before]
            assert found.cut_off
            assert found.unreadable <= 1
            assert f"after {before:,} events" in found.remarks[-1]

    def test_a_packed_file_at_every_byte(self, tmp_path: Path) -> None:
        """What can be unpacked is read: more with every byte, all but the last few give all."""
        events = [{**EVENTS[2], "ts": number * 1.37, "name": f"k{number * 7919 % 997}"} for number in range(60)]
        content = packed(json.dumps({"traceEvents": events}))
        most = 0
        for length in range(len(content)):
            try:
                found = read(tmp_path / "t.json.gz", content[:length])
            except TraceError:
                assert most == 0
                continue
            assert found.events == events[: len(found.events)]
            assert len(found.events) >= most
            assert any("not whole" in remark for remark in found.remarks)
            most = len(found.events)
        assert most == len(events)

    def test_damage_in_a_packed_file(self, tmp_path: Path) -> None:
        """A flipped byte: what was unpacked before is read, and the damage told."""
        events = [{**EVENTS[2], "ts": number * 1.37, "name": f"k{number * 7919 % 997}"} for number in range(600)]
        content = bytearray(packed(json.dumps({"traceEvents": events})))
        content[-6] ^= 0xFF
        found = read(tmp_path / "t.json.gz", bytes(content))
        assert found.events == events
        assert "its packed stream is damaged" in found.remarks[0]

    def test_a_list_cut_in_an_event(self, tmp_path: Path) -> None:
        """A list may be left open, but not in the midst of an event."""
        found = read(tmp_path / "t.json", f"[{BLOCK},{LAUNCH},{KERNEL[:40]}")
        assert (found.events, found.unreadable, found.cut_off) == (EVENTS[:2], 1, True)


AWKWARD = [
    {"ph": "X", "name": 'a "quoted" }, { name', "ts": 1, "dur": 2, "args": {}},
    {"ph": "X", "name": "back\\slash } , { \x07 \u2603", "ts": 4.125, "dur": -1e-3},
    {"ph": "M", "name": "ümlaut ☃ 😀", "args": {"name": "]}", "ok": True, "no": None}},
]
"""Events whose text looks as if an event ended inside them."""


THE_SAME_EACH_TIME: dict[str, Any] = {
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": [HealthCheck.function_scoped_fixture],
}


class TestAnyDamage:
    """Whatever is done to a file: it is read or refused, and gives no more events than it had."""

    @settings(
        max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(st.data())
    def test_a_byte_flipped_put_in_or_taken_out(self, tmp_path: Path, data: st.DataObject) -> None:
        """At most one event of the list is lost or changed for each byte."""
        before, behind = '{"traceEvents":[\n', '\n],"traceName":"x"}'
        content = bytearray((before + ",\n".join(json.dumps(e) for e in (*EVENTS, *AWKWARD)) + behind).encode())
        place = data.draw(st.integers(len(before), len(content) - len(behind) - 1))
        sign = data.draw(st.sampled_from(list(b'"\\{}[],:x1 \n\x00\xff')))
        how = data.draw(st.sampled_from(["flip", "put in", "take out"]))
        content[place : place + (how != "put in")] = b"" if how == "take out" else bytes([sign])
        found = read(tmp_path / "t.json", bytes(content))
        kept = [event for event in (*EVENTS, *AWKWARD) if event in found.events]
        assert len(found.events) <= len(EVENTS) + len(AWKWARD)
        assert len(kept) >= len(EVENTS) + len(AWKWARD) - 2

    @settings(
        max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(st.binary(max_size=200))
    def test_any_bytes(self, tmp_path: Path, content: bytes) -> None:
        """No other error than the one that ends in a remedy."""
        with pytest.raises(TraceError):
            read(tmp_path / "t.json", content)

    @settings(
        max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(st.text(alphabet='{}]",: \\n1axph', max_size=80))
    def test_any_signs_between_two_events(self, tmp_path: Path, signs: str) -> None:
        """Both are read, or one of them is swallowed; but a list that is opened there holds all that follows."""
        found = read(tmp_path / "t.json", held(BLOCK + signs + KERNEL, LAUNCH))
        assert EVENTS[1] in found.events


class TestNotATrace:
    """Other files are named for what they are, with what to do."""

    @pytest.mark.parametrize(
        ("content", "says", "remedy"),
        [
            (b"PK\x03\x04" + bytes(60), "zip archive", "Unpack"),
            (b"\x28\xb5\x2f\xfd" + bytes(60), "zstd", "zstd -d"),
            (b"\xfd7zXZ\x00" + bytes(60), "xz", "xz -d"),
            (b"BZh91AY&SY" + bytes(60), "bzip2", "bzip2 -d"),
            (b"trace.json".ljust(257, b"\x00") + b"ustar\x0000" + bytes(300), "tar archive", "Unpack"),
            (gzip.compress(b"trace.json".ljust(257, b"\x00") + b"ustar\x0000" + bytes(300)), "tar archive", "Unpack"),
            (b"\x80\x02}q\x00" + bytes(range(256)), "binary", "torch.profiler"),
            (b"SQLite format 3\x00" + bytes(60), "binary", "nsys-rep"),
            (gzip.compress(b""), "is empty", "Record it again"),
            (gzip.compress(b'{"traceEvents":[]}' * 9)[:15], "packed stream breaks off", "Record it again"),
            (held(QUOTES, BACKSLASH).encode(), "none of its events can be read", "Record it again"),
        ],
    )
    def test_it_is_refused(self, content: bytes, says: str, remedy: str, tmp_path: Path) -> None:
        """One message that names the file and ends in a remedy."""
        with pytest.raises(TraceError, match=says) as caught:
            read(tmp_path / "t.bin", content)
        assert remedy in caught.value.remedy
        assert str(tmp_path / "t.bin") in caught.value.problem


@pytest.mark.skipif(not SHARED.is_dir(), reason="the broken traces beside the checkout")
@pytest.mark.parametrize(
    ("name", "unreadable", "kernel_ns"),
    [
        ("trace_unescaped_quotes.json", 1, 30_000),
        ("trace_unescaped_backslash.json", 1, 30_000),
        ("trace_list_left_open.json", 0, 30_000),
        ("trace_utf16.json", 0, 30_000),
        ("trace_cut_off.json", 1, 0),
    ],
)
def test_the_broken_traces_beside_the_checkout(name: str, unreadable: int, kernel_ns: int) -> None:
    """What is right is in the README beside them."""
    result = attribute(SHARED / name)
    assert (result.skipped, result.total_ns) == (unreadable, kernel_ns)
    assert bool(result.remarks) == bool(unreadable)
