"""What measuring costs: the same answer with no instrument, with layerprof's latency pass, and with its peers.

    python experiments/peers/overhead.py [--rounds 80] [--tokens 64] [--device cpu|cuda] [--json FILE]

Every round runs each instrument, in a new order, between two bare runs; a figure is the median over rounds of an
instrument's time over the mean of its two neighbours. `wall` is what a user waits; `cpu` is processor time of this
process, which other load on the machine disturbs less. A peer that cannot run has a row that says why.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from layerprof.hooks.latency import LatencyHook
from rows import machine, save, show
from subject import answer, subject
from torch import nn

from layerprof.layers.find import find_layers

Instrument = Callable[[nn.Module], AbstractContextManager[Any]]


@dataclass
class Cost:
    """Ratios of one instrument, or why there are none."""

    name: str
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    reason: str = ""


@contextmanager
def latency(model: nn.Module) -> Iterator[None]:
    """Layerprof's latency pass."""
    hook = LatencyHook(model, find_layers(model), device=str(next(model.parameters()).device))
    with hook, hook.batch(0):
        yield


def profiler(stacks: bool) -> Instrument:
    """torch.profiler, as its recipe has it."""
    from torch.profiler import ProfilerActivity, profile

    kinds = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])
    return lambda model: profile(activities=kinds, with_stack=stacks, acc_events=True)


@contextmanager
def ranges(model: nn.Module) -> Iterator[None]:
    """NVTX-style ranges: `record_function` around every layer, with no profiler listening."""
    from torch.profiler import record_function

    modules, handles, opened = dict(model.named_modules()), [], []

    def before(name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            opened.append(record_function(name))
            opened[-1].__enter__()

        return hook

    def after(*_: Any) -> None:
        opened.pop().__exit__(None, None, None)

    for layer in find_layers(model):
        handles.append(modules[layer.name].register_forward_pre_hook(before(layer.name)))
        handles.append(modules[layer.name].register_forward_hook(after))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def deepspeed() -> Instrument:
    """DeepSpeed's flops profiler, which also times every module."""
    from deepspeed.profiling.flops_profiler import FlopsProfiler

    @contextmanager
    def around(model: nn.Module) -> Iterator[None]:
        profiling = FlopsProfiler(model)
        profiling.start_profile()
        try:
            yield
        finally:
            profiling.stop_profile()
            profiling.end_profile()

    return around


SLOW = {"torch.profiler", "torch.profiler with stacks", "DeepSpeed flops profiler"}
"""Instruments that take so long to clear up, and cost so much, that an eighth of the rounds does."""

PEERS: dict[str, Callable[[], Instrument]] = {
    "bare again": lambda: lambda model: nullcontext(),
    "layerprof latency pass": lambda: latency,
    "record_function around layers": lambda: ranges,
    "torch.profiler": lambda: profiler(stacks=False),
    "torch.profiler with stacks": lambda: profiler(stacks=True),
    "DeepSpeed flops profiler": deepspeed,
}


def timed(run: Callable[[], Any], around: AbstractContextManager[Any], device: str) -> tuple[float, float]:
    """Return wall and processor seconds of one run; making ready and clearing up are not counted."""
    with ExitStack() as stack:
        stack.enter_context(around)
        synchronize(device)
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        synchronize(device)
        return time.perf_counter() - wall, time.process_time() - cpu


def synchronize(device: str) -> None:
    """Wait for the device."""
    if device != "cpu":
        torch.cuda.synchronize()


def measure(model: Any, run: Callable[[], Any], rounds: int, device: str) -> list[Cost]:
    """Alternate instruments and bare runs."""
    costs, ready = [], {}
    for name, make in PEERS.items():
        cost = Cost(name)
        costs.append(cost)
        try:
            ready[name] = make()
            timed(run, ready[name](model), device)
        except Exception as error:  # a peer that fails gets a row that says so
            ready.pop(name, None)
            cost.reason = f"{type(error).__name__}: {error}".splitlines()[0][:90]
    bare = timed(run, nullcontext(), device)
    order, shuffled = list(costs), random.Random(0)
    for number in range(rounds):
        shuffled.shuffle(order)  # what one instrument leaves behind must not always fall on the same next one
        for cost in order:
            if cost.name not in ready or (cost.name in SLOW and number % 8):
                continue
            wall, cpu = timed(run, ready[cost.name](model), device)
            after = timed(run, nullcontext(), device)
            cost.wall.append(2 * wall / (bare[0] + after[0]))
            cost.cpu.append(2 * cpu / (bare[1] + after[1]))
            bare = after
    return costs


def percent(ratios: list[float]) -> str:
    """Return the median overhead with its quartiles."""
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
    return f"{100 * (middle - 1):+.1f} % [{100 * (low - 1):+.1f}, {100 * (high - 1):+.1f}]"


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=80)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore")
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    model, inputs = subject(options.device)

    def run() -> Any:
        return answer(model, inputs, options.tokens)

    costs = measure(model, run, options.rounds, options.device)
    seconds, _ = timed(run, nullcontext(), options.device)
    where = machine("torch", "transformers", "deepspeed", "layerprof")
    rows = [(c.name, percent(c.wall), percent(c.cpu)) if c.wall else (c.name, "did not run", c.reason) for c in costs]
    title = f"Overhead of one generate() of {options.tokens} tokens ({seconds:.3f} s bare), median [quartiles]"
    show("overhead", title, ("instrument", "wall", "cpu"), rows, where)
    figures = {c.name: {"wall": c.wall, "cpu": c.cpu, "reason": c.reason} for c in costs}
    save(options.json, {"machine": where, "settings": {**vars(options), "json": None}, "ratios": figures})


if __name__ == "__main__":
    main()
