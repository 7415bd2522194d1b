"""The tools that read traces, each as a function from a trace to GPU time by layer, and a process of its own for each.

traceinsight is the later name of HolisticTraceAnalysis; its call graph sums kernels under any range, so its own time of
a layer is that sum without the layers inside. TraceLens ties each kernel to a chain of events; the innermost range of
the chain gets it here. torch-tb-profiler's parser reads the trace as recorded, and as layerprof rewrites it for it.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Times = dict[str, float]
"""Own GPU microseconds by layer."""

APART = {"traceinsight": Path(sys.prefix) / "peers-hta", "TraceLens": Path(sys.prefix) / "peers-tracelens"}
"""Folders that hold a tool which stays out of the environment: hta.txt says why. TraceLens is not on PyPI, where its
name belongs to another project; it runs where this folder has it."""


def layerprof(trace: Path) -> Times:
    """layerprof.trace.attribute."""
    from layerprof.trace.attribute import attribute

    return added((row.name, row.self_ns / 1e3) for row in attribute(trace).rows)


def tracelens(trace: Path) -> Times:
    """TraceLens: the innermost range above each kernel in its tree."""
    tree = TraceTree(trace)
    return added((_label(names[0]), us) for names, us in tree.kernels(_is_range) if names)


def insight(trace: Path) -> Times:
    """traceinsight: kernels under each range of its call graph."""
    from hta.common.trace import Trace
    from hta.common.trace_call_graph import CallGraph

    logging.disable(logging.WARNING)
    parsed = Trace(trace_files={0: str(trace)}, trace_dir="")
    parsed.parse_traces(use_multiprocessing=False)
    parsed.align_and_filter_trace()
    CallGraph(parsed)
    frame = parsed.get_trace(0)
    names = frame["name"].map(dict(enumerate(parsed.symbol_table.get_sym_table())))
    wanted = names.map(_is_range) & frame["stream"].eq(-1)
    ranges = frame[wanted].assign(label=names[wanted].map(_label), total=frame[wanted]["kernel_dur_sum"].clip(lower=0))
    own = ranges["total"].copy()
    for _, thread in ranges.sort_values(["ts", "dur"], ascending=[True, False]).groupby(["pid", "tid"]):
        stack: list[Any] = []
        for row in thread.itertuples():
            while stack and stack[-1].ts + stack[-1].dur <= row.ts:
                stack.pop()
            if stack:
                own[stack[-1].Index] -= row.total
            stack.append(row)
    return added(zip(ranges["label"], own, strict=True))


def plugin(trace: Path) -> Times:
    """torch-tb-profiler's parser on the trace as recorded."""
    from torch_tb_profiler.profiler.data import RunProfileData
    from torch_tb_profiler.profiler.run_generator import RunGenerator

    logging.disable(logging.ERROR)
    data = RunProfileData.parse("worker", "1", str(trace), str(trace.parent))
    view = RunGenerator("worker", "1", data).generate_run_profile().get_module_view()
    return added(_flat(view["data"] if view else []))


def plugin_rewritten(trace: Path) -> Times:
    """torch-tb-profiler's parser on the trace that layerprof rewrote."""
    from layerprof.trace.for_tensorboard import rewrite_for_tensorboard

    with tempfile.TemporaryDirectory() as folder:
        return plugin(rewrite_for_tensorboard(trace, folder, "worker.1"))


TOOLS: dict[str, Callable[[Path], Times]] = {
    "layerprof": layerprof,
    "TraceLens": tracelens,
    "traceinsight": insight,
    "torch-tb-profiler": plugin,
    "torch-tb-profiler, rewritten": plugin_rewritten,
}


def tracelens_tables(trace: Path) -> None:
    """TraceLens as its users have it: its tables of kernels with their modules, and of what launched them."""
    analyzer = TraceTree(trace).analyzer
    analyzer.get_df_kernels(nn_module_detail=True)
    analyzer.get_df_kernel_launchers()


class TraceTree:
    """A trace, and the captures of its graphs where a folder has them, in TraceLens's tree with Python calls."""

    def __init__(self, trace: Path, captures: Path | None = None) -> None:
        from TraceLens import TreePerfAnalyzer
        from TraceLens.Reporting.generate_perf_report_pytorch_inference import classify_graph_capture_trace

        merged: dict[str, Any] = {}
        if captures is not None:
            classify_graph_capture_trace(str(captures))
            # What it merged is built already; built again, it would lose the captures.
            merged = {"capture_trace_filepath": str(captures), "rebuild_tree": False}
        self.analyzer = TreePerfAnalyzer.from_file(str(trace), add_python_func=True, **merged)

    def kernels(self, is_range: Callable[[str], bool]) -> Iterator[tuple[list[str], float]]:
        """Yield the names of the ranges above each piece of GPU work, the innermost first, and its microseconds."""
        tree = self.analyzer.tree
        for event in tree.events:
            if event.get("cat") in {"kernel", "gpu_memcpy", "gpu_memset"}:
                names, above = [], tree.get_parent_event(event)
                while above is not None:
                    if is_range(above["name"]):
                        names.append(above["name"])
                    above = tree.get_parent_event(above)
                yield names, float(event["dur"])


def _is_range(name: str) -> bool:
    return str(name).startswith(("lp:", "nn.Module: ")) or name in {"encode", "decode"}


def _label(name: str) -> str:
    return name[3:].partition("#")[0] if name.startswith("lp:") else name.removeprefix("nn.Module: ")


def _flat(rows: list[dict[str, Any]]) -> Iterator[tuple[str, float]]:
    for row in rows:
        yield row["name"], row["self_device_duration"]
        yield from _flat(row["children"])


def added(items: Any) -> Times:
    """Sum what has one name."""
    times: Times = {}
    for name, microseconds in items:
        times[name] = times.get(name, 0.0) + float(microseconds)
    return times


def cost(work: Callable[[], object]) -> dict[str, float]:
    """Return seconds and more memory of this process's first work."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        "more_memory_bytes": 1024 * (peak - before),
    }


def apart(script: str, *arguments: str, limit_s: int = 900) -> dict[str, Any]:
    """Run a script with one tool in a process of its own; return what it found, or why it did not."""
    folders = [str(folder) for tool, folder in APART.items() if any(word.startswith(tool) for word in arguments)]
    path = os.pathsep.join([*folders, os.environ.get("PYTHONPATH", "")])
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", script, *arguments],
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
            env={**os.environ, "PYTHONPATH": path},
        )
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {limit_s} s"}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["failed"])[-1][:90]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def versions_apart() -> None:
    """Let the versions of the tools that stay apart be found; last in the path, so that nothing else of theirs is."""
    sys.path.extend(str(folder) for folder in APART.values())
