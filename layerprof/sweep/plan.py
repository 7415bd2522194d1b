"""The plan of a sweep: each different cell once, who it is, and what is there already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from layerprof.errors import RequestError
from layerprof.sweep.cells import LOADED_BY, Cell, Identity, Outcome, Status, unidentified_key
from layerprof.sweep.engines.engine import Engine, Refusal
from layerprof.sweep.folder import SweepFolder


@dataclass(frozen=True, slots=True)
class Step:
    """A cell of this sweep: who it is (or why it cannot be), under which key, and what became of it before."""

    cell: Cell
    key: str
    who: Identity | Refusal
    before: Outcome | None = None

    @property
    def cached(self) -> bool:
        """Whether there is nothing left to do."""
        return self.before is not None


def plan(cells: Sequence[Cell], engine: Engine, folder: SweepFolder | None, *, retry: bool = False) -> list[Step]:
    """Return one step for each different cell, in the order in which they are carried out.

    Cells that resolve to the same run are joined. Repeats go round by round, so that a drift of the machine falls on
    all cells alike; within a round, cells that share a model follow each other.
    """
    found: dict[str, Step] = {}
    for cell, who in zip(cells, engine.identify(cells), strict=True):
        key = who.key(cell.repeat) if isinstance(who, Identity) else unidentified_key(cell)
        if key in found:
            known = found[key]
            found[key] = Step(known.cell.joined(cell), key, who, known.before)
            continue
        before = folder.outcome(key) if folder and isinstance(who, Identity) else None
        if before and retry and before.status not in (Status.DONE, Status.SKIPPED):
            before = None
        found[key] = Step(cell, key, who, before)
    order: dict[str, int] = {}
    for step in found.values():
        order.setdefault(_model(step), len(order))
    return sorted(found.values(), key=lambda step: (step.cell.repeat, order[_model(step)]))


def _model(step: Step) -> str:
    """Return what two cells must have in common to share a loaded model, as text."""
    if isinstance(step.who, Refusal):
        return ""
    return "|".join(str(step.who.choices.get(name)) for name in LOADED_BY)


def refuse_if_all_are_wrong(steps: Sequence[Step]) -> None:
    """Raise what stands in every cell's way, if it is the same for all: then the request is wrong, not the cells.

    Raises RequestError.
    """
    refusals = {step.who for step in steps if isinstance(step.who, Refusal)}
    if len(refusals) == 1 and all(isinstance(step.who, Refusal) for step in steps):
        refusal = refusals.pop()
        raise RequestError(refusal.reason, refusal.remedy or "See `layerprof doctor` for what this machine can do.")
