"""Where and how a model runs: device, number format and attention; checked before anything is loaded."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from typing import Any

from layerprof.errors import RequestError, did_you_mean

DTYPES = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}
"""Our names (`settings.Dtype` without `auto`) and torch's."""
ALIASES = {"half": "fp16", "float": "fp32", **{torch_name: name for name, torch_name in DTYPES.items()}}
ATTENTION = {"eager": "eager", "sdpa": "sdpa", "flash": "flash", "compile": "sdpa", "graph": "sdpa"}
"""Optimisation -> attention (`layerprof.attention.NAMES`); `compile` and `graph` do theirs on top of sdpa."""
PACKAGES = {"flash": ("flash-attn", "flash_attn"), "flash3": ("flash-attn-3", "flash_attn_interface")}
"""Attention -> the package that it needs, and the module by which that is found."""


def device(name: str) -> str:
    """Return `cpu` or `cuda:N`; `auto` is the first GPU where there is one.

    Raises RequestError for a device that is unknown or not there.
    """
    import torch

    asked = name.strip().lower()
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if asked == "auto":
        return "cuda:0" if count else "cpu"
    if asked == "cpu":
        return "cpu"
    match = re.fullmatch(r"cuda(?::(\d+))?", asked)
    if match is None:
        guess = did_you_mean("cuda" if asked.startswith("gpu") else asked, ("cuda", "cpu", "auto"))
        raise RequestError(f"Unknown device '{name}'.", f"{guess}Choose auto, cpu, cuda or cuda:N.")
    if not count:
        built = "" if torch.version.cuda else " (this torch was built without CUDA)"
        raise RequestError(f"--device {name} was asked for, but torch sees no CUDA device{built}.", "Use --device cpu.")
    index = int(match.group(1) or 0)
    if index >= count:
        there = ", ".join(f"cuda:{i}" for i in range(count))
        raise RequestError(
            f"--device {name} was asked for, but there {'is' if count == 1 else 'are'} only {there}.", f"Use {there}."
        )
    return f"cuda:{index}"


def dtype(name: str, on: str, parameters: int) -> tuple[str, str]:
    """Return the number format and, where it was ours to choose, why.

    `auto` is fp16 on a GPU; on a CPU fp32, or bf16 where fp32 would fill more than half of the free memory.
    """
    asked = name.strip().lower()
    asked = ALIASES.get(asked, asked)
    if asked != "auto":
        return asked, ""
    if on != "cpu":
        return "fp16", ""
    free = free_bytes(on)
    if free is not None and parameters * torch_dtype("fp32").itemsize > free / 2:
        return "bf16", "bf16, since fp32 would fill the memory"
    return "fp32", ""


def checkpoint_dtype(config: Any) -> str | None:
    """Return the number format that a configuration says its weights are published in; None where it does not.

    One of our names where it is one of ours, else torch's (`float8_e4m3fn`).
    """
    text = config.get_text_config() if hasattr(config, "get_text_config") else None
    for owner in (config, text):
        told = getattr(owner, "dtype", None)
        if told is not None:
            return dtype_name(told)
    return None


def dtype_name(dtype: Any) -> str:
    """Return our name for a torch dtype or its name (`fp16`); torch's own where we have none (`float8_e4m3fn`)."""
    name = str(dtype).removeprefix("torch.")
    return ALIASES.get(name, name)


def free_bytes(on: str) -> int | None:
    """Return the free memory of a device in bytes; None where the system does not say."""
    if on != "cpu":
        import torch

        return int(torch.cuda.mem_get_info(on)[0])
    import psutil

    try:
        return int(psutil.virtual_memory().available)
    except (OSError, ValueError, psutil.Error):
        return None


def check_memory(parameters: int, chosen: str, on: str, *, stored: int | None = None, stored_as: str = "") -> None:
    """Raise RequestError when the weights alone are larger than the device's free memory.

    `stored` are their bytes where they are not all stored in the chosen format, and `stored_as` says in which.
    """
    needed = parameters * torch_dtype(chosen).itemsize if stored is None else stored
    free = free_bytes(on)
    if free is None or needed <= free:
        return
    smaller = "--dtype bf16, " if chosen == "fp32" and stored is None else ""
    smaller += "" if stored_as else "--quantization nf4, "
    raise RequestError(
        f"{parameters / 1e9:.2f} billion parameters in {stored_as or chosen} need {needed / 1e9:.1f} GB, "
        f"and {on} has {free / 1e9:.1f} GB free.",
        f"Use {smaller}a smaller model (--model demo) or a device with more memory.",
    )


