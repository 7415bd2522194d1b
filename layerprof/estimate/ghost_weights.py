"""Ghosts of weights that are stored as codes: a model's matrices take another format before anything is loaded.

To whoever looks at them they are what a quantising package makes: a tensor of the shape and dtype of the matrix that
wraps the tensors it is stored as. So a model of such weights is read as a real one is, by the same hooks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from layerprof.estimate.ghost import ghost
from layerprof.machine import internals

CODES = {"int8": torch.int8, "fp8": torch.float8_e4m3fn, "int4": torch.uint8, "nf4": torch.uint8}
"""What codes lie in; those of 4 bits two to an element."""
VIEWS = frozenset({"aten::t", "aten::transpose", "aten::detach", "aten::alias", "aten::view", "aten::permute"})


class GhostWeight(Tensor):
    """A matrix that is not there, stored as `codes` and what stands `beside` them; `quant_type` names the format."""

    codes: Tensor
    beside: Tensor
    quant_type: str

    @staticmethod
    def __new__(cls, like: Tensor, codes: Tensor, beside: Tensor, quant_type: str) -> Self:
        """Return one of the shape, strides and dtype of `like`, a tensor on any device, `meta` too."""
        made: Self = internals.wrapping(cls, like)
        made.codes, made.beside, made.quant_type = codes, beside, quant_type
        return made

    def __tensor_flatten__(self) -> tuple[list[str], str]:
        """Name the tensors that lie in memory, as torch asks of subclasses that wrap others."""
        return ["codes", "beside"], self.quant_type

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch's own annotation is that of a plain method
        cls, func: Any, _types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Answer views with another of these; to everything else it is a plain ghost."""
        first = args[0] if args else None
        if isinstance(first, cls) and func.name().partition(".")[0] in VIEWS:
            there = torch.empty_strided(first.shape, first.stride(), dtype=first.dtype, device="meta")
            return cls(func(there, *args[1:], **(kwargs or {})), first.codes, first.beside, first.quant_type)
        plain = [ghost(x.shape, x.dtype, x.stride()) if isinstance(x, cls) else x for x in args]
        return func(*plain, **(kwargs or {}))


def store(model: nn.Module, sizes: Mapping[str, int], quant_type: str) -> None:
    """Put the weights of some linear layers into a format; `sizes` are the bytes that each takes, by the layer's name.

    A matrix that several layers share is replaced in those that are named.
    """
    bits = 4 if CODES[quant_type] is torch.uint8 else 8
    for name, size in sizes.items():
        layer = model.get_submodule(name)
        matrix = layer.weight
        assert isinstance(matrix, Tensor)
        codes = ghost((matrix.numel() * bits // 8,), CODES[quant_type])
        beside = ghost((max(size - codes.numel(), 0),), torch.uint8)
        layer.weight = nn.Parameter(GhostWeight(matrix, codes, beside, quant_type), requires_grad=False)
