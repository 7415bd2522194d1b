"""Experiment -> cells -> results in a folder: conducts one sweep, and goes on with one that was stopped."""

from __future__ import annotations

import contextlib
import datetime
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerprof.errors import RequestError
from layerprof.runs import store
from layerprof.sweep import earlier_report, experiment_file
from layerprof.sweep.audience import Show
from layerprof.sweep.cells import (
    Identity,
    Outcome,
    PlannedCell,
    PlannedTable,
    Status,
    SweepRecord,
)
from layerprof.sweep.engines.choose import open_engine
from layerprof.sweep.engines.engine import Engine, Job
from layerprof.sweep.experiment import Experiment, Table
from layerprof.sweep.experiment import cells as cells_of
from layerprof.sweep.folder import SWEEP_FILE, SweepFolder
from layerprof.sweep.plan import Step, plan, refuse_if_all_are_wrong


@dataclass(frozen=True, slots=True)
class Sweep:
    """A finished sweep: its folder, `sweep.json`, and every cell's outcome by key."""

    folder: Path
    record: SweepRecord
    outcomes: dict[str, Outcome]

    @property
    def failed(self) -> list[Outcome]:
        """Cells that started and did not get to their end."""
        fine = (Status.DONE, Status.SKIPPED)
        return [outcome for outcome in self.outcomes.values() if outcome.status not in fine]


def sweep(
    path: str | Path,
    *,
    runner: str,
    output: str | Path | None = None,
    resume: bool = False,
    retry: bool = False,
    engine: str = "local",
    overrides: Mapping[str, Any] | None = None,
    only: Mapping[str, Any] | None = None,
    timeout_s: float | None = None,
    show: Show | None = None,
    **options: Any,
) -> Sweep:
    """Carry out an experiment file and return the finished sweep.

    `runner` names what carries out a cell, as `package.module:Class` (`worker.Runner`), since workers import it anew.
    `resume` goes on in a folder that holds a sweep: finished cells are kept, whatever became of them; `retry` measures
    those again that failed, crashed, timed out or ran out of memory. `options` go to the engine. A cell that fails is
    a result, and the sweep goes on.

    Raises RequestError when the experiment, the folder or every single cell is wrong, and RunFailedError when the
    engine itself fails. An interrupt leaves every finished cell in the folder.
    """
    show = show or Show()
    experiment = experiment_file.load(path)
    cells = cells_of(experiment, overrides, only)
    folder = _open_folder(experiment, output, resume)
    with folder.locked(), folder.kept_if_planned():
        folder.sweep_up()
        with open_engine(engine, folder=folder.path, runner=runner, **options) as opened:
            start = time.monotonic()
            steps = plan(cells, opened, folder, retry=retry)
            refuse_if_all_are_wrong(steps)
            record = _record(experiment, steps, overrides or {}, folder)
            folder.write_record(record)
            try:
                spent = _conduct(opened, steps, folder, show, timeout_s)
            except KeyboardInterrupt:
                show.note(_interrupted(path, steps, folder))
                raise
            finally:
                wall = record.wall_s + time.monotonic() - start
                done = sum(outcome.seconds for step in steps if (outcome := folder.outcome(step.key)))
                record = record.model_copy(update={"wall_s": wall, "cells_s": done})
                folder.write_record(record)
            show.note(_closing(spent, time.monotonic() - start, len(steps)))
    return Sweep(folder.path, record, _outcomes(folder, record))


def dry_run(
    path: str | Path,
    *,
    runner: str,
    output: str | Path | None = None,
    engine: str = "local",
    overrides: Mapping[str, Any] | None = None,
    only: Mapping[str, Any] | None = None,
    **options: Any,
) -> list[Step]:
    """Return the cells that a sweep would have, with what is already there; nothing is measured or written."""
    experiment = experiment_file.load(path)
    cells = cells_of(experiment, overrides, only)
    with open_engine(engine, runner=runner, **options) as opened:
        return plan(cells, opened, SweepFolder(output) if output else _newest(experiment))


def _conduct(engine: Engine, steps: Sequence[Step], folder: SweepFolder, show: Show, timeout_s: float | None) -> float:
    """Carry out what is left; return the seconds spent in cells."""
    spent = 0.0
    with show.cells(len(steps), sum(step.cached for step in steps)):
        for job, outcome in _ended(engine, steps, folder, show, timeout_s):
            dated = outcome.model_copy(update={"finished": _now()})
            folder.commit(dated)
            spent += outcome.seconds
            show.ended(job, dated, folder.run(job.key) if outcome.status is Status.DONE else None)
    return spent


