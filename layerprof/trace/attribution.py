"""What an attributed trace says: rows, buckets, their total, and where each name comes from. Pure, no numpy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from layerprof.records import Phase

RowPhase = Phase | None
"""Phase of a row; None where the trace does not tell."""

Top = tuple[tuple[str, int], ...]

OUTSIDE = "outside layers"
NO_LAUNCH = "no launch seen"
GRAPH = "graph launch"
BUCKETS = (OUTSIDE, NO_LAUNCH, GRAPH)
NOT_RECORDED = "launched, not recorded"
"""What the profiler lost: no bucket of the sum, since nobody knows how long it ran."""

TOP = 5
"""Heaviest kernels that are kept by name."""

COUNTS = (
    "launches",
    "launched_not_recorded",
    "graphs_not_recorded",
    "captured",
    "orphans",
    "warm_up_launches",
    "warm_up_lost",
)
"""Fields of an attribution that count launches; those of several traces add up."""


class Naming(StrEnum):
    """How a kernel got its row."""

    RECORDED = "recorded"
    """A range was open at its launch."""
    CAPTURED = "captured"
    """A range was open when its launch was captured into the CUDA graph that ran it."""
    INFERRED = "inferred"
    """Its place in a sequence of kernels that repeats once a layer."""


@dataclass(frozen=True, slots=True)
class Row:
    """One layer (or other range) in one phase, over all its calls. Whole nanoseconds.

    `self_ns`: work launched with this range innermost; these add up to the total. `inclusive_ns`: work launched inside
    it at any depth. `union_ns`: the time in which at least one piece of that ran. `span_ns`: from the first start to
    the last end of that work, call by call. `host_ns`: time on the launching thread. `host_self_ns`: of that, with this
    range innermost; on a CPU never less than `self_ns`. `graph_ns`: work of CUDA graphs launched inside it, which is in
    the bucket `graph launch` and in none of the others. `kernels`: how many pieces of work are its own (an operator
    counts again after each operator inside it). `top`: heaviest of its own kernels. `not_recorded`: how many launches
    of its own have no record, so that `self_ns` is too small by what they ran. `naming`: how its work got here; rows of
    one name and phase stand apart where it differs. `parent`: place of the row whose calls hold most of its own.
    """

    name: str
    phase: RowPhase
    calls: int
    self_ns: int
    inclusive_ns: int
    union_ns: int
    span_ns: int
    host_ns: int
    host_self_ns: int
    graph_ns: int
    kernels: int
    top: Top
    not_recorded: int = 0
    naming: Naming = Naming.RECORDED
    parent: int | None = None

    @property
    def key(self) -> Key:
        """What makes it a row of its own."""
        return self.name, self.phase, self.naming


Key = tuple[str, RowPhase, Naming]


@dataclass(frozen=True, slots=True)
class Steps:
    """Steps of a server that are alike by its annotation `name`: phase, requests and new tokens of each kind.

    `count` is how many there were, `work_ns` what ran in all of them, `host_ns` how long they took to launch. What the
    annotation does not say is None.
    """

    name: str
    phase: RowPhase
    count: int
    work_ns: int
    host_ns: int
    requests: int | None = None
    context_requests: int | None = None
    context_tokens: int | None = None
    generation_requests: int | None = None
    generation_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class GraphUse:
    """What became of the replays of one CUDA graph: `pieces` of work in each, `ns` in all.

    `matched_ns` of it found its launch in the capture, `inferred_ns` is in inferred layers or beside them. `capture`
    names the capture that it was matched with (None: none), `by` what matched them (`graph node ids`, `kernel names`,
    `order`), and `why` what kept the rest from it.
    """

    replays: int
    pieces: int
    ns: int
    matched_ns: int
    capture: str | None = None
    by: str | None = None
    why: str | None = None
    inferred_ns: int = 0


@dataclass(frozen=True, slots=True)
class Stack:
    """Layers that were inferred from a sequence of kernels that repeats: `layers` of them, passed `calls` times.

    `ns` is their work in all passes, `head_ns` what ran before each of them, since the stack before it, `tail_ns` what
    ran after the last of a sequence, `of_ns` all work of the sequences with such a stack. `kinds` counts layers by
    their sequence of kernels. `spread` is the median deviation of a layer's time from the median of its kind, as a
    share of it. `evidence` says what the boundaries rest on.
    """

    name: str
    layers: int
    calls: int
    ns: int
    head_ns: int
    tail_ns: int
    of_ns: int
    kinds: tuple[int, ...]
    spread: float | None
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Unknown:
    """Events of a category that is not known: how many, and how long they are together."""

    events: int
    ns: int


@dataclass(frozen=True, slots=True)
class Attribution:
    """Where a trace's work was launched: `sum of self_ns + sum of buckets_ns = total_ns`.

    `device` is `cuda` where the trace has GPU work, else `cpu`, and then "kernel" means operator. `bucket_top` names
    the heaviest kernels of each bucket. `skipped` counts events that could not be read. `traces` were added up, and the
    one with the most `devices` has work on so many.

    `launches` counts those of kernels and graphs. `launched_not_recorded` of them have no record of what they ran, so
    `total_ns` is too small by it: `launched_not_recorded_may_be_ns` at the mean of their like, None where there is
    none; `graphs_not_recorded` of these launched a whole CUDA graph. `captured` launches went into a graph and run when
    it is replayed. `graphs` says what each graph's replays were matched with, `stacks` what was inferred, `steps` what
    a server's annotations say. `unknown` are categories of events whose meaning is not known; `remarks` are for whoever
    reads the result. `orphans` counts the pieces of work in `no launch seen`. Of `warm_up_launches`, made only for the
    profiler to lose and part of nothing else, it lost `warm_up_lost`.
    """

    device: Literal["cuda", "cpu"]
    rows: tuple[Row, ...]
    buckets_ns: dict[str, int]
    bucket_top: dict[str, Top]
    total_ns: int
    events: int
    skipped: int
    launches: int = 0
    launched_not_recorded: int = 0
    launched_not_recorded_may_be_ns: int | None = 0
    graphs_not_recorded: int = 0
    captured: int = 0
    orphans: int = 0
    warm_up_launches: int = 0
    warm_up_lost: int = 0
    steps: tuple[Steps, ...] = ()
    graphs: tuple[GraphUse, ...] = ()
    stacks: tuple[Stack, ...] = ()
    unknown: Mapping[str, Unknown] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    traces: int = 1
    devices: int = 1


def heaviest(items: Iterable[tuple[str, int]]) -> Top:
    """Return the heaviest first, equal ones by name; `TOP` of them."""
    return tuple(sorted(items, key=lambda item: (-item[1], item[0]))[:TOP])
