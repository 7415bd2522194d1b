"""Standard streams that outlive their readers, and signals that end a block like Ctrl-C."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from layerprof.machine import streams


def test_a_reader_that_leaves_costs_nothing_but_the_output() -> None:
    """What is written to a closed pipe is dropped, and the stream says why."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as pipe:
        lasting = streams.Lasting(pipe)
        lasting.write("read\n")
        lasting.flush()
        assert os.read(reader, 10) == b"read\n"
        os.close(reader)
        for _ in range(3):
            assert lasting.write("unread\n") == 7
            lasting.flush()
    assert isinstance(lasting.trouble, BrokenPipeError)


def test_a_stream_that_works_is_as_before() -> None:
    """Everything else is the stream's own."""
    text = io.StringIO()
    lasting = streams.Lasting(text)
    lasting.write("a")
    lasting.flush()
    assert lasting.trouble is None
    assert lasting.getvalue() == "a"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_stop_from_outside_is_an_interrupt(number: signal.Signals) -> None:
    """A cluster's SIGTERM and a closed terminal's SIGHUP end the block like Ctrl-C; after it they are as before."""
    before = signal.getsignal(number)
    signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(KeyboardInterrupt), streams.stopped_like_an_interrupt():
            signal.raise_signal(number)
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_a_signal_that_somebody_ignores_stays_ignored() -> None:
    """Under nohup a closed terminal ends nothing."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with streams.stopped_like_an_interrupt():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def _layerprof(*args: str, before: str = "", stdout: object = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    code = f"import os, sys\nsys.argv = ['layerprof', *{args!r}]\n{before}\nfrom layerprof import cli\ncli.main()"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False, timeout=60)  # type: ignore[call-overload, no-any-return]  # any target of subprocess


def test_output_that_nobody_reads_is_no_failure() -> None:
    """`layerprof --help | true` says nothing of pipes and exits 0, as does a closed standard output."""
    gone = "r, w = os.pipe(); os.close(r); os.dup2(w, 1)"
    closed = "sys.stdout = None"
    for before in (gone, closed):
        done = _layerprof("--version", before=before)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_output_on_a_full_disk_is_told() -> None:
    """A redirected report that could not be written is one message and exit 1."""
    with Path("/dev/full").open("w") as full:
        done = _layerprof("--version", stdout=full)
    assert done.returncode == 1
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr
    assert "layerprof report RUN" in done.stderr


def test_what_must_end_is_not_interrupted() -> None:
    """A second Ctrl-C while files are written changes nothing; afterwards it works again."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with streams.uninterrupted():
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_document_under_an_old_encoding_is_utf_8() -> None:
    """What an ASCII stream cannot hold arrives as it would in a file, in the right order, and ends nothing."""
    raw = io.BytesIO()
    lasting = streams.Lasting(io.TextIOWrapper(raw, encoding="ascii"))
    lasting.write("plain ")
    lasting.writelines(["ü", " half \ud800", " plain"])
    lasting.flush()
    assert raw.getvalue().decode() == "plain ü half ? plain"
