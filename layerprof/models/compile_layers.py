"""`--optimization compile`: each decoder layer compiled on its own, inside the hooks, with a static KV cache.

`torch.compile(model).generate()` compiles nothing, since `generate` is not the compiled callable. Compiling layer by
layer ("regional compilation") keeps a row per layer: the hooks stand outside the compiled region.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from layerprof.errors import RunFailedError
from layerprof.machine import internals
from layerprof.models.patch import Replaced, as_method
from layerprof.readings import Layer

if TYPE_CHECKING:
    from torch import nn


@dataclass
class Compiled:
    """What was compiled: graphs so far, and seconds that compiling calls took (the first walk, results discarded)."""

    graphs: int = 0
    seconds: float = 0.0


@contextmanager
def compiled_decoder(model: nn.Module, layers: Sequence[Layer], backend: str = "inductor") -> Iterator[Compiled]:
    """Compile the forward of every decoder layer for the length of the block; afterwards the model is as before."""
    import torch

    modules = dict(model.named_modules())
    decoder = [modules[layer.name] for layer in layers if layer.kind == "decoder_layer"]
    torch.compiler.reset()
    internals.forget_graphs()
    # One code object serves all layers; each layer's index is a constant of its own graphs, prefill's and decode's.
    limit = 4 * len(decoder) + 16
    with internals.recompile_limits(limit, max(256, 4 * limit)), warnings.catch_warnings():
        # Of weights in a format of torchao's: they cost torch its cache of compiled graphs on disk, and no figure.
        warnings.filterwarnings("ignore", message=".*does not implement _stable_hash_for_caching")
        compiled = [
            Replaced(module, lambda forward: as_method(torch.compile(forward, backend=backend))) for module in decoder
        ]
        try:
            yield Compiled()
        finally:
            for one in compiled:
                one.remove()
            torch.compiler.reset()


@contextmanager
def uncompiled() -> Iterator[None]:
    """Run compiled functions as they were before, for the length of the block."""
    import torch

    with torch.compiler.set_stance("force_eager"):
        yield


def graphs() -> int:
    """Return how many graphs torch has compiled since `compiled_decoder` began."""
    return internals.graphs_compiled()


@contextmanager
def compile_time(report: Compiled) -> Iterator[None]:
    """Count what a warm-up walk compiles and how long it takes.

    Raises RunFailedError when nothing was compiled: figures of an eager model must not be called compiled.
    """
    start = time.perf_counter()
    yield
    report.seconds += time.perf_counter() - start
    report.graphs = graphs()
    if report.graphs == 0:
        raise RunFailedError(
            "Nothing was compiled: torch.compile left every decoder layer eager.",
            "Use --optimization eager, or look for graph breaks with TORCH_LOGS=graph_breaks.",
        )
