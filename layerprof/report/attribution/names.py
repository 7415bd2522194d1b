"""Names of rows: what they have alike but for their numbers, and one name for several that differ in these alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from rich.cells import cell_len

from layerprof.trace.attribution import Naming, Row

_NUMBER = re.compile(r"(?:(?<=[._ ])|^)\d+(?=$|[. )])")
"""A number that stands alone: that of `layers.3.mlp`, `Linear_3` and `layer 3`, none of those in `Conv2d`."""
MOST_RUNS = 3
"""Runs of numbers that are listed, as in `0-3,5-9`; of more only the first and the last number are told: `0..40`."""


def name_of(row: Row) -> str:
    """Return a row's name; the range around all others may have none."""
    return row.name or "the model itself"


def shape(name: str) -> str:
    """Return a name with `#` for each of its numbers: `Linear_3` and `Linear_12` have one shape."""
    return _NUMBER.sub("#", name)


def shared(names: Sequence[str], runs: int = MOST_RUNS) -> str:
    """Return one name for names of one shape: `layers.0-35`, `layer 0,2..34`, or `Linear_0..61` for any in between.

    A number that is the same in all stays. `runs` is how many ranges may be listed.
    """
    numbers = [[int(number) for number in _NUMBER.findall(name)] for name in dict.fromkeys(names)]
    texts = iter([_ranges(sorted(set(place)), runs) for place in zip(*numbers, strict=True)])
    return _NUMBER.sub(lambda _: next(texts), names[0])


def within(name: str, around: str) -> str:
    """Return a submodule's name without that of the module around it."""
    return name.removeprefix(f"{around}.") if around else name


def marked(name: str, naming: Naming) -> str:
    """Return a name that says so where it was inferred."""
    return f"{name} (inferred)" if naming is Naming.INFERRED and not name.endswith("(inferred)") else name


def fitting(name: str, room: int) -> str:
    """Return a name that takes no more cells: what is left out is in the middle, since its end tells most."""
    if cell_len(name) <= room:
        return name
    head = begin(name, room // 3)
    room -= room // 3 + 3
    end = name[-room:]
    while cell_len(end) > room:
        end = end[1:]
    return f"{head}...{end}"


def begin(text: str, room: int) -> str:
    """Return as much of a text's beginning as takes no more cells; some signs take two."""
    text = text[:room]
    while cell_len(text) > room:
        text = text[:-1]
    return text


def _ranges(values: Sequence[int], most: int) -> str:
    """Return sorted numbers as text."""
    first, last = values[0], values[-1]
    steps = {b - a for a, b in pairwise(values)}
    if len(values) > 2 and len(steps) == 1 and steps != {1}:
        return f"{first},{values[1]}..{last}"
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    if len(runs) > most:
        return f"{first}..{last}"
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
