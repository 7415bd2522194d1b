"""A sweep on disk: `sweep.json`, and under `cells/` one folder a cell.

`cell.json` is written last: where it is, the cell is finished.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from layerprof.errors import RequestError, RunFailedError
from layerprof.records import Record, Run
from layerprof.runs import store
from layerprof.sweep.cells import Outcome, SweepRecord

SWEEP_FILE = "sweep.json"
CELL_FILE = "cell.json"
LOCK_FILE = "sweep.lock"
LOG_FILE = "worker.log"
CELLS = "cells"

R = TypeVar("R", bound=Record)


def is_sweep(path: str | Path) -> bool:
    """Tell whether a folder (or its `sweep.json`) holds a sweep."""
    place = Path(path).expanduser()
    return (place / SWEEP_FILE).is_file() or (place.name == SWEEP_FILE and place.is_file())


def load(path: str | Path) -> SweepRecord:
    """Return the sweep in a folder or its `sweep.json`. Raises RequestError when there is none or it is broken."""
    place = Path(path).expanduser()
    return SweepFolder(place.parent if place.name == SWEEP_FILE else place).record()


class SweepFolder:
    """The folder of one sweep."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process. Raises RequestError while another sweep holds it, or where nothing can.

        The system lets go of the lock when its process ends, however it ends, so that a dead sweep blocks nobody; a
        lock of another kind, which filelock would take where the file system knows none, might outlive it.
        """
        import filelock

        file = self.path / LOCK_FILE
        try:
            held = filelock.FileLock(file, fallback_to_soft=False).acquire(blocking=False)
        except filelock.Timeout:
            raise RequestError(
                f"A sweep is running in {self.path} ({_holder(file)}).",
                "Wait for it or stop it, or give another folder with --output.",
            ) from None
        except OSError as error:
            raise RequestError(
                f"The folder {self.path} cannot be held for a sweep: {error.strerror or error}.",
                "Give a folder on another file system, or one that may be written to, with --output.",
            ) from error
        with held:
            file.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
            yield

    @contextmanager
    def kept_if_planned(self) -> Iterator[None]:
        """Remove a new folder again when an error or an interrupt comes before `sweep.json`.

        A request that came to nothing leaves nothing behind.
        """
        try:
            yield
        except BaseException:
            if not (self.path / SWEEP_FILE).is_file():
                for name in (LOCK_FILE, LOG_FILE):
                    (self.path / name).unlink(missing_ok=True)
                store.discard_folder(self.path)
            raise

    def record(self) -> SweepRecord:
        """Return `sweep.json`. Raises RequestError."""
        return _read(self.path / SWEEP_FILE, SweepRecord, "sweep")

    def write_record(self, record: SweepRecord) -> None:
        """Write `sweep.json`."""
        self._write(self.path / SWEEP_FILE, record)

    def cell_folder(self, key: str) -> Path:
        """Return where a cell's run lies."""
        return self.path / CELLS / key

    def outcome(self, key: str) -> Outcome | None:
        """Return what became of a cell; None while it is not finished."""
        file = self.cell_folder(key) / CELL_FILE
        return _read(file, Outcome, "cell") if file.is_file() else None

    def run(self, key: str) -> Run | None:
        """Return a cell's run; None when it has none (it was skipped, it crashed)."""
        folder = self.cell_folder(key)
        return store.load(folder) if (folder / store.RUN_FILE).is_file() else None

    def clear(self, key: str) -> Path:
        """Return a cell's folder, empty: what an unfinished attempt left in it is gone."""
        folder = self.cell_folder(key)
        # The mark goes first: a kill in the midst of removing must not leave a finished cell without its run.
        (folder / CELL_FILE).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def commit(self, outcome: Outcome) -> None:
        """Mark a cell as finished: from here on it is not repeated. Raises RunFailedError when the disk refuses."""
        self.cell_folder(outcome.key).mkdir(parents=True, exist_ok=True)
        self._write(self.cell_folder(outcome.key) / CELL_FILE, outcome)

    def sweep_up(self) -> None:
        """Remove the folders of cells that were not finished, for which a killed sweep had no time."""
        for folder in (self.path / CELLS).glob("*"):
            if folder.is_dir() and not (folder / CELL_FILE).is_file():
                shutil.rmtree(folder, ignore_errors=True)
        for part in self.path.glob(".*.part"):
            with suppress(OSError):
                part.unlink()

    def _write(self, file: Path, record: Record) -> None:
        try:
            store.write_atomic(file, record.model_dump_json(indent=2).encode() + b"\n")
        except OSError as error:
            raise RunFailedError(
                f"{file} could not be written: {error.strerror or error}.",
                "Free space, then go on with --resume; what was finished before is kept.",
            ) from error


def _holder(lock: Path) -> str:
    """Return who wrote a name into a lock's file."""
    with suppress(OSError):
        return lock.read_text(encoding="utf-8").strip() or "another process"
    return "another process"


def _read(file: Path, kind: type[R], name: str) -> R:
    try:
        return kind.model_validate_json(file.read_bytes())
    except OSError as error:
        raise RequestError(
            f"There is no {name} at {file.parent}: {error.strerror or error}.",
            "Give the folder that `layerprof sweep` printed at its end.",
        ) from None
    except ValidationError as error:
        raise RequestError(
            f"{file} does not hold a complete {name}: {error.errors()[0]['msg'].lower()}.",
            "Take the file as layerprof wrote it, or run the sweep again.",
        ) from None
