"""Who is told how a sweep goes. What a person sees of it is handed in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from layerprof.sweep.cells import Outcome

if TYPE_CHECKING:
    from layerprof.records import Run
    from layerprof.sweep.engines.engine import Job


class Show:
    """Tells one audience how a sweep goes; the base says nothing."""

    def note(self, text: str) -> None:
        """Say one thing that the user should know now."""

    @contextmanager
    def cells(self, total: int, done: int) -> Iterator[None]:
        """Hold while `total` cells are carried out, `done` of which already were."""
        yield

    def started(self, job: Job) -> None:
        """Say that a cell has begun."""

    def told(self, job: Job, text: str) -> None:
        """Say what a cell is doing."""

    def ended(self, job: Job, outcome: Outcome, run: Run | None) -> None:
        """Say how a cell ended."""
