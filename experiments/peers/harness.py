"""What a harness costs beside the work that it measures, a cell: layerprof's sweep and optimum-benchmark.

    python experiments/peers/harness.py [--repeats 3] [--json FILE]

Four tiny cells each: two prompt lengths by batches of 1 and 2, 4 answers of 4 tokens, on the CPU. `waited` is from the
command's start to its end over the cells; `measuring` the seconds in which answers were being timed; `the rest` their
difference: starting processes, importing, loading, preparing samples, counting FLOPs, scoring and writing. For
layerprof, `outside cells` is the sweep's time less its cells' own. Every figure is the median over repeats.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rows import machine, save, show

CELLS = 4
EXPERIMENT = """
title = "Four tiny cells"
[base]
model = "demo"
dataset = "textvqa"
samples = 4
max_new_tokens = 4
fixed_tokens = true
trace = false
energy = "off"
device = "cpu"
[axes]
image_size = [224, 252]
batch_size = [1, 2]
"""
Figures = dict[str, float | None]


def layerprof() -> Figures:
    """`layerprof sweep` of the experiment, as a user starts it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tiny.toml").write_text(EXPERIMENT)
        command = [sys.executable, "-m", "layerprof", "sweep", str(folder / "tiny.toml"), "--output", f"{name}/out"]
        waited = _seconds(command)
        sweep = json.loads((folder / "out" / "sweep.json").read_text())
        passes = [json.loads(run.read_text())["passes"] for run in (folder / "out" / "cells").glob("*/run.json")]
        if len(passes) != CELLS:
            raise RuntimeError(f"{len(passes)} of {CELLS} cells have a run")
        measuring = sum(one[part] for one in passes for part in ("quality_s", "bare_s", "latency_s"))
        return _per_cell(waited, measuring, sweep["wall_s"] - sweep["cells_s"])


def optimum() -> Figures:
    """optimum-benchmark's process launcher, cell after cell in one command."""
    script = Path(__file__).with_name("optimum_cells.py")
    start = time.perf_counter()
    environment = {**os.environ, "LOG_LEVEL": "ERROR", "LOG_TO_FILE": "0"}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=300, check=False, env=environment
    )
    waited = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["failed"])[-1][:90])
    found = json.loads(done.stdout.splitlines()[-1])
    waited -= found["making_the_model_s"]  # the price of this comparison, not of the harness
    return _per_cell(waited, sum(cell["measuring_s"] for cell in found["cells"]), None)


TOOLS: dict[str, Callable[[], Figures]] = {"layerprof sweep": layerprof, "optimum-benchmark": optimum}


def _seconds(command: list[str]) -> float:
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["failed"])[-1][:90])
    return time.perf_counter() - start


def _per_cell(waited: float, measuring: float, outside: float | None) -> Figures:
    parts: Figures = {
        "waited": waited,
        "measuring": measuring,
        "the rest": waited - measuring,
        "outside cells": outside,
    }
    return {name: None if seconds is None else seconds / CELLS for name, seconds in parts.items()}


def measure(repeats: int) -> dict[str, list[Figures] | str]:
    """Alternate the tools; one that fails has its reason in place of figures."""
    found: dict[str, Any] = {name: [] for name in TOOLS}
    for _ in range(repeats):
        for name, run in TOOLS.items():
            if isinstance(found[name], str):
                continue
            try:
                found[name].append(run())
            except Exception as error:  # a harness that cannot run is a row that says so
                found[name] = f"{type(error).__name__}: {error}".splitlines()[0]
    return found


def rows(found: dict[str, list[Figures] | str]) -> list[list[str]]:
    """Return a row a tool."""
    table = []
    for name, figures in found.items():
        if isinstance(figures, str):
            table.append([name, "did not run", figures, "", ""])
            continue
        cells = []
        for part in ("waited", "measuring", "the rest", "outside cells"):
            values = [one[part] for one in figures if one[part] is not None]
            cells.append(f"{statistics.median(values):.2f} s" if values else "not told apart")
        table.append([name, *cells])
    return table


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    where = machine("layerprof", "optimum-benchmark", "torch", "transformers")
    found = measure(options.repeats)
    header = ["harness", "waited", "measuring", "the rest", "outside cells"]
    show("harness", f"Seconds a cell, of {CELLS} cells", header, rows(found), where)
    save(options.json, {"machine": where, "settings": {"repeats": options.repeats}, "per_cell": found})


if __name__ == "__main__":
    main()