def _ended(
    engine: Engine, steps: Sequence[Step], folder: SweepFolder, show: Show, timeout_s: float | None
) -> Iterator[tuple[Job, Outcome]]:
    jobs = []
    for step in steps:
        if step.cached:
            continue
        where = folder.clear(step.key)
        if isinstance(step.who, Identity):
            limit = timeout_s or step.cell.timeout_s
            jobs.append(Job(step.key, step.who, step.cell.repeat, limit, where, step.cell.label))
        else:
            refused = Outcome(key=step.key, status=step.who.status, reason=step.who.reason, repeat=step.cell.repeat)
            yield _nobody(step, where), refused
    if jobs:
        with contextlib.closing(engine.run(jobs, show)) as running:  # type: ignore[type-var]  # engines' run() are generators
            yield from running


def _nobody(step: Step, where: Path) -> Job:
    nothing = Identity(choices=step.cell.choices, model={}, data={}, device="", versions={})
    return Job(step.key, nothing, step.cell.repeat, 0.0, where, step.cell.label)


# --- the folder -------------------------------------------------------------------------------------------------


def _open_folder(experiment: Experiment, output: str | Path | None, resume: bool) -> SweepFolder:
    if output is None:
        newest = _newest(experiment) if resume else None
        if resume and newest is None:
            raise RequestError(
                f"There is no sweep of '{experiment.name}' in {store.DEFAULT_PARENT} to go on with.",
                "Give its folder with --output, or start one without --resume.",
            )
        return newest or SweepFolder(store.prepare_folder(None, experiment.name))
    place = Path(output).expanduser()
    if (place / SWEEP_FILE).is_file():
        if not resume:
            with SweepFolder(place).locked():  # a sweep that runs there is the better reason
                pass
            raise RequestError(
                f"The output folder {place} holds a sweep.",
                "Go on with it with --resume, or give --output a new folder.",
            )
        return SweepFolder(place)
    if resume and (place / "sweep.lock").is_file():  # killed before it had planned its cells
        return SweepFolder(place)
    return SweepFolder(store.prepare_folder(place))


def _newest(experiment: Experiment) -> SweepFolder | None:
    found = sorted(store.DEFAULT_PARENT.glob(f"*/{SWEEP_FILE}"), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in found:
        with contextlib.suppress(RequestError):
            if SweepFolder(file.parent).record().name == experiment.name:
                return SweepFolder(file.parent)
    return None


def _record(
    experiment: Experiment, steps: Sequence[Step], overrides: Mapping[str, Any], folder: SweepFolder
) -> SweepRecord:
    before: SweepRecord | None = None
    with contextlib.suppress(RequestError):
        before = folder.record()
    return SweepRecord(
        created=before.created if before else _now(),
        name=experiment.name,
        title=experiment.title,
        about=experiment.about,
        overrides=dict(overrides),
        tables=tuple(_planned(table) for table in experiment.tables),
        cells=tuple(
            PlannedCell(
                key=step.key,
                label=step.cell.label,
                choices=step.who.choices if isinstance(step.who, Identity) else step.cell.choices,
                repeat=step.cell.repeat,
                points=step.cell.points,
            )
            for step in steps
        ),
        wall_s=before.wall_s if before else 0.0,
    )


def _planned(table: Table) -> PlannedTable:
    rows, reasons = earlier_report.load(table.reference, table.reference_table)
    return PlannedTable(
        name=table.name,
        title=table.title,
        about=table.about,
        axes={name: list(values) for name, values in table.axes.items()},
        reference=rows,
        reasons=reasons,
    )


def _outcomes(folder: SweepFolder, record: SweepRecord) -> dict[str, Outcome]:
    found = {cell.key: folder.outcome(cell.key) for cell in record.cells}
    return {key: outcome for key, outcome in found.items() if outcome is not None}


def _interrupted(path: str | Path, steps: Sequence[Step], folder: SweepFolder) -> str:
    finished = sum(folder.outcome(step.key) is not None for step in steps)
    again = f"layerprof sweep {shlex.quote(str(path))} --resume --output {shlex.quote(str(folder.path))}"
    return f"Interrupted: {finished} of {len(steps)} cells are finished and kept. Go on with: {again}"


def _closing(spent: float, wall: float, cells: int) -> str:
    if spent > wall:  # side by side on a cluster
        return f"{cells} cells in {wall:.0f} s, {spent:.0f} s in cells."
    share = f", {100 * (wall - spent) / wall:.1f} % of it around the cells" if wall > 0 and spent > 0 else ""
    return f"{cells} cells in {wall:.0f} s{share}."


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
