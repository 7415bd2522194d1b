"""An experiment file (TOML) -> its tables; every mistake names the file and the line.

A table is base settings times axes::

    title = "Batch size"
    include = ["other.toml"]        # instead of, or besides, own axes: the tables of other files
    repeats = 1                     # each cell so often, the repeats spread over the sweep
    timeout_s = 1800                # a cell that takes longer is stopped
    reference = "reference/cells.csv"
    reference_table = "1 batch size"

    [base]                          # the options of `layerprof profile`, with underscores
    samples = 300                   # or "all"
    instrumented = 64               # of these, what the instruments walk

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

import math
import re
import tomllib
from pathlib import Path
from typing import Any, NoReturn

from layerprof import settings
from layerprof.errors import RequestError, nearest, suggestion
from layerprof.sweep import choices
from layerprof.sweep.experiment import DEFAULT_TIMEOUT_S, Experiment, Table

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
_HOW = "docs/sweeps.md shows what an experiment file may hold."


def load(path: str | Path) -> Experiment:
    """Return the experiment in a TOML file.

    Raises RequestError, with file and line, for anything that no sweep could carry out, and for a missing file the
    nearest one beside it.
    """
    return _load(Path(path).expanduser(), ())


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
        if name in choices.NO_AXES:
            problem = f"'{name}' is no axis: cells that differ in nothing else would have the same figures."
            file.wrong(where, problem, f"Put {name} = true into [base].")
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
        choices.check(name, value)
    except RequestError as error:
        file.wrong(where, error.problem[0].lower() + error.problem[1:], error.remedy)


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
