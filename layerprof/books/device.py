"""What the books know of the device: its environment block, and its roofline where the peaks are published."""

from __future__ import annotations

from typing import Any

from layerprof.books.rows import Roof
from layerprof.machine import environment, gpus


def roof(device: str, dtype: str) -> Roof | None:
    """Return (flops, bytes, seconds) -> share of the roof that was reached; None where the peaks are not known."""
    gpu = _gpu(device)
    if gpu is None:
        return None

    def share(flops: float, moved: float, seconds: float) -> float | None:
        least = gpus.roof_seconds(flops, moved, gpu, dtype)
        return least / seconds if least is not None and seconds > 0 else None

    return share


def surroundings(device: str, dtype: str) -> dict[str, Any]:
    """Return the environment block, with the device's published peaks where they are known."""
    gpu = _gpu(device)
    peak = gpu.peak(dtype) if gpu else None
    known = {"flops_per_s": peak, "bytes_per_s": gpu.bandwidth_bytes_s} if gpu and peak else None
    return environment.describe(device) | {"peaks": known}


def _gpu(device: str) -> gpus.Gpu | None:
    return None if device == "cpu" else gpus.gpu_by_device_name(environment.device_name(device))
