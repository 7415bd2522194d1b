"""A format of weights + a device + a dtype -> how the weights are stored, by which package, and which layers are.

Nothing is loaded here: a plan is made of a model without memory (`random_weights.skeleton`), so that a mistake costs no
wait, and the memory that the weights will take is known.

- `int8`, `fp8`: torchao's weight-only formats; codes of one byte and a scale for each row.
- `nf4`: bitsandbytes (QLoRA, arXiv:2305.14314); codes of half a byte, a scale for each 64 of them.
- `int4`: on a GPU torchao's, packed for torch's own int4 kernel (`tile_packed_to_4d`: the default packing needs the
  package mslk), which takes bf16 alone; on a CPU, where torchao does not pack it, quanto's.

In all of them the arithmetic is that of the model's dtype: codes become numbers of it inside the product.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from layerprof.errors import RequestError
from layerprof.machine import packages, placement

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import nn

GROUPS = (128, 64, 32)
"""Columns of a row that share a scale in torchao's int4, one of them for all of a model's matrices."""
BLOCK = 64
"""Elements of a flattened matrix that share a scale in nf4."""
TILE = (8, 1024)
"""Rows and columns are padded to multiples of these in torchao's tiles for the int4 kernel."""
INT4_CAPABILITY = (8, 0)
SHOWN = 3


