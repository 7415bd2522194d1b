"""Processes that a test starts: they take signals as at a terminal, and none outlives its test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

AS_AT_A_TERMINAL = (
    sys.executable,
    "-c",
    "import os, signal, sys\n"
    "for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):\n"
    "    signal.signal(number, signal.SIG_DFL)\n"
    "os.execvp(sys.argv[1], sys.argv[1:])",
)
"""A shell starts what it puts into the background with SIGINT ignored, and children inherit that."""


@contextmanager
def started(command: Sequence[str | Path], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Start a command in a session of its own; on leaving, end it and all that came from it, whatever happened.

    The process has the command's own number: what starts it makes way for it.
    """
    running = subprocess.Popen([*AS_AT_A_TERMINAL, *command], text=True, start_new_session=True, **options)
    try:
        yield running
    finally:
        for pid in (*descendants(running.pid), running.pid):
            kill(pid)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(running.pid, signal.SIGKILL)
        running.communicate()


def kill(pid: int) -> None:
    """End a process if it is there."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def descendants(pid: int) -> list[int]:
    """Return the processes that came from this one, as far as their parents still live."""
    parents: dict[int, int] = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The name in brackets may hold anything; the state and the parent's number follow it.
            parents[int(file.parent.name)] = int(file.read_text().rpartition(")")[2].split()[1])
    found, fresh = [], [pid]
    while fresh:
        fresh = [child for child, parent in parents.items() if parent in fresh]
        found += fresh
    return found


def end_all_with(variable: str, value: str) -> None:
    """End the processes that were started with this variable in their environment, also those whose parents ended."""
    mark = f"{variable}={value}".encode()
    for file in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark in file.read_bytes().split(b"\0") and int(file.parent.name) != os.getpid():
                kill(int(file.parent.name))


def gone(pid: int) -> bool:
    """Tell whether a process has ended; one that nobody has waited for has, too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("Z", "X")
    except OSError:
        return True
