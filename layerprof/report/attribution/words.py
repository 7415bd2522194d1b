"""What every report of an attributed trace says alike: its books, the remarks on them, and how rows are named."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from layerprof.report import units
from layerprof.trace.attribution import GRAPH, NO_LAUNCH, NOT_RECORDED, OUTSIDE, Attribution, Row

KERNEL_NAME = 60
MOST_NAMED = 3
"""Layers with lost launches that are named before the rest is only counted."""
WHY = {
    OUTSIDE: "launched with no layer's range open",
    NO_LAUNCH: "launched before the recording, or without an id",
    GRAPH: "replayed by CUDA graphs, where single layers cannot be told apart",
}


def remarks(result: Attribution) -> Iterator[str]:
    """Yield what a reader must know of launches that have no work in the trace, and of events left out."""
    lost, of = result.launched_not_recorded, units.count(result.launches)
    if lost and result.device == "cpu":
        yield (
            f"{units.count(lost)} of {of} launches put work on a GPU, and the trace has no record of any: the times "
            "above are the host's. Another profiler may hold CUPTI, or it is not permitted: `layerprof doctor` tells."
        )
    elif lost:
        rows = sorted((row for row in result.rows if row.not_recorded), key=lambda row: -row.not_recorded)
        where = [f"{row.not_recorded} in {name_of(row)}" for row in rows[:MOST_NAMED]]
        where += [f"{len(rows) - MOST_NAMED} more layers"] if len(rows) > MOST_NAMED else []
        graphs = [f"{units.count(result.graphs_not_recorded)} whole CUDA graphs"] if result.graphs_not_recorded else []
        named = f" ({', '.join([*graphs, *where])})" if graphs or where else ""
        yield (
            f"{units.count(lost)} of {of} launches have no record of what they ran{named}: the profiler lost it, or "
            "the recording ended before. "
            "Record again, with the GPU idle at the beginning and the end and some launches ahead of those that matter."
        )
    if result.captured:
        yield (
            f"{units.count(result.captured)} launches went into CUDA graphs: they run, and count, where these are "
            "replayed."
        )
    if result.skipped:
        yield f"{units.count(result.skipped)} events could not be read and are left out."
    yield from result.remarks


def busy_share(row: Row, result: Attribution) -> float | None:
    """Return how much of a row's time work was running; at most one. None where nothing of it ran.

    On a GPU: of the time from its first kernel to its last, call by call, streams at the same time counted once. On a
    CPU: of the time in which its range was the innermost.
    """
    busy, span = (row.union_ns, row.span_ns) if result.device == "cuda" else (row.self_ns, row.host_self_ns)
    return busy / span if span else None


def name_of(row: Row) -> str:
    """Return a row's name; the range around all others may have none."""
    return row.name or "the model itself"


def book_lines(result: Attribution) -> Iterator[tuple[str, int | None, str, str]]:
    """Yield the books: label, nanoseconds, what it holds, heaviest kernel. A CPU has no buckets of launches.

    What was not recorded stands below the total, of which it is no part: its time is a guess, or None.
    """
    yield "rows", sum(row.self_ns for row in result.rows), "", ""
    for name, ns in result.buckets_ns.items():
        if ns or result.device == "cuda":
            top = result.bucket_top.get(name, ())
            yield name, ns, WHY[name] if ns else "", top[0][0][:KERNEL_NAME] if top else ""
    yield "total", result.total_ns, "", ""
    if result.launched_not_recorded:
        yield NOT_RECORDED, result.launched_not_recorded_may_be_ns, _lost(result), ""


def _lost(result: Attribution) -> str:
    many = f"{units.count(result.launched_not_recorded)} of {units.count(result.launches)} launches, not in the total"
    return f"{many}; time at the mean of their like" if result.launched_not_recorded_may_be_ns is not None else many


def book_time(label: str, ns: int | None, show: Callable[[float], str]) -> str:
    """Return the time of a line of the books; `?` where it is not known, with a sign where it is a guess."""
    if ns is None:
        return "?"
    return f"≈{show(ns / 1e9)}" if label == NOT_RECORDED else show(ns / 1e9)


def book_share(label: str, ns: int | None, result: Attribution) -> str:
    """Return the share of a line of the books in the total, of which what was not recorded is no part."""
    return "" if ns is None or label == NOT_RECORDED else units.bare_percent(ns / (result.total_ns or 1))


def piece(result: Attribution) -> str:
    """Return what a piece of the trace's work is called."""
    return "kernel" if result.device == "cuda" else "operator"
