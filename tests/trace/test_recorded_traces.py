"""Traces of an H200 (`experiments/gpu_traces.py`, torch 2.11, CUDA 13): each kernel goes where it was launched.

Six decoder layers do one step; the truth is found here by brute force, launch by launch.
"""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from layerprof.trace.attribute import attribute
from layerprof.trace.attribution import GRAPH, NO_LAUNCH, OUTSIDE

FOLDER = Path(__file__).parent / "h200"
WORK = ("kernel", "gpu_memcpy", "gpu_memset")
LAYERS = [f"model.language_model.layers.{number}" for number in range(6)]


def events(name: str) -> list[dict[str, Any]]:
    """Return the events of a trace that last."""
    found = json.loads(gzip.decompress((FOLDER / f"{name}.json.gz").read_bytes()))["traceEvents"]
    return [event for event in found if event.get("ph") == "X"]


def by_hand(name: str) -> Counter[str]:
    """Return nanoseconds of work by the innermost range that was open when it was launched, "" where there was none."""
    found = events(name)
    launches = {e["args"]["correlation"]: e for e in found if e.get("cat") in ("cuda_runtime", "cuda_driver")}
    ranges = [e for e in found if e["name"].startswith("lp:")]
    warm_up = next(e for e in found if e["name"] == "layerprof: warm-up launches")
    took: Counter[str] = Counter()
    for work in (e for e in found if e.get("cat") in WORK):
        launch = launches[work["args"]["correlation"]]
        at = float(launch["ts"])
        around = [r for r in ranges if r["tid"] == launch["tid"] and r["ts"] <= at <= r["ts"] + r["dur"]]
        if warm_up["ts"] <= at <= warm_up["ts"] + warm_up["dur"]:
            continue
        inner = min(around, key=lambda r: float(r["dur"]), default=None)
        layer = re.sub(r"^lp:|#.*$", "", inner["name"]) if inner else ""
        took[layer] += round(1000 * work["dur"])
    return took


@pytest.mark.parametrize("name", ["eager", "layers-compiled"])
def test_each_kernel_goes_to_the_layer_that_launched_it(name: str) -> None:
    """Triton's and cuBLAS's, which go through the driver, among them; nothing is left over."""
    result = attribute(FOLDER / f"{name}.json.gz")
    due = by_hand(name)
    assert {row.name: row.self_ns for row in result.rows} == pytest.approx(due)
    assert result.total_ns == pytest.approx(sum(due.values()))
    assert result.buckets_ns == {OUTSIDE: 0, NO_LAUNCH: 0, GRAPH: 0}
    assert set(LAYERS) < set(due)


def test_the_compilers_kernels_are_in_the_layers() -> None:
    """Each compiled layer has kernels that Triton made."""
    rows = {row.name: row for row in attribute(FOLDER / "layers-compiled.json.gz").rows}
    assert all(any(kernel.startswith("triton_") for kernel, *_ in rows[layer].top) for layer in LAYERS)


@pytest.mark.parametrize(("name", "replays"), [("graph-replay", 3), ("graph-both", 3), ("graph-capture", 0)])
def test_replayed_work_is_in_its_bucket(name: str, replays: int) -> None:
    """All that one `cudaGraphLaunch` ran carries its correlation, and no other launch was seen for it."""
    found = events(name)
    graphs = {e["args"]["correlation"] for e in found if e["name"] == "cudaGraphLaunch"}
    assert len(graphs) == replays
    replayed = [e for e in found if e.get("cat") in WORK and e["args"]["correlation"] in graphs]
    result = attribute(FOLDER / f"{name}.json.gz")
    assert result.buckets_ns[GRAPH] == pytest.approx(sum(round(1000 * e["dur"]) for e in replayed))
    assert result.launched_not_recorded == 0


def test_a_capture_launches_as_many_as_its_replay_runs() -> None:
    """286 kernels, each captured once and run once in a replay."""
    runs = Counter(e["args"]["correlation"] for e in events("graph-replay") if e.get("cat") == "kernel")
    replayed = sorted(runs.values())[-3:]
    assert len(set(replayed)) == 1
    assert attribute(FOLDER / "graph-capture.json.gz").captured == replayed[0]
