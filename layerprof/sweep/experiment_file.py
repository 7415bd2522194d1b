"""An experiment file (TOML) -> tables of cells; every mistake names the file and the line.

A table is base settings times axes::

    title = "Batch size"
    include = ["other.toml"]        # instead of, or besides, own axes: the tables of other files
    repeats = 1                     # each cell so often, the repeats spread over the sweep
    timeout_s = 1800                # a cell that takes longer is stopped
    reference = "reference/cells.csv"
    reference_table = "1 batch size"

    [base]                          # the options of `layerprof profile`, with underscores
    samples = 300

    [demo]                          # laid over [base] where the model is the bundled one
    samples = 32

    [axes]                          # every combination is a cell
    batch_size = [1, 4, 8, 16]

    [[skip]]                        # combinations to leave out
    batch_size = [8, 16]
    image_size = 448

    [[cells]]                       # further cells, over [base]
    batch_size = 64

What is asked for later wins: base, demo, command line, axes.
"""

from __future__ import annotations

import itertools
import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from layerprof import settings
from layerprof.errors import RequestError, nearest, suggestion
from layerprof.sweep.cells import PADDING_SIDES, Cell

NOT_A_CELLS = ("output",)
CHOICES = (*(name for name in settings.Settings.model_fields if name not in NOT_A_CELLS), "padding_side")
TOP = {
    "name": str,
    "title": str,
    "about": str,
    "include": list,
    "repeats": int,
    "timeout_s": (int, float),
    "reference": str,
    "reference_table": str,
    "base": dict,
    "demo": dict,
    "axes": dict,
    "skip": list,
    "cells": list,
}
DEFAULT_TIMEOUT_S = 3600.0
MOST_CELLS = 100_000
_HOW = "docs/sweeps.md shows what an experiment file may hold."


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


def load(path: str | Path) -> Experiment:
    """Return the experiment in a TOML file.

    Raises RequestError, with file and line, for anything that no sweep could carry out, and for a missing file the
    nearest one beside it.
    """
    return _load(Path(path).expanduser(), ())


def cells(
    experiment: Experiment, overrides: Mapping[str, Any] | None = None, only: Mapping[str, Any] | None = None
) -> list[Cell]:
    """Return the experiment's cells in the order of the file, those of several tables once, first repeats first.

    `overrides` replace base settings (never an axis); `only` keeps the cells whose setting is, as text, among the
    values. Raises RequestError for an override of an axis, an unknown setting, and an `only` that leaves nothing.
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


def parse_assignments(pairs: list[str] | None, option: str) -> dict[str, tuple[str, ...]]:
    """Return `NAME=VALUE[,VALUE...]` pairs as they were typed.

    Raises RequestError for one without `=` or with an unknown name.
    """
    found: dict[str, tuple[str, ...]] = {}
    for pair in pairs or []:
        name, sign, values = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not sign or not values:
            raise RequestError(f"{option} {pair} is not of the form NAME=VALUE.", f"Write e.g. {option} batch_size=16.")
        if name not in CHOICES:
            raise settings.unknown_choice("setting", name, CHOICES)
        found[name] = (*found.get(name, ()), *(value.strip() for value in values.split(",")))
    return found


def typed(name: str, text: str) -> Any:
    """Return a setting's value from the command line as TOML would read it, or as text.

    Raises RequestError as `settings.build`.
    """
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    return checked(name, value)


def checked(name: str, value: Any) -> Any:
    """Return a setting's value as it is. Raises RequestError for one that no cell can have."""
    _check_choice(name, value)
    return value


# --- cells ------------------------------------------------------------------------------------------------------


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
        there = {_as_text(cell.choices.get(name)) for cell in found}
        found = [cell for cell in found if _as_text(cell.choices.get(name)) in values]
        if not found:
            listed = ", ".join(sorted(there))
            raise RequestError(f"No cell has {name}={','.join(values)}.", f"The cells left have {name}: {listed}.")
    return found


def _as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else "default" if value is None else str(value)


# --- the file ---------------------------------------------------------------------------------------------------


