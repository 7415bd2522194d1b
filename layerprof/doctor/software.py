"""Which packages are installed, and what TensorBoard finds."""

from __future__ import annotations

from importlib.metadata import entry_points

from layerprof.doctor.findings import Finding
from layerprof.machine import environment

PACKAGES = (
    "layerprof",
    "torch",
    "torchvision",
    "transformers",
    "qwen-vl-utils",
    "datasets",
    "jiwer",
    "nvidia-ml-py",
    "tensorboard",
    "torch-tb-profiler",
    "fvcore",
    "ptflops",
    "numpy",
    "scipy",
)
QUANTIZATION = {
    "torchao": "int8, fp8 and, on a GPU, int4",
    "bitsandbytes": "nf4",
    "optimum-quanto": "int4 on a CPU",
    "compressed-tensors": "checkpoints of its own",
}
"""Packages of `layerprof[quantization]`, and the formats of weights that each is for."""
OPTIONAL = {
    "flash-attn": "--optimization flash",
    "ray": "sweep --engine ray",
}


def packages() -> list[Finding]:
    """Look for what is needed, and for what some options need."""
    versions = {name: environment.package_version(name) for name in PACKAGES}
    missing = [name for name, found in versions.items() if found is None]
    text = ", ".join(f"{name} {found}" for name, found in versions.items() if found)
    remedy = f"pip install {' '.join(missing)}" if missing else None
    found = [Finding("software", "packages", "partly" if missing else "yes", text, remedy, versions)]
    for name, use in OPTIONAL.items():
        have = environment.package_version(name)
        text = have or f"not installed; only for {use} (pip install {name})"
        found.append(Finding("software", name, "yes" if have else "info", text))
    return [*found, _quantization()]


def _quantization() -> Finding:
    """Say which formats of weights the installed packages make."""
    versions = {name: environment.package_version(name) for name in QUANTIZATION}
    missing = [name for name, version in versions.items() if version is None]
    there = "; ".join(f"{name} {version}: {QUANTIZATION[name]}" for name, version in versions.items() if version)
    absent = ", ".join(f"{name} ({QUANTIZATION[name]})" for name in missing)
    text = "; ".join(filter(None, (there, f"not installed: {absent}" if absent else "")))
    remedy = "pip install 'layerprof[quantization]'" if missing else None
    return Finding("software", "--quantization", "info" if missing else "yes", text, remedy, versions)


def plugins() -> list[Finding]:
    """Look for the tab of the profiler."""
    names = sorted(point.name for point in entry_points(group="tensorboard_plugins"))
    if "torch_profiler" in names:
        return [Finding("software", "TensorBoard plugins", "yes", ", ".join(names))]
    text = f"the profiler's tab is missing (found: {', '.join(names) or 'none'})"
    return [Finding("software", "TensorBoard plugins", "partly", text, "pip install torch-tb-profiler")]
