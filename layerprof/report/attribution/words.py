"""What every report of an attributed trace says alike: its books, the remarks on them, and how rows are named."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from layerprof.report import units
from layerprof.report.attribution.names import name_of
from layerprof.report.attribution.tree import Node
from layerprof.report.attribution.view import Shown, View
from layerprof.trace.attribution import GRAPH, NO_LAUNCH, NOT_RECORDED, OUTSIDE, Attribution, Naming, Row, RowPhase

KERNEL_NAME = 60
MOST_NAMED = 3
"""Layers with lost launches that are named before the rest is only counted."""
WHY = {
    OUTSIDE: "launched with no layer's range open",
    NO_LAUNCH: "launched before the recording, or without an id",
    GRAPH: "replayed by CUDA graphs, and no layer is known for it",
}
NAMED = {
    Naming.RECORDED: "launched inside the rows' ranges",
    Naming.CAPTURED: "its launch was captured inside them",
    Naming.INFERRED: "by its place in a sequence that repeats once a layer",
}
NO_RANGES = (
    "The trace has no ranges, so nothing can be told apart. Record it with layerprof, with record_function around the "
    "parts, or with with_stack=True."
)
CAPTURE_HELPS = (
    "A trace of the capture tells what stands inside a CUDA graph: `layerprof attribute TRACE --capture CAPTURE`; "
    "docs/traces.md shows how to record one."
)
_MANGLED = re.compile("_ZN?K?")
_LENGTH = re.compile("[0-9]{1,3}")
_NOISE = re.compile(r"^void |\(anonymous namespace\)::|at::native::")


def heading(result: Attribution) -> str:
    """Return what was measured, of how many traces, on how many GPUs, and its time."""
    what = "GPU work" if result.device == "cuda" else "operators on the CPU"
    of = f" of {units.count(result.traces)} traces" if result.traces > 1 else ""
    gpus = f"{units.count(result.devices)} GPUs"
    on = (f" on up to {gpus} each" if of else f" on {gpus}") if result.devices > 1 else ""
    return f"{what}{of}{on}, {units.seconds(result.total_ns / 1e9)}"


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
        where += [units.many(len(rows) - MOST_NAMED, "more layer")] if len(rows) > MOST_NAMED else []
        graphs = [units.many(result.graphs_not_recorded, "whole CUDA graph")] if result.graphs_not_recorded else []
        named = f" ({', '.join([*graphs, *where])})" if graphs or where else ""
        have, they = ("has", "it") if lost == 1 else ("have", "they")
        yield (
            f"{units.count(lost)} of {of} launches {have} no record of what {they} ran{named}: the profiler lost it, "
            "or the recording ended before. "
            "Record again, with the GPU idle at the beginning and the end and some launches ahead of those that matter."
        )
    unnamed = result.buckets_ns[GRAPH] or (result.graphs and result.stacks)
    if unnamed and not any(graph.capture for graph in result.graphs):
        yield CAPTURE_HELPS
    if result.captured:
        yield (
            "1 launch went into a CUDA graph: it runs, and counts, where this is replayed."
            if result.captured == 1
            else f"{units.count(result.captured)} launches went into CUDA graphs: they run, and count, where these are "
            "replayed."
        )
    if result.skipped:
        are = "is" if result.skipped == 1 else "are"
        yield f"{units.many(result.skipped, 'event')} could not be read and {are} left out."
    if result.unknown:
        known = sorted(result.unknown.items(), key=lambda item: -item[1].ns)
        listed = ", ".join(
            f"{name} ({units.many(one.events, 'event')}, {units.seconds(one.ns / 1e9)})" for name, one in known
        )
        yield f"Categories of events whose meaning is not known, and whose time is in no figure: {listed}."
    yield from result.remarks


def busy_share(rows: Sequence[Row], result: Attribution) -> float | None:
    """Return how much of the time of rows work was running; at most one. None where nothing of it ran.

    On a GPU: of the time from its first kernel to its last, call by call, streams at the same time counted once. On a
    CPU: of the time in which its range was the innermost.
    """
    on_gpu = result.device == "cuda"
    busy = sum(row.union_ns if on_gpu else row.self_ns for row in rows)
    span = sum(row.span_ns if on_gpu else row.host_self_ns for row in rows)
    return busy / span if span else None


def busy_percent(node: Node, result: Attribution) -> str:
    """Return the busy share of a line as a bare percentage; empty where there is none."""
    return units.bare_percent(busy_share(node.rows, result), "")


def heaviest(node: Node) -> str:
    """Return the heaviest of a line's own kernels, without what all such names begin with."""
    return plain(node.top[0][0]) if node.top else ""


def plain(kernel: str) -> str:
    """Return a kernel's name without what all of torch's begin with; of a mangled one the names in it.

    A mangled name (Itanium C++ ABI) has `_Z`, `N` where it is nested, and then each name with its length before it.
    """
    head = _MANGLED.match(kernel)
    parts: list[str] = []
    at = head.end() if head else 0
    while head and (length := _LENGTH.match(kernel, at)):
        at = length.end() + int(length[0])
        parts.append(kernel[length.end() : at])
    return "::".join(parts) if parts else _NOISE.sub("", kernel)


def only_phase(result: Attribution) -> RowPhase:
    """Return the phase that all rows with work are of, if there is one."""
    phases = {row.phase for row in result.rows if row.inclusive_ns or row.graph_ns or row.not_recorded}
    return phases.pop() if len(phases) == 1 else None


def left_out(tree: Shown, result: Attribution, view: View) -> Iterator[str]:
    """Yield what of the rows has no line, with its own time, so that the lines can be added up."""
    if tree.lighter:
        which = "deeper or lighter" if view.depth is not None else "lighter"
        remedy = "--top 0 without --depth" if view.depth is not None else "--top 0"
        yield (
            f"{_rows(tree.lighter, which)}, {_own(tree.lighter_ns, result)}, "
            f"{'is' if tree.lighter == 1 else 'are'} not shown; {remedy} shows all."
        )
    if tree.others:
        asked = "was not asked for" if tree.others == 1 else "were not asked for"
        yield f"{_rows(tree.others)}, {_own(tree.others_ns, result)}, {asked}."
    if tree.idle:
        yield f"{_rows(tree.idle)} launched no work."


def _rows(many: int, which: str = "") -> str:
    return " ".join(filter(None, (units.count(many), which, "row" if many == 1 else "rows")))


def _own(ns: int, result: Attribution) -> str:
    return f"{units.seconds(ns / 1e9)} of their own ({units.percent(ns / (result.total_ns or 1))})"


def book_lines(result: Attribution) -> Iterator[tuple[str, int | None, str, str]]:
    """Yield the books: label, nanoseconds, what it holds, heaviest kernel. A CPU has no buckets of launches.

    What was not recorded stands below the total, of which it is no part: its time is a guess, or None.
    """
    by_naming = Counter[Naming]()
    for row in result.rows:
        by_naming[row.naming] += row.self_ns
    if set(by_naming) <= {Naming.RECORDED}:
        yield "rows", by_naming[Naming.RECORDED], "", ""
    else:
        for naming in Naming:
            if by_naming[naming]:
                yield f"rows, {naming.value}", by_naming[naming], NAMED[naming], ""
    for name, ns in result.buckets_ns.items():
        if ns or result.device == "cuda":
            top = result.bucket_top.get(name, ())
            yield name, ns, WHY[name] if ns else "", plain(top[0][0])[:KERNEL_NAME] if top else ""
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
