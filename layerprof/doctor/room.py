"""How much room there is for models and samples: on disk and in memory."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import psutil

from layerprof.doctor.findings import MODEL_BYTES, Finding


def disk() -> list[Finding]:
    """Look at the disk here, and at the one where models are kept."""
    cache = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    while not cache.exists():
        cache = cache.parent
    here, there = shutil.disk_usage(Path.cwd()).free, shutil.disk_usage(cache).free
    enough = there > MODEL_BYTES
    text = f"{here / 1e9:.1f} GB free here, {there / 1e9:.1f} GB where models are kept ({cache})"
    remedy = None if enough else "Qwen2.5-VL-3B takes 8 GB: set HF_HOME to a larger disk"
    return [Finding("machine", "disk", "yes" if enough else "partly", text, remedy, {"here": here, "cache": there})]


def memory() -> list[Finding]:
    """Look at the host's memory; what only caches files counts as free."""
    found = psutil.virtual_memory()
    text = f"{found.available / 1e9:.1f} of {found.total / 1e9:.1f} GB free"
    return [Finding("machine", "memory", "info", text, facts={"total": found.total, "free": found.available})]
