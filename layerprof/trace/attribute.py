"""Profiler trace to time per layer: every kernel goes to the layer that launched it. Pure, no torch.

A kernel runs when the GPU gets to it, often long after its layer returned, so overlap in time says nothing. What
holds is the chain that CUPTI records: the kernel's correlation id names the call that launched it, and the launch lies,
on its own thread, inside the range that the layer's hook had open. The innermost such range gets the kernel. What has
no such chain goes to a named bucket, so that layers + buckets = total, exactly, in whole nanoseconds.

A trace without GPU work is read the same way with operators in place of kernels: each moment that a thread spends in an
operator goes to the innermost range open there and then.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from layerprof.errors import SelectorError, nearest
from layerprof.trace.attribution import NO_LAUNCH, Attribution
from layerprof.trace.events import Columns, Reader
from layerprof.trace.file import TraceFile
from layerprof.trace.rows import rows_of, top
from layerprof.trace.work import PLACE_OF_BUCKET, cpu_work, find_ranges, gpu_work


def attribute(trace: str | Path | Iterable[dict[str, Any]], *, layers: Sequence[str] | None = None) -> Attribution:
    """Attribute a trace file's (or given events') work to the ranges in it.

    Ranges are those of our hooks; in a trace without them, every `record_function` range and every module that
    `with_stack` recorded. `layers` (names, or patterns with `*`) takes ranges by name instead, operators too.

    Raises TraceError for a file that cannot be read, SelectorError when `layers` matches no range.
    """
    reader = Reader(layers)
    if isinstance(trace, str | Path):
        file = TraceFile(trace)
        for events in file:
            reader.read(events)
        reader.columns.skipped += file.unreadable
        reader.columns.remarks += file.remarks
    else:
        reader.read(trace)
    if layers is not None and not len(reader.columns.ranges.ts):
        raise _no_match(layers, reader.offered)
    return _attribute(reader.columns)


def _no_match(layers: Sequence[str], offered: set[str]) -> SelectorError:
    near = sorted({name for want in layers for name in nearest(want, offered, most=3, cutoff=0.3)})
    known = near or sorted(offered)[:5]
    return SelectorError(
        f"No range of the trace is called {' or '.join(layers)}.",
        f"It has {', '.join(known)}." if known else "It has no named ranges at all; leave the names out.",
    )


def _attribute(columns: Columns) -> Attribution:
    ranges, bad_ranges = find_ranges(columns)
    on_gpu = len(columns.work.ts) > 0
    work, bad_work, seen = gpu_work(columns, ranges)
    if not on_gpu:
        work, bad_operators = cpu_work(columns, ranges)
        bad_work += bad_operators
    length = work.end - work.start
    return Attribution(
        device="cuda" if on_gpu else "cpu",
        rows=tuple(rows_of(ranges, work, seen)),
        buckets_ns={name: int(length[work.place == place].sum()) for name, place in PLACE_OF_BUCKET.items()},
        bucket_top={name: top(work, work.place == place) for name, place in PLACE_OF_BUCKET.items()},
        total_ns=int(length.sum()),
        events=columns.events,
        skipped=columns.skipped + bad_ranges + bad_work,
        launches=seen.counts.made,
        launched_not_recorded=len(seen.counts.lost),
        launched_not_recorded_may_be_ns=seen.may_be_ns,
        graphs_not_recorded=seen.counts.lost_graphs,
        captured=seen.counts.captured,
        orphans=int((work.place == PLACE_OF_BUCKET[NO_LAUNCH]).sum()),
        warm_up_launches=seen.counts.warm_up,
        warm_up_lost=seen.counts.warm_up_lost,
        remarks=tuple(columns.remarks),
    )
