"""What there is to run on: the processor, and each card with its free memory."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path

from layerprof.doctor.findings import MODEL_BYTES, Finding
from layerprof.machine import environment, placement


def devices() -> list[Finding]:
    """Look at the processor and at each card, or say why there is none."""
    import torch

    cpu = Finding(
        "device",
        "cpu",
        "yes",
        f"{environment.cpu_name()}, {os.cpu_count()} threads, torch uses {torch.get_num_threads()}",
        facts={"python": sys.version.split()[0], "platform": platform.platform()},
    )
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        return [cpu, Finding("device", "CUDA", "no", *_why_no_cuda())]
    return [cpu, *(_card(index) for index in range(count)), _graphs()]


def _graphs() -> Finding:
    why = placement.why_no_graphs("cuda:0")
    return Finding(
        "device", "CUDA graphs", "no" if why else "info", why or "a decode step can be captured (--optimization graph)"
    )


def _card(index: int) -> Finding:
    import torch

    card = torch.cuda.get_device_properties(index)
    free, total = torch.cuda.mem_get_info(index)
    large = free > MODEL_BYTES
    return Finding(
        "device",
        f"cuda:{index}",
        "yes" if large else "partly",
        f"{card.name}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free, {card.multi_processor_count} SMs",
        None if large else "Qwen2.5-VL-3B needs about 8 GB: close other programs, or take --model demo",
        {
            "uuid": str(getattr(card, "uuid", "")),
            "capability": f"{card.major}.{card.minor}",
            "cuda": torch.version.cuda,
        },
    )


def _why_no_cuda() -> tuple[str, str]:
    import torch

    if torch.version.cuda is None:
        return "this torch is built without CUDA", "install the ordinary torch from the package index"
    if not Path("/dev/nvidiactl").exists() and not shutil.which("nvidia-smi"):
        return (
            "no NVIDIA driver is on this machine",
            "on a GPU machine, install the driver or start the container with --gpus all",
        )
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in ("", "-1"):
        return f"CUDA_VISIBLE_DEVICES={hidden!r} hides the cards", "unset CUDA_VISIBLE_DEVICES"
    return (
        f"the driver is there but torch {torch.__version__} (CUDA {torch.version.cuda}) cannot use it",
        "run nvidia-smi: a driver older than this CUDA needs an update, or a torch for an older CUDA",
    )
