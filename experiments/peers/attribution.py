"""GPU time to layers, side by side: how much of it lands where it belongs, and what a large trace costs.

    python experiments/peers/attribution.py [--kernels 143000] [--json FILE]

Accuracy is on the traces of tests/traces_synthetic.py, whose answers follow from how they are built: the share of GPU
time that a tool gives to the right layer, or rightly to none. HolisticTraceAnalysis (its call graph) sums kernels
under any range, so its own time of a layer is that sum without the layers inside; it runs with the pandas of hta.txt,
because it fails on pandas 3. torch-tb-profiler's parser reads the trace as recorded, and as layerprof rewrites it for
it. Time and memory are of one process each, on a decode of `--kernels` kernels with seven events a kernel.
"""

from __future__ import annotations

import argparse
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

from rows import ROOT, machine, save, show

sys.path.insert(0, str(ROOT / "tests"))
import traces_synthetic as synthetic

Times = dict[str, float]
"""Own GPU microseconds by layer."""

HTA = Path(sys.prefix) / "peers-hta"
"""What hta.txt names is here, where it was installed."""

GPU_SCENARIOS = sorted(name for name in synthetic.SCENARIOS if not name.startswith("on_a_cpu") and name != "untidy")


def layerprof(trace: Path) -> Times:
    """layerprof.trace.attribute."""
    from layerprof.trace.attribute import attribute

    return _added((row.name, row.self_ns / 1e3) for row in attribute(trace).rows)


def holistic(trace: Path) -> Times:
    """HolisticTraceAnalysis: kernels under each range of its call graph."""
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
    return _added(zip(ranges["label"], own, strict=True))


def plugin(trace: Path) -> Times:
    """torch-tb-profiler's parser on the trace as recorded."""
    from torch_tb_profiler.profiler.data import RunProfileData
    from torch_tb_profiler.profiler.run_generator import RunGenerator

    logging.disable(logging.ERROR)
    data = RunProfileData.parse("worker", "1", str(trace), str(trace.parent))
    view = RunGenerator("worker", "1", data).generate_run_profile().get_module_view()
    return _added(_flat(view["data"] if view else []))


def plugin_rewritten(trace: Path) -> Times:
    """torch-tb-profiler's parser on the trace that layerprof rewrote."""
    from layerprof.trace.for_tensorboard import rewrite_for_tensorboard

    with tempfile.TemporaryDirectory() as folder:
        return plugin(rewrite_for_tensorboard(trace, folder, "worker.1"))


TOOLS: dict[str, Callable[[Path], Times]] = {
    "layerprof": layerprof,
    "HolisticTraceAnalysis": holistic,
    "torch-tb-profiler": plugin,
    "torch-tb-profiler, rewritten": plugin_rewritten,
}


def _is_range(name: str) -> bool:
    return str(name).startswith(("lp:", "nn.Module: ")) or name in {"encode", "decode"}


def _label(name: str) -> str:
    return name[3:].partition("#")[0] if name.startswith("lp:") else name.removeprefix("nn.Module: ")


def _flat(rows: list[dict[str, Any]]) -> Iterator[tuple[str, float]]:
    for row in rows:
        yield row["name"], row["self_device_duration"]
        yield from _flat(row["children"])


def _added(items: Any) -> Times:
    times: Times = {}
    for name, microseconds in items:
        times[name] = times.get(name, 0.0) + float(microseconds)
    return times


def right_share(found: Times, scenario: Any) -> float:
    """Share of GPU time in the right place: given to its layer, or to none where it belongs to none."""
    truth: Times = {}
    for (name, _), microseconds in scenario.self_us.items():
        truth[name] = truth.get(name, 0.0) + microseconds
    right = sum(min(found.get(name, 0.0), us) for name, us in truth.items())
    unplaced = scenario.total_us - sum(found.values())
    return (right + max(0.0, min(unplaced, sum(scenario.buckets_us.values())))) / scenario.total_us


