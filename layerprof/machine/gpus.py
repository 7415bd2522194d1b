"""GPUs by name, and the roofline: the least time that work can take on one.

The figures and their sources stand in `gpus.toml`. A bound is `max(FLOPs / peak, bytes / bandwidth)` (Williams,
Waterman and Patterson, "Roofline", CACM 2009): nothing that does this work in this precision on this device is faster.
The energy beside it is that time at the device's rated power: an estimate, no bound.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

from layerprof.errors import RequestError, nearest, suggestion

Bound = Literal["compute", "memory"]


@dataclass(frozen=True, slots=True)
class Gpu:
    """What a device can do at best: FLOP/s by dtype, bytes/s, bytes, watts."""

    name: str
    title: str
    match: str
    peak_flops_s: dict[str, float]
    bandwidth_bytes_s: float
    memory_bytes: float
    l2_bytes: float
    power_w: float
    source: str

    def peak(self, dtype: str) -> float | None:
        """Peak FLOP/s of a dtype (`fp16`, `bf16`, `fp32`); None where the matrix units lack it."""
        return self.peak_flops_s.get(dtype)


@cache
def table() -> tuple[Gpu, ...]:
    """Return all known devices, in the order of the file."""
    raw = tomllib.loads((files("layerprof.machine") / "gpus.toml").read_text(encoding="utf-8"))
    return tuple(
        Gpu(
            name=name,
            title=entry["title"],
            match=entry["match"],
            peak_flops_s=entry["peak"],
            bandwidth_bytes_s=entry["bandwidth"],
            memory_bytes=entry["memory"],
            l2_bytes=entry["l2"],
            power_w=entry["power"],
            source=entry["source"],
        )
        for name, entry in raw.items()
    )


def gpu_by_name(name: str) -> Gpu:
    """Find a device by what a user calls it: `H200`, `a100`, `A100-80G`, `rtx 4090`, `NVIDIA L4`.

    A family without its size means the larger memory. Raises RequestError naming the nearest for an unknown one.
    """
    wanted = _plain(name)
    devices = {_plain(gpu.name): gpu for gpu in table()}
    if wanted in devices:
        return devices[wanted]
    starting = [gpu for plain, gpu in devices.items() if plain.startswith(wanted) and not plain.endswith("pcie")]
    if starting and wanted:
        return max(starting, key=lambda gpu: gpu.memory_bytes)
    described = gpu_by_device_name(name)
    if described is not None:
        return described
    guess = suggestion(devices[plain].name for plain in nearest(wanted, devices, most=3, cutoff=0.4))
    known = ", ".join(gpu.name for gpu in table())
    raise RequestError(f"No figures are known for a GPU called '{name}'.", f"{guess}Known: {known}.")


def gpu_by_device_name(name: str | None) -> Gpu | None:
    """Find a device by the name its driver gives (`NVIDIA A100-SXM4-80GB`); None for unknown ones and MIG slices."""
    if not name or "MIG" in name:
        return None
    return next((gpu for gpu in table() if re.search(gpu.match, name, re.I)), None)


def roof_seconds(flops: float, moved_bytes: float, gpu: Gpu, dtype: str) -> float | None:
    """Return the least seconds for this work; None where the device has no matrix unit for the dtype."""
    peak = gpu.peak(dtype)
    return None if peak is None else max(flops / peak, moved_bytes / gpu.bandwidth_bytes_s)


def bound_by(flops: float, moved_bytes: float, gpu: Gpu, dtype: str) -> Bound | None:
    """Say which roof holds the work down; None without work, or where the device has no unit for the dtype."""
    peak = gpu.peak(dtype)
    if peak is None or not (flops or moved_bytes):
        return None
    return "compute" if flops / peak >= moved_bytes / gpu.bandwidth_bytes_s else "memory"


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("nvidia", "").replace("geforce", "").replace("80gb", "80g"))
