"""How long work is shown: a Rich bar with time left on a terminal, plain lines elsewhere, nothing from Python."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Progress(Protocol):
    """What a conductor tells its audience."""

    def note(self, text: str) -> None:
        """Say one thing that the user should know now."""

    def stage(self, title: str, total: int) -> AbstractContextManager[Callable[[], None]]:
        """Return a context manager for work of `total` steps; call what it yields after each step."""


class Silent:
    """Says nothing; the default when layerprof is called from Python."""

    def note(self, text: str) -> None:
        """Swallow the note."""

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Callable[[], None]]:
        """Count nothing."""
        yield lambda: None


class Plain:
    """One line when a stage ends; for logs, pipes and `--quiet`."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self.write = write

    def note(self, text: str) -> None:
        """Print the note on its own line."""
        self.write(text)

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Callable[[], None]]:
        """Print the title with the steps done and the seconds they took, also when the stage is cut short."""
        done = 0
        start = time.perf_counter()

        def advance() -> None:
            nonlocal done
            done += 1

        try:
            yield advance
        finally:
            self.write(f"{title}: {done}/{total} in {time.perf_counter() - start:.1f} s")


class Bars:
    """A Rich bar per stage, with time elapsed and time left."""

    def __init__(self, console: object) -> None:
        from rich.console import Console

        assert isinstance(console, Console)
        self.console = console

    def note(self, text: str) -> None:
        """Print the note above the bars."""
        self.console.print(text, highlight=False, markup=False)

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Callable[[], None]]:
        """Show the bar while the stage runs and leave its line behind."""
        from rich import progress

        columns = (
            progress.TextColumn("{task.description:<24}"),
            progress.BarColumn(bar_width=None),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            progress.TextColumn("left"),
            progress.TimeRemainingColumn(),
        )
        with progress.Progress(*columns, console=self.console) as bar:
            task = bar.add_task(title, total=total)
            yield lambda: bar.advance(task)
