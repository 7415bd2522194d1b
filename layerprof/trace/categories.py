"""What the categories of a trace's events mean: work of a device, calls that launch it, operators, or neither. Pure.

The names are kineto's (`_activityTypeNames` in its `ActivityType.h`) and those of profilers built on it: Enflame's,
and torch-tb-profiler's of torch 1.8. Where the event stands tells device from host: torch's `deviceTypeFromActivity`,
and kineto's own remarks on each. `hpu_op` and `mtia_insight` are left out, since these two disagree on the first and
neither says whether the second spans work that is recorded otherwise, too.
"""

from __future__ import annotations

WORK = frozenset(
    {"kernel", "gpu_memcpy", "gpu_memset"}  # CUDA, HIP, XPU, and what registers as PrivateUse1
    | {"mtia_ccp_events"}
    | {"GCU_MEMCPY", "GCU_MEMSET"}
    | {"Kernel", "Memcpy", "Memset", "memcpy", "memset"}
)
"""What runs on a device."""

LAUNCH = frozenset(
    {"cuda_runtime", "cuda_driver", "xpu_runtime", "xpu_driver", "privateuse1_runtime", "privateuse1_driver"}
    | {"mtia_runtime", "glow_runtime", "gcu_runtime", "gcu_driver"}
    | {"runtime", "Runtime"}
)
"""Calls on the host that put work on a device, each with the correlation id of what it launched."""

OPERATOR = frozenset({"cpu_op", "Operator"})
ANNOTATION = "user_annotation"
PYTHON = "python_function"

NEITHER = frozenset(
    {"gpu_user_annotation", "GCU_USER_ANNOTATION", "Trace", "overhead", "cpu_instant_event", "external_correlation"}
    | {"cuda_sync", "xpu_sync", "gcu_sync", "cuda_event"}  # waiting, and marks on a stream
    | {"collective_comm"}  # XPU's calls of its library on the host
    | {"cuda_profiler_range", "gcu_profiler_range", "xpu_scope_profiler", "mtia_counters", "hardware_counters"}
)
"""Spans over work that is recorded by itself, waiting, counters: their time is nobody's work."""

NO_CATEGORY = "(no category)"
"""Stands for the category of an event that has none, as all work has in traces of Ascend NPUs and of XLA."""

_KNOWN = WORK | LAUNCH | OPERATOR | NEITHER | {ANNOTATION, PYTHON}


def is_known(category: object) -> bool:
    """Whether it is known what events of a category are."""
    return category in _KNOWN
