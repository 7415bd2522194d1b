"""What the figures were measured on: machine, device, driver, and the versions that matter."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torchvision", "transformers", "datasets", "jiwer", "tensorboard", "numpy", "layerprof")
NVIDIA_FIELDS = {
    "name": "name",
    "driver": "driver_version",
    "power_limit_w": "power.limit",
    "power_limit_default_w": "power.default_limit",
    "clock_sm_mhz": "clocks.sm",
    "clock_memory_mhz": "clocks.mem",
    "clock_sm_max_mhz": "clocks.max.sm",
    "temperature_c": "temperature.gpu",
    "persistence": "persistence_mode",
    "ecc": "ecc.mode.current",
    "uuid": "uuid",
}


def describe(device: str) -> dict[str, Any]:
    """Return the environment block of a run on `device` ('cpu' or 'cuda:0'); values that cannot be read are None."""
    block: dict[str, Any] = {
        "device": device,
        "device_name": device_name(device),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cpu_count": os.cpu_count(),
        "threads": _threads(),
    }
    block |= {name: package_version(name) for name in PACKAGES}
    block["gpu"] = None if device == "cpu" else gpu_state(device)
    return block


def package_version(name: str) -> str | None:
    """Return an installed package's version, None when it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def cpu_name() -> str:
    """Return the processor's marketing name as the kernel gives it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def gpu_state(device: str) -> dict[str, str | None]:
    """Return name, driver, clocks, power limit and temperature of a CUDA device as nvidia-smi gives them.

    The card is asked for by its UUID, since torch and the driver may number cards differently. All None when
    nvidia-smi is missing or refuses.
    """
    import torch

    empty: dict[str, str | None] = dict.fromkeys(NVIDIA_FIELDS)
    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    command = ["nvidia-smi", f"--query-gpu={','.join(NVIDIA_FIELDS.values())}", "--format=csv,noheader,nounits"]
    if uuid is not None:
        command.append(f"--id=GPU-{uuid}")
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return empty
    values = [value.strip() for value in answer.splitlines()[0].split(",")] if answer else []
    return dict(zip(NVIDIA_FIELDS, values, strict=True)) if len(values) == len(NVIDIA_FIELDS) else empty


def device_name(device: str) -> str:
    """Return the marketing name of 'cpu' or of a CUDA device."""
    if device == "cpu":
        return cpu_name()
    import torch

    return str(torch.cuda.get_device_name(device))


def _threads() -> int:
    import torch

    return int(torch.get_num_threads())
