"""Layers inside replayed graphs, side by side: how much GPU time of a served step comes under a layer's name.

    python experiments/peers/graphs.py [--traces ../shared/traces] [--rounds 3] [--json FILE]

`--traces` has pairs `NAME.replay.json.gz` and `NAME.capture.json.gz`; without any there is nothing to compare, and no
table. Each tool reads each pair with the capture and alone. Which names stand for layers is found in the same way for
all (`shares`). Time and memory are of one process each, in turn, `--rounds` times.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import shutil
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from readers import TraceTree, added, apart, cost, versions_apart
from rows import ROOT, machine, save, show

Work = tuple[tuple[str, ...], float]
"""Names of the ranges above a piece of work, the outermost first, and its microseconds."""


@dataclass(frozen=True)
class Shares:
    """Of all GPU time: what comes under a layer, under another name, and under none that says where.

    `layers` are microseconds inside each, in the order of their numbers.
    """

    layers: tuple[float, ...]
    in_layers: float
    named: float
    nowhere: float


@dataclass(frozen=True)
class Read:
    """What a tool says of a trace, and microseconds inside each name at any depth."""

    works: Sequence[Work]
    inside: dict[str, float]


def layerprof(trace: Path, capture: Path | None) -> Read:
    """layerprof.trace.attribute: each row under the rows above it, each bucket under nothing.

    A module that layers share is one row, below the first of them; what is inside a layer is right all the same.
    """
    from layerprof.trace.attribute import attribute

    result = attribute(trace, captures=[capture] if capture else [])
    works: list[Work] = []
    for row in result.rows:
        names, above = [row.name], row.parent
        while above is not None:
            names.insert(0, result.rows[above].name)
            above = result.rows[above].parent
        works.append((tuple(names), row.self_ns / 1e3))
    works.append(((), sum(result.buckets_ns.values()) / 1e3))
    return Read(works, added((row.name, row.inclusive_ns / 1e3) for row in result.rows))


def tracelens(trace: Path, capture: Path | None) -> Read:
    """TraceLens: each kernel under the modules above it; captures are merged by its own function."""
    with tempfile.TemporaryDirectory() as folder:
        if capture is not None:
            shutil.copy(capture, folder)
        tree = TraceTree(trace, Path(folder) if capture else None)
        works = [(tuple(reversed(names)), us) for names, us in tree.kernels(_is_module)]
    return Read(works, added((name, us) for names, us in works for name in set(names)))


TOOLS: dict[str, Callable[[Path, Path | None], Read]] = {"layerprof": layerprof, "TraceLens": tracelens}


def _is_module(name: str) -> bool:
    return str(name).startswith("nn.Module: ")


def shares(read: Read) -> Shares:
    """Return how much comes under a layer's name.

    Layers are the outermost ranges that differ by a number alone; of several such families, the one with most time. A
    name that holds over half of the time says nothing of where a kernel belongs, so time right under it is nowhere.
    """
    works, total = read.works, sum(us for _, us in read.works)
    members: dict[str, set[str]] = {}
    for name in {name for names, _ in works for name in names}:
        members.setdefault(_family(name), set()).add(name)
    outer = [next((name for name in names if len(members[_family(name)]) > 1), "") for names, _ in works]
    families = added((_family(name), us) for name, (_, us) in zip(outer, works, strict=True) if name)
    layer = max(families, key=families.__getitem__, default="")
    inside = [name != "" and _family(name) == layer for name in outer]
    in_layers = sum(us for (_, us), held in zip(works, inside, strict=True) if held)
    named = sum(
        us
        for (names, us), held in zip(works, inside, strict=True)
        if names and not held and read.inside[names[-1]] <= total / 2
    )
    found = sorted({name for name, held in zip(outer, inside, strict=True) if held}, key=_number)
    times = tuple(read.inside[name] for name in found)
    return Shares(times, in_layers / total, named / total, (total - in_layers - named) / total)


def _number(name: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", name)]


def by_class(works: Sequence[Work]) -> dict[str, float]:
    """Return microseconds by class of the innermost range, `none` where that is no numbered module."""
    return added((_class(names[-1]) if names else "none", us) for names, us in works)


def _class(name: str) -> str:
    found = re.fullmatch(r"([A-Za-z]\w*)_\d+", name.removeprefix("nn.Module: "))
    return found[1] if found else "none"


def _family(name: str) -> str:
    return re.sub(r"\d+", "#", name)


def pairs(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Return replay and capture by name, where both are there."""
    found = {}
    for replay in sorted(folder.glob("*.replay.json.gz")):
        capture = replay.with_name(replay.name.replace(".replay.", ".capture."))
        if capture.exists():
            found[replay.name.removesuffix(".replay.json.gz")] = (replay, capture)
    return found


