"""Layers of real traces, found from the names of kernels alone, beside what their modules or captures say."""

from __future__ import annotations

import bisect
import gzip
import json
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from kernel_stacks import owners
from paths import SHARED_TRACES

from layerprof.trace.inference.repetition import Layers, find

FOLDER = Path(__file__).parent / "h200"
WORK = ("kernel", "gpu_memcpy", "gpu_memset")
LAUNCH = re.compile(r"Launch|Memcpy|Memset")
shared = pytest.mark.skipif(not SHARED_TRACES.is_dir(), reason=f"no traces at {SHARED_TRACES.name} beside the checkout")


@cache
def events(path: Path) -> list[dict[str, Any]]:
    """Return the events of a trace that last, by their start."""
    found = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    return sorted((event for event in found if event.get("ph") == "X"), key=lambda event: float(event["ts"]))


def work(path: Path, graph: bool = False) -> list[dict[str, Any]]:
    """Return what ran on the GPU, or only what the first replay of a graph ran: the most that one launch started."""
    found = [event for event in events(path) if event.get("cat") in WORK]
    if not graph:
        return found
    launch, _ = Counter(event["args"]["correlation"] for event in found).most_common(1)[0]
    return [event for event in found if event["args"]["correlation"] == launch]


def layer_at(path: Path, pattern: str) -> list[tuple[float, float, int]]:
    """Return the ranges of layers: start, end, and the number that their name ends in."""
    matches = ((event, re.fullmatch(pattern, str(event["name"]))) for event in events(path))
    return [(float(e["ts"]), float(e["ts"]) + float(e["dur"]), int(match.group(1))) for e, match in matches if match]


def inside(ranges: list[tuple[float, float, int]], at: float) -> int | None:
    """Return the layer whose range was open; ranges of layers do not overlap."""
    place = bisect.bisect_right([start for start, *_ in ranges], at) - 1
    return ranges[place][2] if place >= 0 and at < ranges[place][1] else None


def launched(path: Path, pattern: str) -> dict[int, int | None]:
    """Return the layer of each launch by its correlation."""
    ranges = layer_at(path, pattern)
    calls = (event for event in events(path) if event.get("cat") in ("cuda_runtime", "cuda_driver"))
    return {event["args"]["correlation"]: inside(ranges, float(event["ts"])) for event in calls if "args" in event}


def looked_at(kernels: list[dict[str, Any]]) -> tuple[Layers, ...]:
    """Return the stacks found in them."""
    return find([kernel["name"] for kernel in kernels], [round(1000 * kernel["dur"]) for kernel in kernels])


def right(kernels: list[dict[str, Any]], truth: list[int | None]) -> float:
    """Return the share of time that is in its own layer, or beside the layers where it belongs there."""
    found = owners(looked_at(kernels)[-1:], len(kernels))
    told = [owner and owner[1] for owner in found]
    took = sum(kernel["dur"] for kernel in kernels)
    return float(sum(k["dur"] for k, a, b in zip(kernels, told, truth, strict=True) if a == b) / took)


@shared
@pytest.mark.parametrize(
    ("name", "module", "layers"),
    [
        ("h100_timesformer", "TimesformerLayer", 12),
        ("h100_vit-classifier", "ViTLayer", 12),
        ("sglang_qwen3-8b_mixed_eager", "Qwen3DecoderLayer", 36),
        ("h100_qwen1.5-0.5b-chat", "Qwen2DecoderLayer", 24),
    ],
)
def test_layers_of_an_eager_model_are_those_of_its_modules(name: str, module: str, layers: int) -> None:
    """Attention by its name or by its softmax alone, in one kernel or many. Work of an earlier step has no launch."""
    path = SHARED_TRACES / f"{name}.json.gz"
    told = launched(path, rf"nn\.Module: {module}_(\d+)")
    kernels = [kernel for kernel in work(path) if kernel["args"]["correlation"] in told]
    assert [len(found.starts) for found in looked_at(kernels)] == [layers]
    assert right(kernels, [told[kernel["args"]["correlation"]] for kernel in kernels]) > 0.999


