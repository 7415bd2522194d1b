"""Profiler trace to time per layer: every kernel goes to the layer that launched it. Pure, no torch.

A kernel runs when the GPU gets to it, often long after its layer returned, so overlap in time says nothing. What
holds is the chain that CUPTI records: the kernel's correlation id names the call that launched it, and the launch lies,
on its own thread, inside the range that the layer's hook had open. The innermost such range gets the kernel.

All kernels of a CUDA graph's replay have one launch. Their ranges are those that were open when the graph was captured,
where a capture is at hand, and else what their own repetition tells (`graphs`, `inferred`). What has no such chain goes
to a named bucket, so that layers + buckets = total, exactly, in whole nanoseconds.

A trace without GPU work is read the same way with operators in place of kernels: each moment that a thread spends in an
operator goes to the innermost range open there and then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from layerprof.errors import RequestError, SelectorError, TraceError, nearest
from layerprof.trace.attribution import NO_LAUNCH, Attribution, Unknown
from layerprof.trace.events import Columns, Reader
from layerprof.trace.file import TraceFile
from layerprof.trace.graphs import capture_files
from layerprof.trace.graphs import captures as capturing
from layerprof.trace.graphs.capture_files import CaptureFile
from layerprof.trace.graphs.captures import Capture
from layerprof.trace.naming import Named, name_graphs
from layerprof.trace.rows import rows_of, top
from layerprof.trace.steps import ServerSteps
from layerprof.trace.work import PLACE_OF_BUCKET, cpu_work, find_ranges, gpu_work

Trace = str | Path | Iterable[dict[str, Any]]


def attribute(
    trace: Trace, *, layers: Sequence[str] | None = None, captures: Sequence[str | Path] = (), infer: bool = True
) -> Attribution:
    """Attribute a trace file's (or given events') work to the ranges in it.

    Ranges are those of our hooks; in a trace without them, every `record_function` range and every module that
    `with_stack` recorded. `layers` (names, or patterns with `*`) takes ranges by name instead, operators too.

    `captures` are traces in which the trace's CUDA graphs were captured, or folders of such (`capture_files`); those in
    the trace itself are found without.
    `infer` finds layers in what no range tells apart, by the sequence of its kernels.

    Raises TraceError for a file that cannot be read, SelectorError when `layers` matches no range, RequestError when
    no CUDA graph was captured in any of `captures`.
    """
    reader = _read(trace, layers)
    known: list[Capture] = []
    matched, offered = len(reader.columns.ranges.ts), reader.offered
    left_out: list[CaptureFile] = []
    for file in capture_files.listed(captures):
        taken = _read_capture(file, trace, layers)
        found = _captures(file.path, taken.columns) if taken else []
        if taken is None or (file.folder and not found):
            left_out += [] if file.found_again(trace) and len(reader.columns.captures.ts) else [file]
            continue
        known += found
        matched += len(taken.columns.ranges.ts)
        offered |= taken.offered
        reader.columns.remarks += taken.columns.remarks
    if layers is not None and not matched:
        raise _no_match(layers, offered)
    if captures and not known:
        raise RequestError(
            f"No CUDA graph was captured in {' or '.join(map(str, captures))}.",
            "Give the trace of the capture itself: docs/traces.md shows how to record one.",
        )
    reader.columns.remarks += capture_files.remarks(left_out)
    return _attribute(reader.columns, known, infer)


def _read_capture(file: CaptureFile, trace: Trace, layers: Sequence[str] | None) -> Reader | None:
    """Read what may be a capture; None for a file of a folder that is no trace, or the trace itself."""
    if file.found_again(trace):
        return None
    try:
        return _read(file.path, layers)
    except TraceError:
        if file.folder is None:
            raise
        return None


def _read(trace: Trace, layers: Sequence[str] | None) -> Reader:
    reader = Reader(layers)
    if isinstance(trace, str | Path):
        file = TraceFile(trace)
        for events in file:
            reader.read(events)
        reader.columns.skipped += file.unreadable
        reader.columns.remarks += file.remarks
    else:
        reader.read(trace)
    return reader


def _captures(path: str | Path, columns: Columns) -> list[Capture]:
    ranges, _ = find_ranges(columns, ServerSteps.of(columns))
    work, _, seen = gpu_work(columns, ranges)
    return capturing.find(columns, ranges, seen, work.launch, Path(path).name)


def _no_match(layers: Sequence[str], offered: set[str]) -> SelectorError:
    near = sorted({name for want in layers for name in nearest(want, offered, most=3, cutoff=0.3)})
    known = near or sorted(offered)[:5]
    return SelectorError(
        f"No range of the trace is called {' or '.join(layers)}.",
        f"It has {', '.join(known)}." if known else "It has no named ranges at all; leave the names out.",
    )


def _unsure(kernels: int) -> list[str]:
    """Say that a file holds several processes' work under the same ids."""
    if not kernels:
        return []
    return [
        f"The correlation ids of {kernels:,} kernels are those of launches in several processes, and nothing tells "
        "which: the first device was taken for the first process's, and so on. Attribute the file of each process by "
        "itself."
    ]


def _attribute(columns: Columns, known: Sequence[Capture], infer: bool) -> Attribution:
    steps = ServerSteps.of(columns)
    ranges, bad_ranges = find_ranges(columns, steps)
    on_gpu = len(columns.work.ts) > 0
    work, bad_work, seen = gpu_work(columns, ranges)
    if on_gpu:
        named = name_graphs(columns, work, ranges, seen, steps, known, infer)
    else:
        work, bad_operators = cpu_work(columns, ranges)
        bad_work += bad_operators
        named = Named(ranges)
    length = work.length
    return Attribution(
        device="cuda" if on_gpu else "cpu",
        rows=tuple(rows_of(named.ranges, work, seen)),
        buckets_ns={name: int(length[work.place == place].sum()) for name, place in PLACE_OF_BUCKET.items()},
        bucket_top={name: top(work, work.place == place) for name, place in PLACE_OF_BUCKET.items()},
        total_ns=int(length.sum()),
        events=columns.events,
        devices=columns.devices,
        skipped=columns.skipped + bad_ranges + bad_work,
        launches=seen.counts.made,
        launched_not_recorded=len(seen.counts.lost),
        launched_not_recorded_may_be_ns=seen.may_be_ns,
        graphs_not_recorded=seen.counts.lost_graphs,
        captured=seen.counts.captured,
        orphans=int((work.place == PLACE_OF_BUCKET[NO_LAUNCH]).sum()),
        warm_up_launches=seen.counts.warm_up,
        warm_up_lost=seen.counts.warm_up_lost,
        steps=steps.told(work.moment, work.thread, length),
        graphs=named.graphs,
        stacks=named.stacks,
        unknown={name: Unknown(events, ns) for name, (events, ns) in columns.unknown.items()},
        remarks=(*columns.remarks, *([] if on_gpu else _may_be_work(columns)), *_unsure(seen.unsure), *named.remarks),
    )


def _may_be_work(columns: Columns) -> Iterator[str]:
    """Say that the host's operators may not be all there is, where events are long whose meaning is not known."""
    long = sorted((name for name, (_, ns) in columns.unknown.items() if ns), key=lambda name: -columns.unknown[name][1])
    if long:
        told = ", ".join(f"{name} ({columns.unknown[name][1] / 1e6:,.3f} ms)" for name in long)
        yield (
            f"No work of a device is known in this trace, so the times are of operators on the host; but {told} may be "
            "such work. If it is, write `kernel` for the category (`cat`) of these events and read the trace again."
        )