class _File:
    """A TOML file with the lines on which its keys stand, which the parser of the standard library does not tell."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise RequestError(f"{path} is not UTF-8 text: {error.reason}.", _HOW) from None
        except OSError as error:
            raise _missing(path, error) from None
        try:
            self.data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise RequestError(f"{path} is not TOML: {error}.", _HOW) from None
        self.lines = _lines(text)

    def wrong(self, where: tuple[str, ...], problem: str, remedy: str = _HOW) -> NoReturn:
        """Raise the error of the key at `where`, e.g. ("axes", "batch_size") or ("skip", "1", "image_size")."""
        line = next((self.lines[where[:n]] for n in range(len(where), 0, -1) if where[:n] in self.lines), 1)
        raise RequestError(f"{self.path}, line {line}: {problem}", remedy)


_HEADER = re.compile(r"^\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(#.*)?$")
_KEY = re.compile(r"^\s*([A-Za-z0-9_-]+|\"[^\"]+\"|'[^']+')\s*(?:\.\s*([A-Za-z0-9_-]+)\s*)?=")


def _lines(text: str) -> dict[tuple[str, ...], int]:
    """Return the first line of each table header and key."""
    lines: dict[tuple[str, ...], int] = {}
    here: tuple[str, ...] = ()
    seen: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            name = header[2].strip("\"'")
            here = (name,)
            lines.setdefault(here, number)
            if header[1] == "[[":
                here = (name, str(seen.get(name, 0)))
                seen[name] = seen.get(name, 0) + 1
                lines[here] = number
        elif key := _KEY.match(line):
            names = tuple(part.strip("\"'") for part in key.groups() if part)
            for depth in range(1, len(names) + 1):
                lines.setdefault((*here, *names[:depth]), number)
    return lines


def _missing(path: Path, error: OSError) -> RequestError:
    folder = path.parent
    there = sorted(file.name for file in folder.glob("*.toml")) if folder.is_dir() else []
    near = nearest(path.name, there) or nearest(f"{path.name}.toml", there)
    guess = suggestion(folder / name for name in near)
    return RequestError(
        f"The experiment {path} cannot be read: {error.strerror or error}.",
        f"{guess}Give a TOML file, e.g. experiments/batch_size.toml (docs/sweeps.md).",
    )


def _load(path: Path, within: tuple[Path, ...]) -> Experiment:
    file = _File(path)
    data = file.data
    _check_top(file)
    name = data.get("name", path.stem)
    included: list[Table] = []
    for entry in data.get("include", []):
        other = path.parent / str(entry)
        if path.resolve() in (one.resolve() for one in (*within, other)):
            file.wrong(("include",), f"'{entry}' includes this file again.", "Take it out of one of the two.")
        if not other.is_file():
            file.wrong(("include",), f"there is no file '{entry}' beside this one.")
        included += _load(other, (*within, path)).tables
    own = [] if included and not ({"base", "axes", "cells"} & data.keys()) else [_table(file, name)]
    tables = (*included, *own)
    double = [table.name for table in tables if [t.name for t in tables].count(table.name) > 1]
    if double:
        file.wrong(("include",), f"two tables have the name '{double[0]}'.", "Give one of them another `name`.")
    return Experiment(name, data.get("title", name), data.get("about", ""), path, tables)


def _check_top(file: _File) -> None:
    for key, value in file.data.items():
        if key not in TOP:
            error = settings.unknown_choice("key", key, tuple(TOP))
            file.wrong((key,), error.problem[0].lower() + error.problem[1:], error.remedy)
        if not isinstance(value, TOP[key]) or isinstance(value, bool):  # type: ignore[arg-type]  # a type or a tuple of them
            file.wrong((key,), f"'{key}' cannot be {value!r}.")
        if key in ("repeats", "timeout_s") and not 0 < value < math.inf:
            file.wrong((key,), f"'{key}' is {value}; it must be a number above 0.")
    _check_settings(file)


def _check_settings(file: _File) -> None:
    for part in ("base", "demo"):
        for name, value in file.data.get(part, {}).items():
            _check(file, (part, name), name, value)
    for name, values in file.data.get("axes", {}).items():
        where = ("axes", name)
        if not isinstance(values, list) or not values:
            file.wrong(where, f"the axis '{name}' must be a list with at least one value, such as {name} = [1, 2].")
        for value in values:
            _check(file, where, name, value)
        if any(values.count(value) > 1 for value in values):
            file.wrong(where, f"the axis '{name}' names a value twice.")
    for part in ("skip", "cells"):
        for index, rule in enumerate(file.data.get(part, [])):
            if not isinstance(rule, dict) or not rule:
                file.wrong((part, str(index)), f"'{part}' holds settings: write [[{part}]] and settings below it.")
            for name, value in rule.items():
                for item in value if part == "skip" and isinstance(value, list) else [value]:
                    _check(file, (part, str(index), name), name, item)


def _check(file: _File, where: tuple[str, ...], name: str, value: Any) -> None:
    try:
        _check_choice(name, value)
    except RequestError as error:
        file.wrong(where, error.problem[0].lower() + error.problem[1:], error.remedy)


def _check_choice(name: str, value: Any) -> None:
    """Raise RequestError for a setting that no cell can have."""
    if name not in CHOICES:
        raise settings.unknown_choice("setting", name, CHOICES)
    if name == "padding_side":
        if value not in PADDING_SIDES:
            raise settings.unknown_choice("padding side", value, PADDING_SIDES)
        return
    if isinstance(value, bool) != (settings.Settings.model_fields[name].annotation is bool):
        raise RequestError(f"Setting '{name}' cannot be {value!r}.", "Write true and false for switches only.")
    settings.build(**{name: value})


def _table(file: _File, name: str) -> Table:
    data = file.data
    reference = file.path.parent / data["reference"] if "reference" in data else None
    if reference is not None and not reference.is_file():
        file.wrong(("reference",), f"there is no file '{data['reference']}' beside this one.")
    return Table(
        name=name,
        title=data.get("title", name),
        about=data.get("about", ""),
        base=data.get("base", {}),
        demo=data.get("demo", {}),
        axes={axis: tuple(values) for axis, values in data.get("axes", {}).items()},
        skip=tuple(data.get("skip", [])),
        more=tuple(data.get("cells", [])),
        repeats=data.get("repeats", 1),
        timeout_s=float(data.get("timeout_s", DEFAULT_TIMEOUT_S)),
        reference=reference,
        reference_table=data.get("reference_table"),
    )
