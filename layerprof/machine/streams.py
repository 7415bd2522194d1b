"""Standard output and error that outlive their readers, and signals that end a run like Ctrl-C.

`layerprof profile | head` must not lose a measurement because nobody reads its lines any more, nor because the disk
under a redirected output is full; and a job that a cluster stops (SIGTERM) saves what it has finished.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any, TextIO, cast


class Lasting:
    """A text stream that swallows what can no longer be written; `trouble` says why, after the first failure."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.trouble: OSError | None = None

    def write(self, text: str) -> int:
        """Write the text, or drop it once the stream has failed."""
        if self.trouble is None:
            try:
                self._write(text)
            except OSError as error:
                self._lose(error)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write one text after the other."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Hand on what is buffered, or drop it."""
        if self.trouble is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._lose(error)

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
        except UnicodeEncodeError:  # a document under an old encoding is UTF-8, as it would be in a file
            self._stream.flush()
            self._stream.buffer.write(text.encode("utf-8", "replace"))

    def _lose(self, error: OSError) -> None:
        self.trouble = error
        # What is still buffered would fail again when the interpreter ends, with a message of its own.
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def lasting() -> Iterator[Lasting]:
    """Make both standard streams lasting for the length of the block, and yield the output. A closed one is a sink."""
    out, err = (Lasting(stream or _sink()) for stream in (sys.stdout, sys.stderr))
    with redirect_stdout(cast(TextIO, out)), redirect_stderr(cast(TextIO, err)):
        yield out


def _sink() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")


@contextmanager
def stopped_like_an_interrupt() -> Iterator[None]:
    """Raise KeyboardInterrupt in the block on SIGTERM and SIGHUP, where nobody has asked for something else."""
    with _handled((signal.SIGTERM, signal.SIGHUP), signal.default_int_handler, (signal.SIG_DFL,)):
        yield


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let the block end whatever is pressed: for the second or so in which files are written."""
    ours = (signal.SIG_DFL, signal.default_int_handler)
    with _handled((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), signal.SIG_IGN, ours):
        yield


@contextmanager
def _handled(numbers: tuple[signal.Signals, ...], handler: Any, instead_of: tuple[Any, ...]) -> Iterator[None]:
    """Handle signals otherwise in the block, where their handler is one of `instead_of`; afterwards as before.

    Only the main thread may, so in any other nothing changes.
    """
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in numbers if main}
    taken = {number: old for number, old in before.items() if old in instead_of}
    for number in taken:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in taken.items():
            signal.signal(number, old)