def accuracy(tool: str, folder: Path) -> dict[str, float | str]:
    """Return the right share on each trace, or the error."""
    from layerprof.trace.file import write_chrome

    result: dict[str, float | str] = {}
    for name in GPU_SCENARIOS:
        scenario = synthetic.SCENARIOS[name]()
        trace = write_chrome(scenario.events, folder / f"{name}.json", {"deviceProperties": []})
        try:
            result[name] = right_share(TOOLS[tool](trace), scenario)
        except Exception as error:  # a tool that fails on a trace gets a cell that says so
            result[name] = type(error).__name__
    return result


def cost(tool: str, trace: Path) -> dict[str, float]:
    """Return seconds and peak memory of reading one large trace in this process."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.perf_counter(), time.process_time()
    TOOLS[tool](trace)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        "more_memory_bytes": 1024 * (peak - before),
    }


def apart(*arguments: str, limit_s: int = 900) -> dict[str, Any]:
    """Run one tool in a process of its own; return what it found, or why it did not."""
    command = [sys.executable, "-W", "ignore", __file__, *arguments]
    path = os.pathsep.join(filter(None, [str(HTA) if "HolisticTraceAnalysis" in arguments else "", *_python_path()]))
    try:
        done = subprocess.run(
            command,
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


def _python_path() -> list[str]:
    return os.environ.get("PYTHONPATH", "").split(os.pathsep)


def main() -> None:
    """Run all tools, print both tables, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernels", type=int, default=143_000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--accuracy-of", choices=TOOLS)
    parser.add_argument("--cost-of", choices=TOOLS)
    parser.add_argument("--trace", type=Path)
    options = parser.parse_args()
    if options.accuracy_of:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(accuracy(options.accuracy_of, Path(folder))))
        return
    if options.cost_of:
        print(json.dumps(cost(options.cost_of, options.trace)))
        return
    compare(options.kernels, options.json)


def compare(kernels: int, out: Path | None) -> None:
    """Print how right and how heavy each tool is."""
    from layerprof.trace.file import write_chrome

    sys.path.append(str(HTA))  # last: for its version only
    where = machine("layerprof", "HolisticTraceAnalysis", "torch-tb-profiler", "pandas", "numpy", "orjson")
    right = {tool: apart("--accuracy-of", tool) for tool in TOOLS}
    cells = [[name, *(_cell(right[tool], name) for tool in TOOLS)] for name in GPU_SCENARIOS]
    show("attribution", "GPU time in the right place", ("trace", *TOOLS), cells, where)
    with tempfile.TemporaryDirectory() as folder:
        events, _ = synthetic.large(kernels)
        trace = write_chrome(events, Path(folder) / "large.json", {"deviceProperties": []})
        size = trace.stat().st_size
        costs = {tool: apart("--cost-of", tool, "--trace", str(trace)) for tool in TOOLS}
    rows = [(tool, *_cost_cells(found, size)) for tool, found in costs.items()]
    title = f"A trace of {7 * kernels:,} events, {size / 1e6:.0f} MB"
    show("attribution-cost", title, ("tool", "wall", "cpu", "memory", "memory / file"), rows, where)
    save(out, {"machine": where, "right_share": right, "large": {"events": 7 * kernels, "bytes": size, "cost": costs}})


def _cell(found: dict[str, Any], name: str) -> str:
    value = found.get(name, found.get("error", ""))
    return f"{100 * value:.1f} %" if isinstance(value, float | int) else str(value)


def _cost_cells(found: dict[str, Any], size: int) -> tuple[str, str, str, str]:
    if "error" in found:
        return "did not run", "", found["error"], ""
    memory = found["more_memory_bytes"]
    return f"{found['wall_s']:.1f} s", f"{found['cpu_s']:.1f} s", f"{memory / 1e6:.0f} MB", f"{memory / size:.1f}"


if __name__ == "__main__":
    main()
