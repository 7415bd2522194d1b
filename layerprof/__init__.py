"""layerprof: where do the FLOPs, milliseconds and joules of a vision-language model go, layer by layer?

run = layerprof.profile(model="demo", dataset="textvqa")      # what the command line does
run = layerprof.load_run("traces/...")                        # a finished run again
with layerprof.LayerProfiler(model) as prof:                  # your own model and loop
    model.generate(**inputs)
prof.run.ledger.flops.residual
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layerprof.commands.api import profile
    from layerprof.measure.own_loop import LayerProfiler
    from layerprof.records import Run
    from layerprof.runs.store import load as load_run

__version__ = "0.1.0"
__all__ = ["LayerProfiler", "Run", "__version__", "load_run", "profile"]

_WHERE = {
    "LayerProfiler": ("layerprof.measure.own_loop", "LayerProfiler"),
    "Run": ("layerprof.records", "Run"),
    "load_run": ("layerprof.runs.store", "load"),
    "profile": ("layerprof.commands.api", "profile"),
}


def __getattr__(name: str) -> Any:
    """Import the public names when they are first asked for, so that `import layerprof` loads no torch."""
    if name not in _WHERE:
        raise AttributeError(f"module 'layerprof' has no attribute '{name}'")
    module, attribute = _WHERE[name]
    return getattr(importlib.import_module(module), attribute)
