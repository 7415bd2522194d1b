"""Record small traces of one decode-like step, as production runs it: eager, in a CUDA graph, compiled, and both.

    python experiments/gpu_traces.py FOLDER

The bundled model's decoder does one step in each. Of a graph there are two traces: `*-capture`, in which it is captured
under the layers' ranges, and `*-replay`, a later session that replays it three times. `both` holds the two in one file.
Prints for each trace what its kernels, launches and copies carry. Needs a GPU; about 40 s, most of it the compiler's.
"""

from __future__ import annotations

import gzip
import json
import shutil
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))

import torch
from layerprof.hooks.kernels import KernelsHook
from subject import subject

from layerprof.layers.find import find_layers

TOKENS, REPLAYS = 8, 3


class Step:
    """The decoder of the bundled model on fixed inputs: without a cache, so that it can be captured as it is."""

    def __init__(self) -> None:
        self.model, _ = subject("cuda:0")
        self.model.half()
        self.decoder = self.model.model.language_model
        hidden = self.model.config.get_text_config().hidden_size
        self.x = torch.randn(2, TOKENS, hidden, device="cuda", dtype=torch.float16)
        self.positions = torch.arange(TOKENS, device="cuda").expand(3, 2, TOKENS).contiguous()
        # Given, since transformers makes none while it runs and one while it is captured: compiled layers would be
        # compiled again in the middle of the capture, which ends it.
        mask = torch.ones(TOKENS, TOKENS, device="cuda", dtype=torch.bool).tril().expand(2, 1, TOKENS, TOKENS)
        self.masks = {"full_attention": mask.contiguous()}

    def __call__(self) -> Any:
        """Run it."""
        with torch.no_grad():
            given = {"attention_mask": self.masks, "position_ids": self.positions, "use_cache": False}
            return self.decoder(inputs_embeds=self.x, **given).last_hidden_state

    def recorded(self, folder: Path, name: str, *works: Callable[[], Any]) -> None:
        """Record the works in one session, and keep its trace as NAME.json.gz."""
        hook = KernelsHook(self.model, find_layers(self.model), device="cuda:0", folder=folder / name)
        with hook, hook.batch(0):
            for work in works:
                work()
        shutil.copyfile(hook.files["trace_0"], folder / f"{name}.json.gz")
        shutil.rmtree(folder / name)

    def captured(self, graph: torch.cuda.CUDAGraph, work: Callable[[], Any]) -> Callable[[], None]:
        """Return what captures the work into the graph."""

        def capture() -> None:
            with torch.cuda.graph(graph):
                self.out = work()

        return capture


def replays(graph: torch.cuda.CUDAGraph) -> Callable[[], None]:
    """Return what replays the graph."""

    def replay() -> None:
        for _ in range(REPLAYS):
            graph.replay()

    return replay


def warm(work: Callable[[], Any]) -> None:
    """Run it three times on a stream of its own, as captures want it."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()


def eager(folder: Path) -> None:
    """Record the step as it is."""
    step = Step()
    warm(step)
    step.recorded(folder, "eager", step)


def graphs(folder: Path) -> None:
    """Record capture and replay of the eager step's graph, apart and together."""
    step, graph = Step(), torch.cuda.CUDAGraph()
    warm(step)
    step.recorded(folder, "graph-capture", step.captured(graph, step))
    step.recorded(folder, "graph-replay", replays(graph))
    both = torch.cuda.CUDAGraph()
    step.recorded(folder, "graph-both", step.captured(both, step), replays(both))


def compiled(folder: Path) -> None:
    """Record the compiled step, and capture and replay of its graph."""
    step, graph = Step(), torch.cuda.CUDAGraph()
    faster = torch.compile(step)
    warm(faster)
    step.recorded(folder, "compiled", faster)
    step.recorded(folder, "compiled-graph-capture", step.captured(graph, faster))
    step.recorded(folder, "compiled-graph-replay", replays(graph))


def layers_compiled(folder: Path) -> None:
    """Record the step with each layer compiled by itself, under ranges that stay."""
    step, graph = Step(), torch.cuda.CUDAGraph()
    for layer in step.decoder.layers:
        layer.forward = torch.compile(layer.forward)
    warm(step)
    step.recorded(folder, "layers-compiled", step)
    step.recorded(folder, "layers-compiled-graph-capture", step.captured(graph, step))
    step.recorded(folder, "layers-compiled-graph-replay", replays(graph))


def told(trace: Path) -> str:
    """Return what a trace's events carry: how many of each category, and the arguments of work on the device."""
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    kinds = Counter(event["cat"] for event in events if "cat" in event)
    lines = [f"{trace.name}  {trace.stat().st_size / 1e3:.0f} kB  {dict(kinds)}"]
    for cat in ("kernel", "gpu_memcpy", "gpu_memset", "cuda_runtime", "cuda_driver"):
        ours = [event for event in events if event.get("cat") == cat]
        keys = Counter(key for event in ours for key in event.get("args", {}))
        if ours:
            lines.append(f"    {cat} {len(ours)}: {dict(keys)}")
            lines += [f"        {_short(event)}" for event in ours[-2:]]
    names = Counter(event["name"] for event in events if event.get("cat") in ("cuda_runtime", "cuda_driver"))
    lines.append(f"    calls: {dict(names.most_common(12))}")
    return "\n".join(lines)


def _short(event: Mapping[str, Any]) -> str:
    return json.dumps({key: event[key] for key in ("name", "dur", "args") if key in event})[:600]


def main() -> int:
    """Record each; one that fails stops none after it."""
    if len(sys.argv) != 2 or not torch.cuda.is_available():
        print(__doc__, file=sys.stderr)
        return 2
    folder, failed = Path(sys.argv[1]), 0
    folder.mkdir(parents=True, exist_ok=True)
    for record in (eager, graphs, layers_compiled, compiled):
        try:
            record(folder)
        except Exception:
            failed = 1
            traceback.print_exc()
    for trace in sorted(folder.glob("*.json.gz")):
        print(told(trace))
    return failed


if __name__ == "__main__":
    sys.exit(main())