@shared
def test_a_step_that_was_under_way_is_a_stack_of_its_own() -> None:
    """Ten whole layers of the step before, and the 24 of the step that was recorded from its launch on."""
    found = looked_at(work(SHARED_TRACES / "h100_qwen1.5-0.5b-chat.json.gz"))
    assert [len(layers.starts) for layers in found] == [10, 24]


@shared
def test_layers_of_a_replayed_graph_are_those_of_its_capture() -> None:
    """Kernel i of the graph is launch i + 2 of the capture, after two fills that are not part of it."""
    capture = SHARED_TRACES / "sglang_qwen3-8b_decode.capture.json.gz"
    ranges = layer_at(capture, r"nn\.Module: Qwen3DecoderLayer_(\d+)")
    ((start, end),) = (
        (float(e["ts"]), float(e["ts"]) + float(e["dur"]))
        for e in events(capture)
        if e["name"] == "capture_32_DECODE" and e["cat"] == "user_annotation"
    )
    launches = [e for e in events(capture) if e.get("cat") == "cuda_runtime" and LAUNCH.search(e["name"])]
    truth = [inside(ranges, float(e["ts"])) for e in launches if start <= float(e["ts"]) < end][2:]
    kernels = work(SHARED_TRACES / "sglang_qwen3-8b_decode.replay.json.gz", graph=True)
    assert right(kernels, truth) > 0.999


@shared
@pytest.mark.parametrize(("name", "whole"), [("decode_full", True), ("piecewise", False)])
def test_compiled_layers_of_two_kinds(name: str, whole: bool) -> None:
    """24 layers in one graph, or in 25 with eager attention between them; every other one's attention is windowed."""
    kernels = work(SHARED_TRACES / f"vllm_gpt-oss_{name}.replay.json.gz", graph=whole)
    (found,) = looked_at(kernels)
    assert len(found.starts) == 24
    took = sum(kernel["dur"] for kernel in kernels[found.starts[0] : found.end])
    assert took > 0.95 * sum(kernel["dur"] for kernel in kernels)
    if whole:
        assert found.kinds == (0, 1) * 12


def test_layers_of_our_own_graph() -> None:
    """Six layers of 44 kernels; in order, the replay's are the launches of the capture."""
    capture = FOLDER / "graph-capture.json.gz"
    ranges = layer_at(capture, r"lp:model\.language_model\.layers\.(\d+)#.*")
    begin, end = (
        next(float(e["ts"]) for e in events(capture) if f"{word}Capture" in e["name"]) for word in ("Begin", "End")
    )
    launches = [e for e in events(capture) if LAUNCH.search(e["name"]) and begin < float(e["ts"]) < end]
    truth = [inside(ranges, float(e["ts"])) for e in launches]
    kernels = work(FOLDER / "graph-replay.json.gz", graph=True)
    assert [len(layers.starts) for layers in looked_at(kernels)] == [6]
    assert right(kernels, truth) == 1.0


def test_three_replays_in_a_row_are_three_stacks() -> None:
    """Between the last layer of one and the first of the next, positions are counted anew."""
    kernels = work(FOLDER / "graph-replay.json.gz")
    launches = Counter(kernel["args"]["correlation"] for kernel in kernels)
    replays = [kernel for kernel in kernels if launches[kernel["args"]["correlation"]] > 1]
    found = looked_at(replays)
    assert [len(layers.starts) for layers in found] == [6, 6, 6]
    assert [layers.starts[0] for layers in found] == [20 + 292 * number for number in range(3)]


@shared
@pytest.mark.parametrize("name", ["a100_training_graphs", "a100_alexnet"])
def test_steps_of_training_are_no_layers(name: str) -> None:
    """Six steps of a recommender repeat, too; five convolutions of one network do not."""
    assert looked_at(work(SHARED_TRACES / f"{name}.json.gz")) == ()


@pytest.mark.parametrize("name", ["eager", "layers-compiled"])
def test_layers_of_our_own_eager_and_compiled_model(name: str) -> None:
    """Norms of eight kernels each, or fused by the compiler."""
    path = FOLDER / f"{name}.json.gz"
    told = launched(path, r"lp:model\.language_model\.layers\.(\d+)#.*")
    kernels = work(path)
    assert right(kernels, [told[kernel["args"]["correlation"]] for kernel in kernels]) == 1.0