def check_names(optimization: str, dtype_name: str) -> None:
    """Raise RequestError for an optimisation or number format that does not exist, naming the nearest."""
    formats = ("auto", *DTYPES)
    for option, name, allowed in (("optimization", optimization, tuple(ATTENTION)), ("dtype", dtype_name, formats)):
        asked = name.strip().lower()
        if asked in allowed or (option == "dtype" and asked in ALIASES):
            continue
        guess = did_you_mean(asked, allowed, cutoff=0.5)
        raise RequestError(f"Unknown {option} '{name}'.", f"{guess}Choose one of: {', '.join(allowed)}.")


def check_optimization(name: str, on: str) -> None:
    """Raise RequestError when what a known optimisation needs is not there; its attention is checked on its own."""
    if name == "compile":
        _check_compile("--optimization compile", on)
    if name == "graph" and (why := why_no_graphs(on)):
        raise RequestError(f"--optimization graph needs an NVIDIA GPU: {why}.", "Use --optimization sdpa.")


def why_no_graphs(on: str) -> str:
    """Return why a device captures no CUDA graphs; empty where it does."""
    import torch

    if torch.version.hip:
        return "this torch was built for ROCm, where no event can be recorded inside a graph"
    if on != "cpu":
        return ""
    if torch.cuda.is_available():
        return "CUDA graphs are captured on CUDA devices, and the run is on the CPU"
    return "CUDA graphs are captured on CUDA devices, and torch sees none here"


def check_attention(name: str, option: str, on: str) -> None:
    """Raise RequestError when what an attention needs is not there: a device first, then a package.

    `option` is how it was asked for. Kernels of the hub, and FlashAttention without its own package, come by `kernels`.
    """
    if name in PACKAGES and on == "cpu":
        raise RequestError(
            f"{option} runs on CUDA devices only, and the run is on the CPU.",
            "Use sdpa in its place, or --device cuda with --dtype fp16.",
        )
    if name == "flex":
        _check_compile(option, on)
    if importlib.util.find_spec("kernels") is not None:
        return
    package, module = PACKAGES.get(name, ("", ""))
    if package and importlib.util.find_spec(module) is None:
        raise RequestError(
            f"{option} needs the package {package}, which is not installed.",
            "Install it (for flash `pip install flash-attn --no-build-isolation`, which compiles CUDA code), or the "
            "package kernels, which loads it from the hub; or use sdpa.",
        )
    if "/" in name:
        raise RequestError(
            f"{option} needs the package kernels, which is not installed.", "Install it (`pip install kernels`)."
        )


def check_attention_dtype(name: str, option: str, chosen: str) -> None:
    """Raise RequestError when an attention does not take a number format."""
    if name in PACKAGES and chosen == "fp32":
        raise RequestError(f"{option} takes fp16 or bf16, not fp32.", "Use sdpa in its place, or --dtype fp16.")


def _check_compile(option: str, on: str) -> None:
    """Raise RequestError when what torch needs to compile is not there."""
    remedy = f"use {option.split(maxsplit=1)[0]} sdpa"
    compiler = os.environ.get("CXX") or "g++"
    if on == "cpu" and not any(shutil.which(name) for name in (compiler, "g++", "clang++", "c++")):
        raise RequestError(
            f"{option} needs a C++ compiler, and there is none on the PATH.",
            f"Install g++ (Debian: `apt install g++`) or {remedy}.",
        )
    if on != "cpu" and not any(shutil.which(name) for name in (os.environ.get("CC") or "gcc", "gcc", "clang")):
        raise RequestError(
            f"{option} needs a C compiler, with which Triton builds its launchers, and there is none on the PATH.",
            f"Install gcc (Debian: `apt install gcc`) or {remedy}.",
        )
    if on != "cpu" and importlib.util.find_spec("triton") is None:
        raise RequestError(
            f"{option} needs the package triton, which is not installed.",
            f"Install the torch build that comes with it, or {remedy}.",
        )


def torch_dtype(name: str) -> Any:
    """Return torch's dtype for one of our names."""
    import torch

    return getattr(torch, DTYPES[name])
