"""A cell, and what became of it. A cell is one run of a sweep: what was asked, who it is, and its result."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from pydantic import Field

from layerprof.records import Record

PADDING_SIDES = ("left", "right")
"""`right` is what a tokenizer does when it is not told otherwise; it makes answers depend on the batch."""

LOADED_BY = (
    "model",
    "weights",
    "device",
    "dtype",
    "optimization",
    "attention",
    "seed",
    "quantization",
    "quantization_skip",
)
"""Settings that two cells must have in common to share a loaded model."""


class Status(StrEnum):
    """How a cell ended. Everything but `done` has a reason."""

    DONE = "done"
    SKIPPED = "skipped"
    """The request cannot be carried out here: no GPU, a package missing, a budget that would cut the options."""
    OUT_OF_MEMORY = "out of memory"
    FAILED = "failed"
    CRASHED = "crashed"
    TIMED_OUT = "timed out"


@dataclass(frozen=True, slots=True)
class Cell:
    """What is asked of one run.

    `choices` are the options of `layerprof profile` plus `padding_side`; `demo` what replaces them where the
    model turns out to be the bundled one; `points` the axes' values in each table that the cell stands in.
    """

    choices: dict[str, Any]
    demo: dict[str, Any] = field(default_factory=dict)
    repeat: int = 0
    timeout_s: float = 3600.0
    points: dict[str, tuple[dict[str, Any], ...]] = field(default_factory=dict)

    @property
    def request(self) -> str:
        """What is asked, as text: cells with the same request are the same cell."""
        return canonical([self.choices, self.demo, self.repeat])

    @property
    def label(self) -> str:
        """The cell in a few words: where it stands in its first table."""
        point = next((points[0] for points in self.points.values() if points), {})
        words = " ".join(f"{name}={value}" for name, value in point.items()) or next(iter(self.points), "cell")
        return f"{words} repeat={self.repeat}" if self.repeat else words

    def joined(self, other: Cell) -> Cell:
        """Return this cell standing in the other's tables too."""
        points = dict(self.points)
        for table, more in other.points.items():
            here = points.get(table, ())
            points[table] = (*here, *(point for point in more if point not in here))
        return replace(self, points=points, timeout_s=max(self.timeout_s, other.timeout_s))


class Identity(Record):
    """Who a cell is once names are resolved: everything that its figures depend on.

    `choices` have every `auto` resolved; `model` and `data` carry revisions or content hashes, `data` the sample ids
    too; `versions` are of the packages and the driver.
    """

    choices: dict[str, Any]
    model: dict[str, Any]
    data: dict[str, Any]
    device: str
    versions: dict[str, Any]

    def key(self, repeat: int = 0) -> str:
        """Return the content hash under which the result is stored: 16 hexadecimal digits of SHA-256."""
        return _hash(self.model_dump(mode="json") | {"repeat": repeat})


def unidentified_key(cell: Cell) -> str:
    """Return the key of a cell that could not be identified; it starts with `x`, and nothing is cached under it."""
    return "x" + _hash(cell.request)[:15]


def canonical(value: Any) -> str:
    """Return JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)


def _hash(value: Any) -> str:
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:16]


class Guards(Record):
    """Whether a cell's answers can be believed. Shares lie between 0 and 1; None where it was not checked.

    `batch_invariant` is the share of `checked` samples whose tokens are the same alone and in their batch; `other_load`
    the share of the processors that other programs took while times were taken; `flags` says in words what is wrong.
    """

    batch_invariant: float | None = None
    checked: int = 0
    truncated_share: float | None = None
    hypothesis_words: float | None = None
    reference_words: float | None = None
    padding_share: float | None = None
    other_load: float | None = None
    not_finite: int | None = None
    reason: str | None = None
    flags: tuple[str, ...] = ()


class Outcome(Record):
    """What became of a cell: the file `cell.json` beside its run; where it is, the cell is finished."""

    key: str
    status: Status
    reason: str | None = None
    repeat: int = 0
    identity: Identity | None = None
    guards: Guards | None = None
    seconds: float = 0.0
    finished: str = ""
    attempts: int = 1
    worker: str = ""


class PlannedCell(Record):
    """A cell as `sweep.json` lists it: its key, its settings, and where it stands in which tables."""

    key: str
    label: str
    choices: dict[str, Any]
    repeat: int
    points: dict[str, tuple[dict[str, Any], ...]]


class PlannedTable(Record):
    """A table as `sweep.json` lists it, with the rows of the report that it is compared to and their known reasons."""

    name: str
    title: str
    about: str = ""
    axes: dict[str, list[Any]]
    reference: tuple[dict[str, Any], ...] = ()
    reasons: tuple[dict[str, Any], ...] = ()


class SweepRecord(Record):
    """`sweep.json`: which cells a sweep has and how it went. `wall_s` is of all attempts together."""

    format: int = 1
    created: str
    name: str
    title: str
    about: str = ""
    overrides: dict[str, Any] = Field(default_factory=dict)
    tables: tuple[PlannedTable, ...]
    cells: tuple[PlannedCell, ...]
    wall_s: float = 0.0
    cells_s: float = 0.0
