"""What an attributed trace says: rows, buckets, their total; and how those of several traces add up. Pure, no numpy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from layerprof.errors import RequestError
from layerprof.readings import KernelReading, Lost
from layerprof.records import Phase

Key = tuple[str, Phase | None]
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


@dataclass(frozen=True, slots=True)
class Row:
    """One layer (or other range) in one phase, over all its calls. Whole nanoseconds.

    `self_ns`: work launched with this range innermost; these add up to the total. `inclusive_ns`: work launched inside
    it at any depth. `union_ns`: the time in which at least one piece of that ran. `span_ns`: from the first start to
    the last end of that work, call by call. `host_ns`: time on the launching thread. `host_self_ns`: of that, with this
    range innermost; on a CPU never less than `self_ns`. `graph_ns`: work of CUDA graphs launched inside it, which is in
    the bucket `graph launch` and in none of the others. `kernels`: how many pieces of work are its own (an operator
    counts again after each operator inside it). `top`: heaviest of its own kernels. `not_recorded`: how many launches
    of its own have no record, so that `self_ns` is too small by what they ran.
    """

    name: str
    phase: Phase | None
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


@dataclass(frozen=True, slots=True)
class Attribution:
    """Where a trace's work was launched: `sum of self_ns + sum of buckets_ns = total_ns`.

    `device` is `cuda` where the trace has GPU work, else `cpu`, and then "kernel" means operator. `bucket_top` names
    the heaviest kernels of each bucket. `skipped` counts events that could not be read.

    `launches` counts those of kernels and graphs. `launched_not_recorded` of them have no record of what they ran, so
    `total_ns` is too small by it: `launched_not_recorded_may_be_ns` at the mean of their like, None where there is
    none; `graphs_not_recorded` of these launched a whole CUDA graph. `captured` launches went into a graph and run when
    it is replayed. `orphans` counts the pieces of work in `no launch seen`. Of `warm_up_launches`, made only for the
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


def total(attributions: Sequence[Attribution]) -> KernelReading:
    """Add up traces of one run, each of one batch, in seconds. A row without a phase counts as outside layers.

    Traces with GPU work and traces without do not add up; where there are both, those without are left out.
    """
    device: Literal["cuda", "cpu"] = "cuda" if any(each.device == "cuda" for each in attributions) else "cpu"
    same = [each for each in attributions if each.device == device]
    busy: Counter[tuple[str, Phase]] = Counter()
    host: Counter[tuple[str, Phase]] = Counter()
    whole: Counter[tuple[str, Phase]] = Counter()
    host_whole: Counter[tuple[str, Phase]] = Counter()
    graphs: Counter[tuple[str, Phase]] = Counter()
    calls: Counter[tuple[str, Phase]] = Counter()
    buckets: Counter[str] = Counter(dict.fromkeys(BUCKETS, 0))
    top: dict[tuple[str, Phase], Counter[str]] = {}
    for each in same:
        buckets.update(each.buckets_ns)
        for row in each.rows:
            if row.phase is None:
                buckets[OUTSIDE] += row.self_ns
                continue
            key = (row.name, row.phase)
            busy[key] += row.self_ns
            host[key] += row.host_self_ns
            whole[key] += row.inclusive_ns
            host_whole[key] += row.host_ns
            graphs[key] += row.graph_ns
            calls[key] += row.calls
            top.setdefault(key, Counter()).update(dict(row.top))
    return KernelReading(
        busy_s={key: ns / 1e9 for key, ns in busy.items()},
        calls=dict(calls),
        buckets_s={name: ns / 1e9 for name, ns in buckets.items()},
        total_s=sum(each.total_ns for each in same) / 1e9,
        top={key: tuple((name, ns / 1e9) for name, ns in heaviest(c.items())) for key, c in top.items()},
        device=device,
        batches=len(same),
        host_s={key: ns / 1e9 for key, ns in host.items()},
        graph_s={key: ns / 1e9 for key, ns in graphs.items() if ns},
        lost=_lost(same),
        whole_s={key: ns / 1e9 for key, ns in whole.items()},
        host_whole_s={key: ns / 1e9 for key, ns in host_whole.items()},
    )


def _lost(same: Sequence[Attribution]) -> Lost:
    """Add up what the profiler lost."""
    places: Counter[tuple[str, Phase]] = Counter()
    for row in (row for each in same for row in each.rows if row.phase is not None and row.not_recorded):
        places[row.name, cast(Phase, row.phase)] += row.not_recorded
    may_be = _known_sum([each.launched_not_recorded_may_be_ns for each in same])
    return Lost(
        launches=sum(each.launched_not_recorded for each in same),
        of=sum(each.launches for each in same),
        may_be_s=None if may_be is None else may_be / 1e9,
        places=dict(places.most_common()),
    )


def _known_sum(values: Sequence[int | None]) -> int | None:
    """Return the sum; None where one of them is not known."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def merged(files: Mapping[str, Attribution]) -> Attribution:
    """Add up traces of the same work, such as the batches of a run or the ranks of a job, given by name.

    Of the heaviest kernels only those that each trace kept are known. Raises RequestError where some have GPU work and
    others have none, since operators are not kernels.
    """
    if len({each.device for each in files.values()}) > 1:
        without = next(name for name, each in files.items() if each.device == "cpu")
        raise RequestError(
            f"{without} has no GPU work and others have, so their times are not of the same thing.",
            "Attribute them one at a time.",
        )
    given = list(files.values())
    if len(given) == 1:
        return given[0]
    same: dict[Key, list[Row]] = {}
    for row in (row for each in given for row in each.rows):
        same.setdefault((row.name, row.phase), []).append(row)
    return Attribution(
        device=given[0].device,
        rows=tuple(_added(rows) for rows in same.values()),
        buckets_ns={name: sum(each.buckets_ns[name] for each in given) for name in BUCKETS},
        bucket_top={name: _joined(each.bucket_top[name] for each in given) for name in BUCKETS},
        total_ns=sum(each.total_ns for each in given),
        events=sum(each.events for each in given),
        skipped=sum(each.skipped for each in given),
        launched_not_recorded_may_be_ns=_known_sum([each.launched_not_recorded_may_be_ns for each in given]),
        **{name: sum(getattr(each, name) for each in given) for name in COUNTS},
    )


def _added(rows: Sequence[Row]) -> Row:
    def over(name: str) -> int:
        return sum(getattr(row, name) for row in rows)

    return Row(
        name=rows[0].name,
        phase=rows[0].phase,
        calls=over("calls"),
        self_ns=over("self_ns"),
        inclusive_ns=over("inclusive_ns"),
        union_ns=over("union_ns"),
        span_ns=over("span_ns"),
        host_ns=over("host_ns"),
        host_self_ns=over("host_self_ns"),
        graph_ns=over("graph_ns"),
        kernels=over("kernels"),
        top=_joined(row.top for row in rows),
        not_recorded=over("not_recorded"),
    )


def _joined(tops: Iterable[Top]) -> Top:
    joined: Counter[str] = Counter()
    for top in tops:
        joined.update(dict(top))
    return heaviest(joined.items())


def heaviest(items: Iterable[tuple[str, int]]) -> Top:
    """Return the heaviest first, equal ones by name; `TOP` of them."""
    return tuple(sorted(items, key=lambda item: (-item[1], item[0]))[:TOP])
