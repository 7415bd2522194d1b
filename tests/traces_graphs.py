"""Traces of CUDA graphs built by hand: captures and replays, with the layer of each kernel. Microseconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scenario import Label, Scenario

from layerprof.trace.file import write_chrome

COPY, FILL = "gpu_memcpy", "gpu_memset"
APIS = {"kernel": "LaunchKernel", COPY: "MemcpyAsync", FILL: "MemsetAsync"}


@dataclass(frozen=True)
class Node:
    """A node of a graph: what it runs, how long, and whose work it is; `work` is its category."""

    name: str
    belongs: Label | str
    us: float = 5
    work: str = "kernel"
    stream: int = 7


def layered(layers: int, *names: str, prefix: str = "model.layers", phase: str = "decode") -> list[Node]:
    """Return nodes of as many layers, each running kernels of these names; the n-th node of all takes 3 + n us."""
    every = [(f"{prefix}.{layer}", name) for layer in range(layers) for name in names]
    return [Node(name, (layer, phase), 3 + number) for number, (layer, name) in enumerate(every)]


def capture(
    s: Scenario,
    nodes: Sequence[Node],
    at: float = 1000,
    *,
    vendor: str = "cuda",
    named: bool = False,
    marked: bool = True,
    tid: int = 1,
) -> float:
    """Append a capture: a launch every 10 us in the range of its layer; return the moment after it.

    Neighbours of one layer share a call. `named` writes each kernel's name at its launch, as AMD's runtime does;
    `marked` writes where the capture begins and ends.
    """
    if marked:
        s.launch(at, api=f"{vendor}StreamBeginCapture", tid=tid)
    moment = at + 10
    opened: tuple[Label | str, float] | None = None
    for number, node in enumerate([*nodes, None]):
        if opened and (node is None or node.belongs != opened[0]):
            label, began = opened
            if not isinstance(label, str):
                s.layer(label[0], began, moment - began - 2, phase=str(label[1]), call=number, tid=tid)
            opened = None
        if node is None:
            break
        opened = opened or (node.belongs, moment - 1)
        s.correlations += 1
        told = {"kernel": node.name} if named and node.work == "kernel" else {}
        s.add("cuda_runtime", f"{vendor}{APIS[node.work]}", moment, 1, tid=tid, correlation=s.correlations, **told)
        s.captured += node.work == "kernel"
        moment += 10
    if marked:
        s.launch(moment, api=f"{vendor}StreamEndCapture", tid=tid)
    return moment + 10


def replay(
    s: Scenario,
    nodes: Sequence[Node],
    at: float,
    *,
    order: Sequence[int] = (),
    ids: bool = False,
    belongs: str | None = None,
    graph: int = 3,
) -> float:
    """Append a replay whose nodes run one after the other from 20 us after its launch on; return when the last ended.

    `order` says in which order they run, `ids` writes their graph node ids, `belongs` a bucket for all of them.
    """
    s.correlations += 1
    s.add("cuda_runtime", "cudaGraphLaunch", at, 5, correlation=s.correlations)
    moment = at + 20
    for place in order or range(len(nodes)):
        node = nodes[place]
        s.running(
            moment, node.us, belongs or node.belongs, s.correlations, name=node.name, work=node.work, stream=node.stream
        )
        if ids:
            s.events[-1]["args"]["graph node id"] = (graph << 32) + 10 + place
        moment += node.us + 1
    return moment


def written(s: Scenario, path: Path) -> Path:
    """Write a scenario's events as a trace."""
    return write_chrome(s.events, path)
