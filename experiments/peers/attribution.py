"""GPU time to layers, side by side: how much of it lands where it belongs, and what a large trace costs.

    python experiments/peers/attribution.py [--kernels 143000] [--rounds 3] [--json FILE]

Accuracy is on the traces of tests/traces_synthetic.py, whose answers follow from how they are built: the share of GPU
time that a tool gives to the right layer, or rightly to none. Time and memory are of one process each, on a decode of
`--kernels` kernels with seven events a kernel, read by every tool in turn, `--rounds` times; a ratio is of one round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from readers import TOOLS, Times, apart, cost, tracelens_tables, versions_apart
from rows import ROOT, machine, save, show

sys.path.insert(0, str(ROOT / "tests"))
import traces_synthetic as synthetic

GPU_SCENARIOS = sorted(set(synthetic.SCENARIOS) - {"untidy", *synthetic.WITHOUT_GPU_WORK})

COSTS: dict[str, Callable[[Path], object]] = {
    "layerprof": TOOLS["layerprof"],
    "TraceLens": TOOLS["TraceLens"],
    "TraceLens, with its tables": tracelens_tables,
    **TOOLS,
}
"""What one large trace is given to; a tool's own tables are no attribution that could be judged."""
PACKAGES = ("layerprof", "TraceLens", "traceinsight", "torch-tb-profiler", "pandas", "numpy", "orjson")


def right_share(found: Times, scenario: Any) -> float:
    """Share of GPU time in the right place: given to its layer, or to none where it belongs to none."""
    truth: Times = {}
    for (name, _), microseconds in scenario.self_us.items():
        truth[name] = truth.get(name, 0.0) + microseconds
    right = sum(min(found.get(name, 0.0), us) for name, us in truth.items())
    unplaced = scenario.total_us - sum(found.values())
    return (right + max(0.0, min(unplaced, sum(scenario.buckets_us.values())))) / scenario.total_us


def arrows(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the flow from each launch to what it ran, as torch writes them: TraceLens goes by these alone."""
    flow = {"cat": "ac2g", "name": "ac2g"}
    ends: dict[Any, dict[str, Any]] = {}
    for event in events:
        link = event.get("args", {}).get("correlation")
        if link is not None and event.get("dur") is not None:
            where = {key: event[key] for key in ("pid", "tid", "ts")}
            launches = str(event["cat"]).lower().startswith(("cuda_", "runtime", "driver"))
            end = {"ph": "s", "id": link} if launches else {"ph": "f", "id": link, "bp": "e"}
            ends.setdefault((link, end["ph"]), end | where | flow)
    return list(ends.values())


def accuracy(tool: str, folder: Path) -> dict[str, float | str]:
    """Return the right share on each trace, or the error."""
    from layerprof.trace.file import write_chrome

    result: dict[str, float | str] = {}
    for name in GPU_SCENARIOS:
        scenario = synthetic.SCENARIOS[name]()
        events = [*scenario.events, *arrows(scenario.events)]
        trace = write_chrome(events, folder / f"{name}.json", {"deviceProperties": []})
        try:
            result[name] = right_share(TOOLS[tool](trace), scenario)
        except Exception as error:  # a tool that fails on a trace gets a cell that says so
            result[name] = type(error).__name__
    return result


def main() -> None:
    """Run all tools, print both tables, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernels", type=int, default=143_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--accuracy-of", choices=TOOLS)
    parser.add_argument("--cost-of", choices=COSTS)
    parser.add_argument("--trace", type=Path)
    options = parser.parse_args()
    if options.accuracy_of:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(accuracy(options.accuracy_of, Path(folder))))
        return
    if options.cost_of:
        print(json.dumps(cost(lambda: COSTS[options.cost_of](options.trace))))
        return
    compare(options.kernels, options.rounds, options.json)


def compare(kernels: int, rounds: int, out: Path | None) -> None:
    """Print how right and how heavy each tool is."""
    from layerprof.trace.file import write_chrome

    versions_apart()
    where = machine(*PACKAGES)
    right = {tool: apart(__file__, "--accuracy-of", tool) for tool in TOOLS}
    cells = [[name, *(_cell(right[tool], name) for tool in TOOLS)] for name in GPU_SCENARIOS]
    show("attribution", "GPU time in the right place", ("trace", *TOOLS), cells, where)
    with tempfile.TemporaryDirectory() as folder:
        events, _ = synthetic.large(kernels)
        trace = write_chrome(events, Path(folder) / "large.json", {"deviceProperties": []})
        size = trace.stat().st_size
        costs: dict[str, list[dict[str, Any]]] = {tool: [] for tool in COSTS}
        for _ in range(rounds):
            for tool, runs in costs.items():
                runs.append(apart(__file__, "--cost-of", tool, "--trace", str(trace)))
    rows = [(tool, *cost_cells(runs, costs["layerprof"], size)) for tool, runs in costs.items()]
    title = f"A trace of {7 * kernels:,} events, {size / 1e6:.0f} MB, median of {rounds}"
    header = ("tool", "cpu", "memory", "memory / file", "cpu, times layerprof's", "memory, times layerprof's")
    show("attribution-cost", title, header, rows, where)
    save(out, {"machine": where, "right_share": right, "large": {"events": 7 * kernels, "bytes": size, "cost": costs}})


def _cell(found: dict[str, Any], name: str) -> str:
    value = found.get(name, found.get("error", ""))
    return f"{100 * value:.1f} %" if isinstance(value, float | int) else str(value)


def cost_cells(runs: list[dict[str, Any]], ours: list[dict[str, Any]], size: int) -> tuple[str, ...]:
    """Return medians over the rounds, and medians of what each round makes of a tool's over layerprof's."""
    failed = next((run["error"] for run in (*runs, *ours) if "error" in run), None)
    if failed is not None:
        return "did not run", failed, "", "", ""
    cpu, memory = ([run[key] for run in runs] for key in ("cpu_s", "more_memory_bytes"))
    times = [
        statistics.median(run[key] / own[key] for run, own in zip(runs, ours, strict=True))
        for key in ("cpu_s", "more_memory_bytes")
    ]
    heavy = statistics.median(memory)
    return (
        f"{statistics.median(cpu):.1f} s",
        f"{heavy / 1e6:.0f} MB",
        f"{heavy / size:.1f}",
        f"{times[0]:.1f}",
        f"{times[1]:.1f}",
    )


if __name__ == "__main__":
    main()
