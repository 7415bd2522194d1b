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
from layerprof.trace.attribution import GRAPH, NO_LAUNCH, OUTSIDE, Naming

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


def replayed(name: str) -> list[list[dict[str, Any]]]:
    """Return what each `cudaGraphLaunch` ran, in the order in which it ran."""
    graphs = [e["args"]["correlation"] for e in events(name) if e["name"] == "cudaGraphLaunch"]
    work = [e for e in events(name) if e.get("cat") in WORK]
    return [sorted((e for e in work if e["args"]["correlation"] == graph), key=lambda e: e["ts"]) for graph in graphs]


def captured_by_hand(capture: str, replay: str) -> Counter[str]:
    """Return nanoseconds by layer, "" for none: the n-th node that ran is the n-th that was captured."""
    found = events(capture)
    begin = next(e["ts"] for e in found if e["name"] == "cudaStreamBeginCapture")
    end = next(e["ts"] for e in found if e["name"] == "cudaStreamEndCapture")
    calls = [e for e in found if e["name"].startswith(("cudaLaunchKernel", "cuLaunchKernel", "cudaMemsetAsync"))]
    calls = sorted((e for e in calls if begin < e["ts"] < end), key=lambda e: e["ts"])
    ranges = [e for e in found if e["name"].startswith("lp:")]
    took: Counter[str] = Counter()
    for work in replayed(replay):
        assert len(work) == len(calls)
        for call, ran in zip(calls, work, strict=True):
            around = [r for r in ranges if r["ts"] <= call["ts"] <= r["ts"] + r["dur"]]
            inner = min(around, key=lambda r: float(r["dur"]), default=None)
            took[re.sub(r"^lp:|#.*$", "", inner["name"]) if inner else ""] += round(1000 * ran["dur"])
    return took


@pytest.mark.parametrize(("name", "replays"), [("graph-replay", 3), ("graph-both", 3), ("graph-capture", 0)])
def test_all_that_a_replay_ran_carries_its_correlation(name: str, replays: int) -> None:
    """286 kernels and 6 fills, and no other launch was seen for them: without captures nothing tells their layers."""
    assert [len(work) for work in replayed(name)] == [292] * replays
    result = attribute(FOLDER / f"{name}.json.gz", infer=False)
    assert result.launched_not_recorded == 0
    if name == "graph-replay":
        ran = sum(round(1000 * e["dur"]) for work in replayed(name) for e in work)
        assert result.buckets_ns[GRAPH] == pytest.approx(ran)


@pytest.mark.parametrize(("capture", "replay"), [("graph-capture", "graph-replay"), ("graph-both", "graph-both")])
def test_each_replayed_kernel_goes_to_the_layer_in_which_it_was_captured(capture: str, replay: str) -> None:
    """By order alone: torch 2.11 writes no graph node ids. A capture in the trace itself is found without a name."""
    given = [] if capture == replay else [FOLDER / f"{capture}.json.gz"]
    result = attribute(FOLDER / f"{replay}.json.gz", captures=given)
    due = captured_by_hand(capture, replay)
    assert {row.name: row.self_ns for row in result.rows if row.self_ns} == pytest.approx(
        {layer: ns for layer, ns in due.items() if layer}
    )
    assert set(LAYERS) < set(due)
    rows = [row for row in result.rows if row.name in LAYERS and row.naming == Naming.CAPTURED]
    assert [row.calls for row in rows] == [3] * len(LAYERS)


def test_layers_inferred_from_a_replay_are_those_of_its_capture() -> None:
    """To the nanosecond: six layers, cut where the model cuts them."""
    due = captured_by_hand("graph-capture", "graph-replay")
    rows = {row.name: row.self_ns for row in attribute(FOLDER / "graph-replay.json.gz").rows}
    assert [rows[f"layer {number}"] for number in range(6)] == pytest.approx([due[layer] for layer in LAYERS])
    assert rows["tail"] == due["model.language_model.norm"]


def test_a_capture_launches_as_many_as_its_replay_runs() -> None:
    """286 kernels, each captured once and run once in a replay."""
    runs = Counter(e["args"]["correlation"] for e in events("graph-replay") if e.get("cat") == "kernel")
    replayed = sorted(runs.values())[-3:]
    assert len(set(replayed)) == 1
    assert attribute(FOLDER / "graph-capture.json.gz").captured == replayed[0]
