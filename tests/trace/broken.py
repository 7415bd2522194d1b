"""Trace files that are broken in a known way: small ones, with what they hold counted by hand."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerprof.trace.file import TraceFile

Event = dict[str, Any]

EVENTS: list[Event] = [
    {"ph": "X", "cat": "user_annotation", "name": "block0", "pid": 1, "tid": 1, "ts": 0, "dur": 100, "args": {}},
    {
        "ph": "X",
        "cat": "cuda_runtime",
        "name": "cudaLaunchKernel",
        "pid": 1,
        "tid": 1,
        "ts": 10,
        "dur": 2,
        "args": {"correlation": 1, "dims": [[1, 2], []], "nested": [{"name": "a"}, {"name": "b", "x": {"y": {}}}]},
    },
    {"ph": "X", "cat": "kernel", "name": "gemm", "pid": 0, "tid": 7, "ts": 50, "dur": 30, "args": {"correlation": 1}},
]
"""One range, one launch, one kernel of 30 us, which belongs to `block0`."""

GOOD = [json.dumps(event) for event in EVENTS]
BLOCK, LAUNCH, KERNEL = GOOD
QUOTES = (
    '{"ph":"X","cat":"python_function","name":"{"device": "cpu", "dtype": "float32"}(12): run",'
    '"pid":1,"tid":1,"ts":10,"dur":8,"args":{}}'
)
"""A name as torch.compile makes it and older releases of torch write it."""
BACKSLASH = (
    '{"ph":"X","cat":"python_function","name":"C:\\Users\\x\\model.py(3): f","pid":1,"tid":1,"ts":10,"dur":8,"args":{}}'
)


@dataclass(frozen=True)
class Reading:
    """What a reading of a file gave."""

    events: list[Event]
    unreadable: int
    cut_off: bool
    remarks: tuple[str, ...]
    metadata: dict[str, Any]


def read(path: Path, content: str | bytes) -> Reading:
    """Write a file as it stands, and read it."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    trace = TraceFile(path)
    events = [event for piece in trace for event in piece]
    return Reading(events, trace.unreadable, trace.cut_off, trace.remarks, trace.metadata)


def held(*events: str, head: str = "", tail: str = "") -> str:
    """Return an object with these events as they are written, and text before and behind them."""
    return f'{{{head}"traceEvents":[\n' + ",\n".join(events) + f"\n]{tail}}}"


def packed(text: str) -> bytes:
    """Return text as gzip packs it."""
    return gzip.compress(text.encode())