def main() -> None:
    """Read all pairs with all tools, print the tables, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=Path, default=ROOT.parent / "shared" / "traces")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--of", choices=TOOLS)
    parser.add_argument("--trace", type=Path)
    parser.add_argument("--capture", type=Path)
    options = parser.parse_args()
    if options.of:
        print(json.dumps(read(options.of, options.trace, options.capture)))
        return
    found = pairs(options.traces)
    if not found:
        print(f"No pairs in {options.traces}: nothing to compare. Record some as docs/traces.md says.")
        return
    compare(found, options.rounds, options.json)


def read(tool: str, trace: Path, capture: Path | None) -> dict[str, Any]:
    """Return what a tool says of one trace, and what reading cost."""
    found: list[Read] = []
    spent = cost(lambda: found.append(TOOLS[tool](trace, capture)))
    return {**asdict(shares(found[0])), "by_class": by_class(found[0].works), "cost": spent}


def compare(found: dict[str, tuple[Path, Path]], rounds: int, out: Path | None) -> None:
    """Print what each tool names, its sums by class, and what it costs."""
    versions_apart()
    where = machine("layerprof", "TraceLens", "pandas", "numpy", "orjson")
    runs: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for name, (replay, capture) in found.items():
        runs[name] = {f"{tool}, {how}": [] for tool in TOOLS for how in ("with the capture", "alone")}
        for _ in range(rounds):
            for way, done in runs[name].items():
                tool, _, how = way.partition(", ")
                more = ["--capture", str(capture)] if how != "alone" else []
                done.append(apart(__file__, "--of", tool, "--trace", str(replay), *more))
    rows = [
        (name, way, *_cells(done, ways["TraceLens, with the capture"][0].get("layers", [])))
        for name, ways in runs.items()
        for way, done in ways.items()
    ]
    header = ("step", "tool", "layers", "as TraceLens's", "in a layer", "other name", "nowhere", "cpu", "memory")
    show("graphs", "GPU time of replayed graphs by layer", header, rows, where)
    show("graphs-classes", "Microseconds by class of module", ("step", "class", *TOOLS), _classes(runs), where)
    save(out, {"machine": where, "runs": runs})


def _cells(done: list[dict[str, Any]], theirs: list[float]) -> tuple[str, ...]:
    """Return layers, how many last within 0.5 % of TraceLens's by the capture, shares, and medians of the cost."""
    failed = next((run["error"] for run in done if "error" in run), None)
    if failed is not None:
        return "", "", "did not run", failed, "", "", ""
    first = done[0]
    cpu, memory = (statistics.median(run["cost"][key] for run in done) for key in ("cpu_s", "more_memory_bytes"))
    parts = (f"{100 * first[key]:.1f} %" for key in ("in_layers", "named", "nowhere"))
    alike = sum(math.isclose(ours, other, rel_tol=5e-3) for ours, other in zip(first["layers"], theirs, strict=False))
    layers = len(first["layers"])
    same = f"{alike} of {len(theirs)}" if theirs and layers else ""
    return str(layers), same, *parts, f"{cpu:.1f} s", f"{memory / 1e6:.0f} MB"


def _classes(runs: dict[str, dict[str, list[dict[str, Any]]]]) -> list[tuple[str, ...]]:
    """Return a row for each class of module, of steps whose capture has layers by module."""
    rows = []
    for name, ways in runs.items():
        ours, theirs = (ways[f"{tool}, with the capture"][0] for tool in TOOLS)
        if ours.get("layers") and theirs.get("layers"):
            sums = theirs["by_class"]
            for cls in sorted(sums, key=sums.__getitem__, reverse=True):
                rows.append((name, cls, f"{ours['by_class'].get(cls, 0):.2f}", f"{sums[cls]:.2f}"))
    return rows


if __name__ == "__main__":
    main()
