"""What an engine is: the cells that it is given, what it answers, and who is told meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from layerprof.sweep.cells import Cell, Identity, Outcome, Status


@dataclass(frozen=True, slots=True)
class Job:
    """A cell to carry out: who it is, and the folder that its run goes into."""

    key: str
    identity: Identity
    repeat: int
    timeout_s: float
    folder: Path
    label: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A cell that could not be identified: the problem, and what to do about it."""

    status: Status
    reason: str
    remedy: str = ""


class Watcher(Protocol):
    """Who is told how a sweep goes."""

    def started(self, job: Job) -> None:
        """Say that a cell has begun."""

    def told(self, job: Job, text: str) -> None:
        """Say what a cell is doing."""


class Engine(Protocol):
    """Carries out cells; used in a `with`, at whose end nothing it started is left."""

    def __enter__(self) -> Engine: ...

    def __exit__(self, *error: object) -> None: ...

    def identify(self, cells: Sequence[Cell]) -> list[Identity | Refusal]:
        """Return who each cell is, or why it cannot be carried out.

        Raises LayerprofError when the engine itself fails.
        """

    def run(self, jobs: Sequence[Job], watcher: Watcher) -> Iterator[tuple[Job, Outcome]]:
        """Yield each job with what became of it, as it ends. The run's files are in the job's folder by then."""
