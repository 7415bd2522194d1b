"""Attributions of several traces added up: the batches of a run, the ranks of a job. Pure, no numpy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from layerprof.errors import RequestError
from layerprof.readings import KernelReading, Lost
from layerprof.records import Phase
from layerprof.trace.attribution import (
    BUCKETS,
    COUNTS,
    OUTSIDE,
    Attribution,
    Key,
    Naming,
    Row,
    Steps,
    Top,
    Unknown,
    heaviest,
)


def total(attributions: Sequence[Attribution]) -> KernelReading:
    """Add up traces of one run, each of one batch, in seconds. A row without a phase counts as outside layers.

    Traces with GPU work and traces without do not add up; where there are both, those without are left out. The call
    inside which a row's kernels were captured ran nothing, and is not counted beside their replays.
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
        captured = {(row.name, row.phase) for row in each.rows if row.naming is Naming.CAPTURED}
        for row in each.rows:
            if not isinstance(row.phase, Phase):
                buckets[OUTSIDE] += row.self_ns
                continue
            key = (row.name, row.phase)
            busy[key] += row.self_ns
            host[key] += row.host_self_ns
            whole[key] += row.inclusive_ns
            host_whole[key] += row.host_ns
            graphs[key] += row.graph_ns
            ran = row.inclusive_ns or row.not_recorded or row.naming is not Naming.RECORDED
            calls[key] += row.calls if ran or key not in captured else 0
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
    for row in (row for each in same for row in each.rows if row.not_recorded):
        if isinstance(row.phase, Phase):
            places[row.name, row.phase] += row.not_recorded
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
    return Attribution(
        device=given[0].device,
        rows=_rows(given),
        buckets_ns={name: sum(each.buckets_ns[name] for each in given) for name in BUCKETS},
        bucket_top={name: _joined(each.bucket_top[name] for each in given) for name in BUCKETS},
        total_ns=sum(each.total_ns for each in given),
        events=sum(each.events for each in given),
        skipped=sum(each.skipped for each in given),
        launched_not_recorded_may_be_ns=_known_sum([each.launched_not_recorded_may_be_ns for each in given]),
        **{name: sum(getattr(each, name) for each in given) for name in COUNTS},
        steps=_steps(given),
        graphs=tuple(graph for each in given for graph in each.graphs),
        stacks=tuple(stack for each in given for stack in each.stacks),
        unknown=_unknown(given),
        remarks=tuple(dict.fromkeys(remark for each in given for remark in each.remarks)),
        traces=sum(each.traces for each in given),
        devices=max(each.devices for each in given),
    )


def _steps(given: Sequence[Attribution]) -> tuple[Steps, ...]:
    """Add up the steps that are alike in all but how many there are."""
    same: dict[Steps, list[Steps]] = {}
    for step in (step for each in given for step in each.steps):
        same.setdefault(replace(step, count=0, work_ns=0, host_ns=0), []).append(step)
    return tuple(
        replace(
            alike,
            count=sum(step.count for step in steps),
            work_ns=sum(step.work_ns for step in steps),
            host_ns=sum(step.host_ns for step in steps),
        )
        for alike, steps in same.items()
    )


def _unknown(given: Sequence[Attribution]) -> dict[str, Unknown]:
    result: dict[str, Unknown] = {}
    for name, found in (item for each in given for item in each.unknown.items()):
        before = result.get(name, Unknown(0, 0))
        result[name] = Unknown(before.events + found.events, before.ns + found.ns)
    return result


def _rows(given: Sequence[Attribution]) -> tuple[Row, ...]:
    """Add up the rows that are alike; each stands below the row that it stood below where it was first seen."""
    same: dict[Key, list[Row]] = {}
    above: dict[Key, Key] = {}
    for each in given:
        for row in each.rows:
            same.setdefault(row.key, []).append(row)
            if row.parent is not None:
                above.setdefault(row.key, each.rows[row.parent].key)
    place = {key: number for number, key in enumerate(same)}
    return tuple(_added(rows, place[above[key]] if key in above else None) for key, rows in same.items())


def _added(rows: Sequence[Row], parent: int | None) -> Row:
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
        naming=rows[0].naming,
        parent=parent,
    )


def _joined(tops: Iterable[Top]) -> Top:
    joined: Counter[str] = Counter()
    for top in tops:
        joined.update(dict(top))
    return heaviest(joined.items())
