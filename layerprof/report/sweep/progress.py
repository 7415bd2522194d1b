"""How a sweep is shown while it goes: a bar with time left on a terminal, and one line for each cell that ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from layerprof.report import units
from layerprof.sweep.audience import Show
from layerprof.sweep.cells import Guards, Outcome, Status

if TYPE_CHECKING:
    from rich.console import Console

    from layerprof.records import Run
    from layerprof.sweep.engines.engine import Job


class Lines(Show):
    """One line a cell, with the time that the rest will take; for logs, pipes and `--quiet`."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self.write = write
        self.total = self.done = 0
        self.spent: list[float] = []

    def note(self, text: str) -> None:
        """Print the note."""
        self.write(text)

    @contextmanager
    def cells(self, total: int, done: int) -> Iterator[None]:
        """Start counting."""
        self.total, self.done = total, done
        yield

    def ended(self, job: Job, outcome: Outcome, run: Run | None) -> None:
        """Print the cell's line."""
        self.done += 1
        self.spent.append(outcome.seconds)
        left = left_s(self.spent, self.total - self.done)
        rest = f", {units.seconds(left)} left" if left else ""
        self.write(f"[{self.done}/{self.total}] {job.label}: {summary(outcome, run)}{rest}")


class Bar(Lines):
    """A Rich bar over the cells with time left, and above it one line for each cell that ended."""

    def __init__(self, console: Console) -> None:
        super().__init__(lambda text: console.print(text, highlight=False, markup=False))
        self.console = console
        self.bar: Any = None
        self.task: Any = None
        self.since = 0.0

    @contextmanager
    def cells(self, total: int, done: int) -> Iterator[None]:
        """Show the bar."""
        from rich import progress

        self.total, self.done = total, done
        columns = (
            progress.BarColumn(bar_width=24),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            progress.TextColumn("{task.fields[left]}"),
            progress.TextColumn("{task.description}", markup=False),
        )
        with progress.Progress(*columns, console=self.console) as self.bar:
            self.task = self.bar.add_task("", total=total, completed=done, left="")
            yield

    def started(self, job: Job) -> None:
        """Show which cell is under way."""
        self.since = time.monotonic()
        self.bar.update(self.task, description=job.label)

    def told(self, job: Job, text: str) -> None:
        """Show what it is doing."""
        self.bar.update(self.task, description=f"{job.label}: {text}")

    def ended(self, job: Job, outcome: Outcome, run: Run | None) -> None:
        """Print the cell's line and move the bar."""
        super().ended(job, outcome, run)
        left = left_s(self.spent, self.total - self.done)
        self.bar.update(self.task, completed=self.done, left=f"{units.seconds(left)} left" if left else "")


def left_s(spent: Sequence[float], cells: int) -> float:
    """Return the seconds that the cells left will take if they take what the ended ones took; 0 while nothing ended."""
    return sum(spent) / len(spent) * cells if spent else 0.0


def summary(outcome: Outcome, run: Run | None) -> str:
    """Return a cell's result on one line: main figures and guards, or why there are none."""
    if outcome.status is not Status.DONE or run is None:
        return f"{outcome.status.value}: {outcome.reason}"
    totals = run.totals
    energy = totals.energy.per_sample
    parts = [
        f"WER {totals.wer.corpus_min:.3f}" if totals.wer and totals.wer.corpus_min is not None else "",
        f"{units.seconds(totals.latency_s.per_batch.median)} a batch",
        f"{units.joules(energy)} a sample" if energy is not None else "",
        f"{units.bound(units.flops(totals.flops_per_sample), totals.flops_at_least)} a sample"
        if totals.flops_per_sample
        else "",
        guards_text(outcome.guards),
        f"took {units.seconds(outcome.seconds)}",
    ]
    return ", ".join(part for part in parts if part)


def guards_text(guards: Guards | None) -> str:
    """Return the guards in a few words, what is wrong first."""
    if guards is None:
        return ""
    parts = [
        f"same alone {units.percent(guards.batch_invariant)}" if guards.batch_invariant is not None else "",
        f"cut short {units.percent(guards.truncated_share)}" if guards.truncated_share is not None else "",
        f"{guards.hypothesis_words:.1f} words" if guards.hypothesis_words is not None else "",
        f"padding {units.percent(guards.padding_share)}" if guards.padding_share is not None else "",
    ]
    found = f"({', '.join(part for part in parts if part)})"
    return f"CHECK: {'; '.join(guards.flags)} {found}" if guards.flags else f"guards ok {found}"
