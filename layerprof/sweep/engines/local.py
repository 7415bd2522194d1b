"""One worker process on this machine, kept from cell to cell so that a model is loaded once; replaced when it dies."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from layerprof.errors import RunFailedError
from layerprof.sweep.cells import Cell, Guards, Identity, Outcome, Status
from layerprof.sweep.engines.engine import Job, Refusal, Watcher
from layerprof.sweep.folder import LOG_FILE

START_TIMEOUT_S = 300.0
IDENTIFY_TIMEOUT_S = 900.0


class WorkerDiedError(Exception):
    """The worker process ended by itself; the message says how."""


class LocalEngine:
    """Cells one after the other, since two at once on one machine would disturb each other's time and energy."""

    def __init__(self, folder: Path | None, runner: str) -> None:
        self.folder = folder
        self.runner = runner
        self.worker: Worker | None = None

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def identify(self, cells: Sequence[Cell]) -> list[Identity | Refusal]:
        """Ask the worker who each cell is."""
        return [self._identity(cell) for cell in cells]

    def _identity(self, cell: Cell) -> Identity | Refusal:
        try:
            answer = self._alive().ask(
                {"do": "identify", "choices": cell.choices, "demo": cell.demo}, IDENTIFY_TIMEOUT_S, lambda _: None
            )
        except (WorkerDiedError, TimeoutError) as error:
            said = self.worker.log_tail() if self.worker else ""
            self._end()
            raise RunFailedError(
                f"The worker process cannot tell what the cells are: {error or 'it did not answer'}.{said}",
                "Try `layerprof profile` with the same settings; it shows the same failure in the open.",
            ) from None
        if refused := answer.get("error"):
            return Refusal(Status(refused["status"]), refused["reason"], refused["remedy"])
        return Identity.model_validate(answer["ok"])

    def run(self, jobs: Sequence[Job], watcher: Watcher) -> Iterator[tuple[Job, Outcome]]:
        """Carry the jobs out in order."""
        for job in jobs:
            watcher.started(job)
            start = time.monotonic()
            status, reason, guards = self._one(job, watcher)
            yield (
                job,
                Outcome(
                    key=job.key,
                    status=status,
                    reason=reason,
                    repeat=job.repeat,
                    identity=job.identity,
                    guards=guards,
                    seconds=time.monotonic() - start,
                    worker=socket.gethostname(),
                ),
            )

    def _one(self, job: Job, watcher: Watcher) -> tuple[Status, str | None, Guards | None]:
        request = {
            "do": "run",
            "identity": job.identity.model_dump(mode="json"),
            "repeat": job.repeat,
            "folder": str(job.folder),
        }
        worker = self._alive()
        try:
            answer = worker.ask(request, job.timeout_s, lambda text: watcher.told(job, text))
        except TimeoutError:
            self._end()
            return Status.TIMED_OUT, f"stopped after {job.timeout_s:g} s, the cell's limit", None
        except WorkerDiedError as error:
            reason = f"{error}{worker.log_tail()}"
            self._end()
            return Status.CRASHED, reason, None
        if answer.get("spent"):
            self._end()
        if failed := answer.get("error"):
            if failed["status"] == Status.OUT_OF_MEMORY:
                self._end()  # what is left of its memory is in pieces; the next cell gets a fresh process
            return Status(failed["status"]), failed["reason"], None
        return Status.DONE, None, Guards.model_validate(answer["ok"]) if answer["ok"] else None

    def _alive(self) -> Worker:
        if self.worker is None or not self.worker.alive:
            self._end()
            self.worker = Worker(self.runner, self.folder)
        return self.worker

    def _end(self) -> None:
        if self.worker is not None:
            self.worker.kill()
            self.worker = None


class Worker:
    """A worker process and the two pipes to it."""

    def __init__(self, runner: str, folder: Path | None) -> None:
        self.log: IO[bytes] = (folder / LOG_FILE).open("ab+") if folder else tempfile.TemporaryFile()  # noqa: SIM115  # open as long as the process
        self.log_start = self.log.seek(0, os.SEEK_END)
        self.process = subprocess.Popen(
            # -P: files of the current folder hide no package
            [sys.executable, "-P", "-m", "layerprof.sweep.worker", runner],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            encoding="utf-8",
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            # An interrupt at the terminal is the sweep's to handle, and a kill takes the whole group.
            start_new_session=True,
        )
        self.ready = False
        self.lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self.process.poll() is None

    def ask(self, request: dict[str, Any], timeout_s: float, tell: Callable[[str], None]) -> dict[str, Any]:
        """Return the worker's answer. Raises TimeoutError, or WorkerDiedError when it ended without one."""
        assert self.process.stdin is not None
        if not self.ready:  # starting up is not the cell's time
            self._next(time.monotonic() + START_TIMEOUT_S)
            self.ready = True
        deadline = time.monotonic() + timeout_s
        with suppress(BrokenPipeError):  # it died between two cells; the end of its answers tells how
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        while "tell" in (answer := self._next(deadline)):
            tell(answer["tell"])
        return answer

    def _next(self, deadline: float) -> dict[str, Any]:
        try:
            line = self.lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise TimeoutError from None
        if line is None:
            raise WorkerDiedError(_how_it_ended(self.process.wait()))
        answer: dict[str, Any] = json.loads(line)
        return answer

    def log_tail(self, most: int = 300) -> str:
        """Return the last line that the process wrote to its log, as `; it said: ...`; empty when it wrote nothing."""
        self.log.flush()
        self.log.seek(self.log_start)
        lines = self.log.read().decode("utf-8", "replace").strip().splitlines()
        return f"; it said last: {lines[-1].strip()[:most]}" if lines else ""

    def kill(self) -> None:
        """End the process and everything that it started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        self.log.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with suppress(ValueError, OSError):
            for line in self.process.stdout:
                self.lines.put(line)
        self.lines.put(None)


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"the process ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = ", as the system does when memory runs out" if -code == signal.SIGKILL else ""
    return f"the process was killed by {name}{hint}"
