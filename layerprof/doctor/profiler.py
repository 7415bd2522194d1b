"""Whether the profiler's traces of a GPU can be trusted."""

from __future__ import annotations

from layerprof import registry
from layerprof.doctor.findings import Finding, State
from layerprof.trace import probe


def profiler() -> list[Finding]:
    """Probe the profiler on the first card, to which it stays attached from here on."""
    import torch
    from torch.profiler import kineto_available

    if not kineto_available() or not torch.cuda.is_available():
        text = "no CUDA activities: busy time is that of CPU operators"
        return [Finding("profiler", "CUPTI", "partly", text, "kernels need an NVIDIA GPU and a CUDA build of torch")]
    found = registry.load(probe.PROBE)("cuda:0")
    state: State = "yes" if found.trusted else "partly" if found.seen else "no"
    return [Finding("profiler", "CUPTI", state, probe.told(found), _remedy(found), found.facts())]


def _remedy(found: probe.Probe) -> str | None:
    if not found.seen:
        return "another profiler (nsys, ncu, DCGM) may hold CUPTI: stop it; in a container match the driver's CUDA"
    if not found.trusted:
        return (
            "busy times are too small by what was lost, which every run counts and names; try another torch or driver"
        )
    if probe.slower(found):
        return "runs trace last for that reason; take times and joules in a process that has recorded nothing"
    return None
