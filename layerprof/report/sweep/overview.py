"""A sweep read from its folder, and what holds for all of it: facts, problems, guards that struck."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerprof.records import Run
from layerprof.report.sweep.pairs import Pairs
from layerprof.sweep.cells import Outcome, Status, SweepRecord
from layerprof.sweep.folder import SweepFolder

NOT_MEASURED = "not measured yet"


@dataclass(frozen=True, slots=True)
class SweepData:
    """A sweep read from its folder: what was planned, and each cell's outcome and run by key."""

    folder: Path
    record: SweepRecord
    outcomes: dict[str, Outcome]
    runs: dict[str, Run]
    pairs: Pairs


def load(path: str | Path) -> SweepData:
    """Read a sweep's folder. Raises RequestError when it holds none or a file is broken."""
    place = Path(path).expanduser()
    folder = SweepFolder(place if place.is_dir() else place.parent)
    record = folder.record()
    outcomes = {cell.key: outcome for cell in record.cells if (outcome := folder.outcome(cell.key)) is not None}
    done = [key for key, outcome in outcomes.items() if outcome.status is Status.DONE]
    runs = {key: run for key in done if (run := folder.run(key)) is not None}
    return SweepData(folder.path, record, outcomes, runs, Pairs(folder))


def problems(data: SweepData) -> list[tuple[str, str, str]]:
    """Return (cell, how it ended, reason) of the cells that have no figures, in order."""
    found = []
    for cell in data.record.cells:
        outcome = data.outcomes.get(cell.key)
        if outcome is None:
            found.append((_where(cell.points), NOT_MEASURED, "the sweep was stopped; go on with --resume"))
        elif outcome.status is not Status.DONE:
            found.append((_where(cell.points), outcome.status.value, outcome.reason or ""))
    return found


def flagged(data: SweepData) -> list[tuple[str, str]]:
    """Return (cells, what is wrong) for every guard that struck; cells with the same finding together."""
    found: dict[str, list[str]] = {}
    for cell in data.record.cells:
        outcome = data.outcomes.get(cell.key)
        for flag in outcome.guards.flags if outcome and outcome.guards else ():
            found.setdefault(flag, []).append(_where(cell.points))
    return [("; ".join(cells), flag) for flag, cells in found.items()]


def facts(data: SweepData) -> list[str]:
    """Return what holds for all of the sweep, a few words each: counts, model, device, versions, time."""
    record, done = data.record, len(data.runs)
    words = [f"{done} of {len(record.cells)} cells measured"]
    for name, values in _common(data).items():
        words.append(f"{name} {values}" if name not in ("model", "device") else values)
    if record.cells_s and record.wall_s:
        around = record.wall_s - record.cells_s  # below 0 where cells ran side by side
        share = f", {100 * around / record.wall_s:.1f} % of it around the cells" if around >= 0 else ""
        words.append(f"{record.wall_s:.0f} s{share}")
    return words


def _common(data: SweepData) -> dict[str, str]:
    found: dict[str, str] = {}
    readers: tuple[tuple[str, Callable[[Run], Any]], ...] = (
        ("model", lambda run: run.model.get("name")),
        ("device", lambda run: run.environment.get("device_name")),
        ("dtype", lambda run: run.settings.get("dtype")),
        ("torch", lambda run: run.environment.get("torch")),
        ("transformers", lambda run: run.environment.get("transformers")),
    )
    for label, read in readers:
        values = sorted({str(value) for run in data.runs.values() if (value := read(run)) is not None})
        if values:
            found[label] = " and ".join(values)
    return found


def _where(points: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    places = []
    for table, where in points.items():
        for point in where:
            words = ", ".join(f"{name} {value}" for name, value in point.items())
            places.append(f"{table}: {words}" if words else table)
    return "; ".join(places)