@dataclass(frozen=True, slots=True)
class Scheme:
    """How a matrix is stored. `told` says it in words; `group` are the columns of a row that share a scale, if any."""

    format: str
    package: str
    told: str
    group: int | None = None

    def takes(self, columns: int) -> bool:
        """Tell whether a matrix of so many columns is stored in this format; else it stays as it is."""
        return self.package != "torchao" or self.group is None or columns % self.group == 0

    def stored_bytes(self, rows: int, columns: int, itemsize: int) -> int:
        """Return the bytes of a matrix in this format; `itemsize` is that of the dtype it had.

        Counted from the layouts: `torchao/quantization/quantize_/workflows` (scales are float32, int8 has a zero point
        of one byte beside each), `bitsandbytes.functional.quantize_4bit`, `optimum.quanto.tensor.weights`.
        """
        elements = rows * columns
        if self.format == "int8":
            return elements + 5 * rows
        if self.format == "fp8":
            return elements + 4 * rows
        if self.format == "nf4":
            return math.ceil(elements / 2) + 4 * math.ceil(elements / BLOCK) + 16 * 4
        if self.package == "torchao" and self.group is not None:
            rows, columns = (math.ceil(size / tile) * tile for size, tile in zip((rows, columns), TILE, strict=True))
            return rows * columns // 2 + 2 * itemsize * rows * (columns // self.group)
        return math.ceil(elements / 2) + 2 * itemsize * rows * (columns // (quanto_group(columns) or columns))


@dataclass(frozen=True, slots=True)
class StoragePlan:
    """Which linear layers of a model will be stored in a format, and which are left as they are, by their names.

    `bytes` is what all of the model's weights take then.
    """

    scheme: Scheme
    taken: tuple[str, ...]
    left: tuple[str, ...]
    bytes: int

    @property
    def format(self) -> str:
        """The format's name."""
        return self.scheme.format

    @property
    def package(self) -> str:
        """The package that stores weights in it."""
        return self.scheme.package

    @property
    def told(self) -> str:
        """How a matrix is stored, in words."""
        return self.scheme.told

    @property
    def why(self) -> str:
        """What will be done, in words."""
        rest = f", left as they are: {listed(self.left)}" if self.left else ""
        layers = f"{len(self.taken)} linear layers"
        return f"weights stored as {self.format} by {self.package} ({self.told}): {layers}{rest}"


def listed(names: Iterable[str]) -> str:
    """Return the first of some names and how many more there are."""
    all_of_them = list(names)
    more = len(all_of_them) - SHOWN
    return ", ".join(all_of_them[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def quanto_group(columns: int) -> int | None:
    """Return the columns that share a scale in quanto's int4, None for the whole row.

    Its rule (`optimum.quanto.nn.QModuleMixin`): 128, or the next smaller multiple of 32 that divides a longer row.
    """
    return next((group for group in (128, 96, 64, 32) if columns > 128 and columns % group == 0), None)


def package_of(asked: str, on: str) -> str:
    """Return which package makes a format on a device."""
    return {"nf4": "bitsandbytes", "int4": "optimum-quanto" if on == "cpu" else "torchao"}.get(asked, "torchao")


def needed_dtype(asked: str, on: str) -> str | None:
    """Return the one number format that a format of weights works with on a device; None where it takes any."""
    return "bf16" if asked == "int4" and on != "cpu" else None


def check(asked: str, on: str, dtype: str) -> str:
    """Return the package that makes a format on a device.

    Raises RequestError where it is absent or cannot be imported, or where device or dtype do not take the format.
    """
    package = package_of(asked, on)
    packages.need(f"--quantization {asked}", (package, "accelerate"))
    wanted = needed_dtype(asked, on)
    if wanted not in (None, dtype):
        raise RequestError(
            f"--quantization {asked} on a GPU takes {wanted}, and --dtype is {dtype}, which its kernel does not take.",
            f"Use --dtype {wanted}, or --quantization nf4, which takes any.",
        )
    if asked == "int4" and on != "cpu":
        import torch

        if torch.cuda.get_device_capability(on) < INT4_CAPABILITY:
            raise RequestError(
                "--quantization int4 needs a GPU of compute capability 8.0 or more (A100, RTX 30 and later).",
                "Use --quantization nf4.",
            )
    return package


def plan(model: nn.Module, asked: str, *, on: str, dtype: str, leave: Iterable[str] = ()) -> StoragePlan:
    """Return which linear layers of a model (it may have no memory) are to be stored in a format.

    Those in the modules of `leave` are left, and those that transformers leaves: the output head and what is tied to
    the embeddings. Raises RequestError for a format that is not to be had here, for a `leave` that no linear layer is
    in, and where nothing would be stored in the format.
    """
    return planned(model, asked, check(asked, on, dtype), dtype=dtype, leave=leave)


def planned(model: nn.Module, asked: str, package: str, *, dtype: str, leave: Iterable[str] = ()) -> StoragePlan:
    """Return the plan of a format as a package makes it, whether or not it is to be had here (`plan`)."""
    linears = linear_layers(model)
    kept = tuple(leave)
    in_kept = {name for name in linears if _inside(name, kept)}
    if kept and not in_kept:
        raise RequestError(
            f"--quantization-skip takes {listed(kept)}, in which no linear layer is.",
            "Give a selector of layers with linear layers in them, such as vision, or leave it out.",
        )
    own = set(_left_by_transformers(model))
    open_to_it = {name: module for name, module in linears.items() if name not in in_kept | own}
    scheme = scheme_of(asked, package, [module.in_features for module in open_to_it.values()])
    taken = {name: module for name, module in open_to_it.items() if scheme.takes(module.in_features)}
    if not taken:
        raise RequestError(
            f"--quantization {asked} would store no layer of this model in {asked}: "
            + (f"{listed(linears)} are left as they are." if linears else "it has no linear layers."),
            "Leave --quantization out, or give --quantization-skip fewer layers.",
        )
    itemsize = placement.torch_dtype(dtype).itemsize
    weights = {id(weight): weight.numel() * itemsize for weight in model.parameters()}
    for module in taken.values():
        weights[id(module.weight)] = scheme.stored_bytes(module.out_features, module.in_features, itemsize)
    return StoragePlan(
        scheme, tuple(taken), tuple(name for name in linears if name not in taken), sum(weights.values())
    )


def linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """Return the plain linear layers of a model by their names, in the order of the tree; subclasses are their own."""
    from torch import nn

    return {name: module for name, module in model.named_modules() if type(module) is nn.Linear}


def _inside(name: str, modules: Iterable[str]) -> bool:
    return any(not module or name == module or name.startswith(f"{module}.") for module in modules)


def _left_by_transformers(model: nn.Module) -> list[str]:
    from transformers.quantizers.base import get_keys_to_not_convert

    found: list[str] = get_keys_to_not_convert(model) if hasattr(model, "all_tied_weights_keys") else []
    return found


def scheme_of(asked: str, package: str, columns: Sequence[int]) -> Scheme:
    """Return how a package stores matrices of these widths in a format: with one group for all where it has groups."""
    if asked == "int8":
        return Scheme(asked, package, "8-bit integers, a scale and a zero point a row")
    if asked == "fp8":
        return Scheme(asked, package, "8-bit floats (e4m3), a scale a row")
    if asked == "nf4":
        return Scheme(asked, package, f"4-bit normal floats, a scale for {BLOCK} weights")
    if package == "torchao":
        # The most columns of all matrices that a group divides; of equals, the larger group.
        group = max(GROUPS, key=lambda size: (sum(width for width in columns if width % size == 0), size))
        return Scheme(asked, package, f"4-bit integers, a scale and a zero point for {group} columns of a row", group)
    groups = sorted({quanto_group(width) or width for width in columns})
    told = " or ".join(str(group) for group in groups)
    return Scheme(asked, package, f"4-bit integers, a scale and a zero point for {told} columns of a row")


def configuration(plan: StoragePlan, dtype: Any) -> Any:
    """Return transformers' configuration that loads weights as a plan says, layer by layer; `dtype` is torch's."""
    import re

    import transformers

    # Read there as patterns and as endings of names: escaped, a name stands for itself alone.
    left = [re.escape(name) for name in plan.left]
    if plan.scheme.package == "torchao":
        return transformers.TorchAoConfig(torchao_config(plan.scheme), modules_to_not_convert=left)
    if plan.scheme.package == "bitsandbytes":
        bitsandbytes: Any = transformers.BitsAndBytesConfig  # untyped there
        return bitsandbytes(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype, llm_int8_skip_modules=left
        )
    return transformers.QuantoConfig(weights="int4", modules_to_not_convert=left)


def torchao_config(scheme: Scheme) -> Any:
    """Return torchao's configuration of a scheme; settings of compilation, which are everybody's, are left alone."""
    from torchao import quantization

    if scheme.format == "int4":
        return quantization.Int4WeightOnlyConfig(
            group_size=scheme.group, int4_packing_format="tile_packed_to_4d", set_inductor_config=False
        )
    kind = {"int8": quantization.Int8WeightOnlyConfig, "fp8": quantization.Float8WeightOnlyConfig}[scheme.format]
    return kind(set_inductor_config=False)
