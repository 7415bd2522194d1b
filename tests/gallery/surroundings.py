"""What of torch, numpy and Python stands around a model: modes, generators, switches, hooks, threads.

Private names of torch stand here because it publishes no way to ask which modes are entered.
"""

from __future__ import annotations

import random
import sys
import threading
import warnings
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules import module as torch_module
from torch.overrides import _get_current_function_mode_stack
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack, _pop_mode

from gallery.frozen import Facts, bits


def surroundings() -> Facts:
    """Return all of it, each as a text."""
    compiler: Any = sys.modules.get("torch._dynamo.eval_frame")
    told = {
        "dispatch modes": [type(mode).__name__ for mode in _get_current_dispatch_mode_stack()],
        "function modes": [type(mode).__name__ for mode in _get_current_function_mode_stack()],
        "transformations": torch._C._functorch.get_interpreter_stack(),
        "hooks on saved tensors": torch._C._autograd._top_saved_tensors_default_hooks(True) is None,
        "generator of torch": bits(torch.get_rng_state()),
        "generator of numpy": np.random.get_state(),
        "generator of Python": hash(random.getstate()),
        "gradients": (torch.is_grad_enabled(), torch.is_anomaly_enabled(), torch.is_inference_mode_enabled()),
        "autocast": (
            torch.is_autocast_enabled("cpu"),
            torch.get_autocast_dtype("cpu"),
            torch.is_autocast_cache_enabled(),
        ),
        "defaults": (torch.get_default_dtype(), torch.get_default_device(), torch.get_num_threads()),
        "deterministic": (torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision()),
        "fast path": torch.backends.mha.get_fastpath_enabled(),
        "fused attention": (torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.math_sdp_enabled()),
        "compiling": "default" if compiler is None else compiler._stance.stance,
        "profiling": torch._C._autograd._profiler_enabled(),
        "hooks on all modules": [len(hooks or ()) for hooks in _global_hooks()],
        "methods of modules": [id(vars(nn.Module).get(name)) for name in METHODS],
        "filters of warnings": [tuple(map(str, entry)) for entry in warnings.filters],
        "threads": threading.active_count(),
        "tracing": (sys.gettrace() is None, sys.getprofile() is None, torch._C._get_tracing_state()),
    }
    return {name: str(value) for name, value in told.items()}


METHODS = ("__call__", "_call_impl", "__getattr__", "__setattr__", "__delattr__", "forward", "state_dict", "apply")


def _global_hooks() -> list[Any]:
    return [
        getattr(torch_module, name)
        for name in sorted(vars(torch_module))
        if name.startswith("_global_") and name.endswith("_hooks")
    ]


def leave_modes_left_behind(most: int = 0) -> None:
    """Take dispatch modes off that a failed test has left, so that the tests after it can tell their own faults."""
    while len(_get_current_dispatch_mode_stack()) > most:
        _pop_mode()
