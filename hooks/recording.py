"""One session of torch.profiler, and what has to be done around it so that none of its kernels is missing."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from layerprof.machine.internals import range_class
from layerprof.trace.events import WARM_UP

LEAST_WARM_UP = 64
"""Launches that are made at the start of a session for CUPTI to lose."""

QUIET, ERRORS_TOO = "99", "4"
"""Levels of kineto's own log: nothing, or errors. From 3 down it also tells each stage of each session."""

SESSIONS = {"cuda": 0, "cpu": 0}
"""How many this process has begun."""


def sessions(kind: str = "cuda") -> int:
    """Return how many sessions this process has begun: from the first on a GPU on, CUPTI stays attached to it."""
    return SESSIONS[kind]


class Recording:
    """A session: `start`, run what is to be recorded, `stop`, `export`.

    `devices` are the GPUs that the work runs on; none for work on a CPU. Where there are some, the session begins and
    ends with all of them idle, so that it is complete, and opens with launches that are part of nothing: kineto
    registers its clock with CUPTI anew in every session, whereupon CUPTI loses the first kernel records of the session,
    one more in each (pytorch issue 192021). `warm_up=False` leaves them out, to see what is lost.
    """

    def __init__(self, devices: Sequence[str] = (), *, warm_up: bool = True) -> None:
        self.devices = tuple(devices)
        self.warm_up = warm_up
        self._marks: list[Any] = []
        self._profiler: Any = None

    def start(self) -> None:
        """Begin to record."""
        kind = "cuda" if self.devices else "cpu"
        _set_log_level(kind)
        self._marks = [_mark(device) for device in self.devices] if self.warm_up else []
        self.synchronize()
        self._profiler = _profiler(kind)
        with warnings.catch_warnings():
            # It says that a session's events are gone after the next one began; each is exported before that.
            warnings.filterwarnings("ignore", message=".*Profiler clears events at the end of each cycle")
            self._profiler.start()
        SESSIONS[kind] += 1
        self._lose_some()

    def _lose_some(self) -> None:
        if not self._marks:
            return
        with range_class()(WARM_UP):
            for mark in self._marks:
                # The count of records that a session loses is about its number in the process.
                for _ in range(max(LEAST_WARM_UP, 2 * sessions())):
                    mark.add_(1)
        self.synchronize()

    def stop(self) -> None:
        """End the recording. No event becomes a Python object: for 300 000 of them that takes half a minute."""
        self._profiler.stop()

    def export(self, path: str | Path) -> None:
        """Write the session as a Chrome trace."""
        self._profiler.export_chrome_trace(str(path))

    def synchronize(self) -> None:
        """Wait for every GPU of the session; torch's current one may be another."""
        if self.devices:
            import torch

            for device in self.devices:
                torch.cuda.synchronize(device)


def _mark(device: str) -> Any:
    import torch

    return torch.zeros(1, device=device)


def _profiler(kind: str) -> Any:
    from torch.profiler import ProfilerActivity, profile

    return profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if kind == "cuda" else [])])


def _set_log_level(kind: str) -> None:
    """Let kineto tell of CUPTI's errors on a GPU; without one it would print an "ERROR" at every start."""
    if os.environ.get("KINETO_LOG_LEVEL") in (None, QUIET):  # anything else is the user's choice
        os.environ["KINETO_LOG_LEVEL"] = ERRORS_TOO if kind == "cuda" else QUIET
