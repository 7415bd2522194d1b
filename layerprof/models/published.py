"""Checkpoints whose weights are already stored in a format of their own: what they need, told before any is read.

What a method needs stands in transformers' quantizers (`validate_environment` in `transformers/quantizers`); where one
would only warn and load the weights as ordinary numbers, the request is refused here instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from layerprof.errors import RequestError
from layerprof.machine.packages import need

PACKAGES: dict[str, tuple[str, ...]] = {
    "aqlm": ("aqlm",),
    "auto-round": ("auto-round",),
    "awq": ("gptqmodel",),
    "bitnet": (),
    "bitsandbytes": ("bitsandbytes",),
    "compressed-tensors": ("compressed-tensors",),
    "eetq": ("kernels",),
    "fbgemm_fp8": ("fbgemm-gpu",),
    "fouroversix": ("fouroversix",),
    "fp8": (),
    "fp_quant": ("fp_quant",),
    "gptq": ("optimum", "gptqmodel"),
    "higgs": ("flute-kernel", "fast_hadamard_transform"),
    "hqq": ("hqq",),
    "mxfp4": ("kernels",),
    "mxfp8": (),
    "quanto": ("optimum-quanto",),
    "quark": ("amd-quark",),
    "sinq": ("sinq",),
    "spqr": ("spqr_quant",),
    "torchao": ("torchao",),
    "vptq": ("vptq",),
}
"""What each method of transformers needs, by the names of the package index; accelerate beside it, which all need."""
GPU_ONLY: dict[str, tuple[int, int] | None] = {
    "eetq": None,
    "fbgemm_fp8": (9, 0),
    "fp8": (8, 9),
    "fp_quant": None,
    "higgs": None,
    "mxfp8": (8, 9),
    "spqr": None,
    "vptq": None,
}
"""Methods that run on CUDA devices alone, and the compute capability from which on their kernels do."""
ONE_DTYPE = ("torchao", "bitsandbytes")
"""Methods whose stored scales and remaining weights keep the dtype that they were saved in, whatever is asked for."""


@dataclass(frozen=True, slots=True)
class Published:
    """How a checkpoint says that its weights are stored: by which method, and in which format, in words."""

    method: str
    format: str
    told: str

    @property
    def package(self) -> str:
        """The package whose layers it is loaded with, by its name in the package index."""
        return (PACKAGES.get(self.method) or (self.method,))[-1]

    @property
    def unpacked(self) -> bool:
        """Whether its layers run on ordinary numbers: compressed-tensors unpacks weights when they are first used."""
        return self.method == "compressed-tensors"

    @property
    def why(self) -> str:
        """What the checkpoint is, in words."""
        unpacked = ", which unpacks them before they run" if self.unpacked else ""
        return f"its weights are stored as {self.format} ({self.told}{unpacked})"


def of_config(config: Any) -> Published | None:
    """Return how a configuration says its checkpoint's weights are stored; None for ordinary numbers."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else None
    for owner in (config, text):
        raw = getattr(owner, "quantization_config", None)
        if raw:
            facts = raw if isinstance(raw, dict) else raw.to_dict()
            return _read(facts)
    return None


def _read(facts: dict[str, Any]) -> Published:
    method = str(getattr(facts.get("quant_method"), "value", facts.get("quant_method")) or "").lower()
    if facts.get("load_in_8bit") or facts.get("load_in_4bit"):
        method = "bitsandbytes"
    form, told = _described(method, facts)
    return Published(method or "unknown", form, told)


def _described(method: str, facts: dict[str, Any]) -> tuple[str, str]:
    """Return the format's short name, and what the configuration says of it."""
    if method == "bitsandbytes":
        form = str(facts.get("bnb_4bit_quant_type", "nf4")) if facts.get("load_in_4bit") else "int8"
        return form, "bitsandbytes, LLM.int8()" if form == "int8" else f"bitsandbytes, a scale for 64 weights, {form}"
    if method == "torchao":
        kind = facts.get("quant_type", {})
        name = str(kind.get("default", {}).get("_type", "")) if isinstance(kind, dict) else str(kind)
        form = next((short for sign, short in _TORCHAO if sign in name.lower()), "torchao")
        return form, f"torchao, {name or 'unnamed'}"
    if method == "compressed-tensors":
        return _compressed(facts)
    bits = facts.get("bits") or facts.get("w_bit") or facts.get("nbits") or facts.get("weights")
    form = bits if isinstance(bits, str) else f"int{bits}" if bits else method
    group = facts.get("group_size") or facts.get("q_group_size")
    each = f", a scale for {group} columns of a row" if isinstance(group, int) and group > 0 else ""
    return str(form), f"{method}{each}"


_TORCHAO = (("int4", "int4"), ("int8", "int8"), ("float8", "fp8"))


def _compressed(facts: dict[str, Any]) -> tuple[str, str]:
    groups = facts.get("config_groups") or {}
    first: dict[str, Any] = next(iter(groups.values()), {}) if isinstance(groups, dict) else {}
    weights, inputs = (first.get(part) or {} for part in ("weights", "input_activations"))
    bits = weights.get("num_bits")
    form = f"{'fp' if weights.get('type') == 'float' else 'int'}{bits}" if bits else "compressed-tensors"
    words = f"W{bits}A{inputs.get('num_bits', 16)}" if bits else "weights not described"
    return form, f"compressed-tensors, {words}, {facts.get('format') or 'packed'}"


def check(published: Published, name: str, on: str) -> None:
    """Raise RequestError where a method is unknown, its package is absent or broken, or the device does not run it."""
    method = published.method
    if method not in PACKAGES:
        raise RequestError(
            f"The weights of {name} are quantized by '{method}', which transformers does not load as it is stored.",
            f"Give a checkpoint of one of: {', '.join(PACKAGES)}; or --weights random, which needs none.",
        )
    if method in GPU_ONLY:
        _check_gpu(published, name, on)
    need(f"The checkpoint {name}, quantized by {method},", (*PACKAGES[method], "accelerate"))
    if method == "hqq":
        raise RequestError(
            f"The checkpoint {name} is quantized by hqq, which this transformers does not load.",
            "Quantize the model yourself with hqq and measure it in your own loop: layerprof.LayerProfiler.",
        )


def _check_gpu(published: Published, name: str, on: str) -> None:
    import torch

    least = GPU_ONLY[published.method]
    if on != "cpu" and (least is None or torch.cuda.get_device_capability(on) >= least):
        return
    needed = "a CUDA device" + (f" of compute capability {least[0]}.{least[1]} or more" if least else "")
    raise RequestError(
        f"The checkpoint {name} is quantized by {published.method}, which runs on {needed}, and the run is on {on}.",
        "Use such a device, or the unquantized checkpoint (with --quantization int8 if its bytes are to be few).",
    )


def check_dtype(published: Published, name: str, asked: str, own: str | None) -> None:
    """Raise RequestError for a number format that the rest of a checkpoint's weights would not follow."""
    if published.method in ONE_DTYPE and own is not None and asked != own:
        raise RequestError(
            f"The checkpoint {name}, quantized by {published.method}, keeps its scales and other weights in {own}, "
            f"and --dtype is {asked}: the model would be a mixture of both.",
            f"Use --dtype {own}, or leave it at auto.",
        )
