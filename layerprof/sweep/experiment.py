"""Tables of base settings times axes, and the cells that they come to."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from layerprof import attention
from layerprof.errors import RequestError
from layerprof.sweep.cells import Cell

DEFAULT = "default"
"""What stands for a setting that a cell does not name."""
DEFAULT_TIMEOUT_S = 3600.0
MOST_CELLS = 100_000


@dataclass(frozen=True, slots=True)
class Table:
    """One table of an experiment: what is held, what is varied, and the file of figures that it is compared to."""

    name: str
    title: str
    about: str = ""
    base: dict[str, Any] = field(default_factory=dict)
    demo: dict[str, Any] = field(default_factory=dict)
    axes: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    skip: tuple[dict[str, Any], ...] = ()
    more: tuple[dict[str, Any], ...] = ()
    repeats: int = 1
    timeout_s: float = DEFAULT_TIMEOUT_S
    reference: Path | None = None
    reference_table: str | None = None


@dataclass(frozen=True, slots=True)
class Experiment:
    """One or more tables under a name."""

    name: str
    title: str
    about: str
    path: Path
    tables: tuple[Table, ...]


def cells(
    experiment: Experiment, overrides: Mapping[str, Any] | None = None, only: Mapping[str, Any] | None = None
) -> list[Cell]:
    """Return the experiment's cells in the order of the file, those of several tables once, first repeats first.

    `overrides` replace base settings (never an axis); `only` keeps the cells whose setting is, as text, among the
    values. Raises RequestError for an override of an axis, an unknown setting or attention, and an `only` that leaves
    nothing.
    """
    overrides = dict(overrides or {})
    _check_overrides(experiment, overrides)
    _check_number(experiment)
    found: dict[str, Cell] = {}
    for table in experiment.tables:
        for cell in _of_table(table, overrides):
            known = found.get(cell.request)
            found[cell.request] = known.joined(cell) if known else cell
    if not found:
        raise RequestError(
            f"{experiment.path} has no cells: [[skip]] leaves out every combination of its axes.",
            "Take a rule out of [[skip]], or add a value to an axis.",
        )
    kept = _only(list(found.values()), dict(only or {}))
    return sorted(kept, key=lambda cell: cell.repeat)


def _of_table(table: Table, overrides: dict[str, Any]) -> Iterator[Cell]:
    for repeat in range(table.repeats):
        for point in _points(table):
            demo = {name: value for name, value in table.demo.items() if name not in point and name not in overrides}
            yield Cell(
                choices=table.base | overrides | point,
                demo=demo,
                repeat=repeat,
                timeout_s=table.timeout_s,
                points={table.name: (point,)},
            )


def _points(table: Table) -> Iterator[dict[str, Any]]:
    if table.axes or not table.more:
        for values in itertools.product(*table.axes.values()):
            point = dict(zip(table.axes, values, strict=True))
            if not any(_matches(rule, table.base | point) for rule in table.skip):
                yield point
    yield from table.more


def _matches(rule: Mapping[str, Any], choices: Mapping[str, Any]) -> bool:
    return all(choices.get(name) in (value if isinstance(value, list) else [value]) for name, value in rule.items())


def _check_overrides(experiment: Experiment, overrides: Mapping[str, Any]) -> None:
    for name in overrides:
        for table in experiment.tables:
            if name in table.axes:
                raise RequestError(
                    f"{name} is an axis of the table '{table.name}', so it cannot be set for all of its cells.",
                    f"Choose among its values with --only {name}=VALUE, or edit the experiment file.",
                )


def _check_number(experiment: Experiment) -> None:
    number = sum(
        table.repeats * (math.prod(len(values) for values in table.axes.values()) + len(table.more))
        for table in experiment.tables
    )
    if number > MOST_CELLS:
        raise RequestError(
            f"{experiment.path} has {number:,} cells, which no sweep gets through.",
            f"Give fewer repeats or values; {MOST_CELLS:,} is the most.",
        )


def _only(found: list[Cell], wanted: Mapping[str, Any]) -> list[Cell]:
    for name, values in wanted.items():
        there = {_as_text(name, cell.choices.get(name)) for cell in found}
        asked = {_as_text(name, value) for value in values}
        found = [cell for cell in found if _as_text(name, cell.choices.get(name)) in asked]
        if not found:
            listed = ", ".join(sorted(there))
            raise RequestError(f"No cell has {name}={','.join(values)}.", f"The cells left have {name}: {listed}.")
    return found


def _as_text(name: str, value: Any) -> str:
    """Return a setting's value in the one way in which it is written."""
    if name == "attention" and value not in (None, DEFAULT):
        return str(attention.parse(value))
    return str(value).lower() if isinstance(value, bool) else DEFAULT if value is None else str(value)
