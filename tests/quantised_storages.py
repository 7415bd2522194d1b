"""Modules with the storage of quantised layers as each package lays it out, made by hand: no package is needed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

ROWS, COLUMNS, GROUP = 32, 64, 16
NUMBERS = ROWS * COLUMNS
GROUPS = COLUMNS // GROUP


class Wrapped(torch.Tensor):
    """A subclass that wraps codes and scales, and tells by `__tensor_flatten__`."""

    codes: Tensor
    scale: Tensor

    @staticmethod
    def __new__(cls, codes: Tensor, scale: Tensor) -> Wrapped:
        """Make a tensor without memory of its own."""
        return torch.Tensor._make_wrapper_subclass(cls, codes.shape, dtype=scale.dtype)

    def __init__(self, codes: Tensor, scale: Tensor) -> None:
        self.codes, self.scale = codes, scale

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["codes", "scale"], None

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]  # of any operator
        full = [x.codes.to(x.scale.dtype) * x.scale if isinstance(x, Wrapped) else x for x in args]
        if func is torch.ops.aten.detach.default:
            return cls(args[0].codes.detach(), args[0].scale.detach())
        return func(*full, **(kwargs or {}))


class Untold(Wrapped):
    """One that has its tensors as attributes, and does not tell their names."""

    __tensor_flatten__ = None  # type: ignore[assignment]  # as if it had none


class Opaque(torch.Tensor):
    """One that shows nothing of what it wraps."""

    @staticmethod
    def __new__(cls, rows: int, columns: int) -> Opaque:
        """Make a tensor without memory of its own."""
        return torch.Tensor._make_wrapper_subclass(cls, (rows, columns), dtype=torch.bfloat16)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]  # of any operator
        if func is torch.ops.aten.detach.default:
            return cls(*args[0].shape)
        return func(*(torch.zeros(x.shape, dtype=x.dtype) if isinstance(x, Opaque) else x for x in args))


def wrapped(kind: type[Wrapped] = Wrapped) -> Wrapped:
    """Return 8-bit codes with a scale a row."""
    return kind(torch.ones(ROWS, COLUMNS, dtype=torch.int8), torch.ones(ROWS, 1, dtype=torch.bfloat16))


def linear(weight: Tensor, *, bias: bool = True) -> nn.Linear:
    """Return a layer with a weight of a kind of its own."""
    layer = nn.Linear(COLUMNS, ROWS, bias=bias, dtype=torch.bfloat16)
    layer.weight = nn.Parameter(weight, requires_grad=False)
    return layer


class Gptq(nn.Module):
    """The storage of a GPTQ layer: eight 4-bit codes to an int32, in buffers."""

    qweight: Tensor
    qzeros: Tensor
    scales: Tensor
    g_idx: Tensor
    bias: Tensor

    def __init__(self, bits: int = 4) -> None:
        super().__init__()
        self.bits, self.in_features, self.out_features = bits, COLUMNS, ROWS
        self.register_buffer("qweight", torch.zeros(COLUMNS * bits // 32, ROWS, dtype=torch.int32))
        self.register_buffer("qzeros", torch.zeros(GROUPS, ROWS * bits // 32, dtype=torch.int32))
        self.register_buffer("scales", torch.zeros(GROUPS, ROWS, dtype=torch.float16))
        self.register_buffer("g_idx", torch.zeros(COLUMNS, dtype=torch.int32))
        self.register_buffer("bias", torch.zeros(ROWS, dtype=torch.float16))


class Awq(nn.Module):
    """The storage of an AWQ layer: columns packed, no order of groups."""

    qweight: Tensor
    qzeros: Tensor
    scales: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.w_bit, self.in_features, self.out_features = 4, COLUMNS, ROWS
        self.register_buffer("qweight", torch.zeros(COLUMNS, ROWS // 8, dtype=torch.int32))
        self.register_buffer("qzeros", torch.zeros(GROUPS, ROWS // 8, dtype=torch.int32))
        self.register_buffer("scales", torch.zeros(GROUPS, ROWS, dtype=torch.float16))


class Hqq(nn.Module):
    """The storage of an HQQ layer: codes a parameter, scales and zero points in a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.W_q = nn.Parameter(torch.zeros(NUMBERS // 2, 1, dtype=torch.uint8), requires_grad=False)
        count = NUMBERS // GROUP
        self.meta = {"nbits": 4, "shape": torch.Size((ROWS, COLUMNS)), "axis": 1} | {
            name: torch.zeros(count, 1, dtype=torch.float16) for name in ("scale", "zero")
        }
        self.bias = torch.zeros(ROWS, dtype=torch.float16)


class Params4bit(nn.Parameter):
    """A parameter with the state of its codes in an object beside it, as bitsandbytes has it."""

    quant_state: Any


def four_bits(*, nested: bool, lent: torch.dtype = torch.uint8) -> nn.Linear:
    """Return a layer of 4-bit codes in blocks of 64; `nested` has the blocks' sizes quantised in turn.

    `lent` is the type whose memory holds the codes, as `bnb_4bit_quant_storage` lends it.
    """
    layer = nn.Linear(COLUMNS, ROWS, bias=False)
    weight = Params4bit(torch.zeros(NUMBERS // 2 // lent.itemsize, 1, dtype=lent), requires_grad=False)
    blocks = NUMBERS // 64
    beside = SimpleNamespace(absmax=torch.zeros(1), code=torch.zeros(256), shape=None) if nested else None
    weight.quant_state = SimpleNamespace(
        absmax=torch.zeros(blocks, dtype=torch.uint8 if nested else torch.float32),
        code=torch.zeros(16),
        shape=torch.Size((ROWS, COLUMNS)),
        quant_type="nf4",
        offset=torch.zeros(()) if nested else None,
        state2=beside,
    )
    layer.weight = weight
    return layer


def int8() -> nn.Module:
    """Return the storage of 8-bit layers of compressed-tensors: an int8 parameter and its scales."""
    layer = nn.Linear(COLUMNS, ROWS, dtype=torch.float16)
    layer.weight = nn.Parameter(torch.zeros(ROWS, COLUMNS, dtype=torch.int8), requires_grad=False)
    layer.weight_scale = nn.Parameter(torch.zeros(ROWS, 1, dtype=torch.float16), requires_grad=False)
    return layer


def packed_int4() -> nn.Module:
    """Return the storage of 4-bit layers of compressed-tensors: `weight_packed`, and the shape that it had."""
    layer = nn.Linear(COLUMNS, ROWS, bias=False, dtype=torch.float16)
    del layer.weight
    packed = torch.zeros(ROWS, COLUMNS // 8, dtype=torch.int32)
    layer.weight_packed = nn.Parameter(packed, requires_grad=False)
    layer.weight_scale = nn.Parameter(torch.zeros(ROWS, GROUPS, dtype=torch.float16), requires_grad=False)
    layer.weight_shape = nn.Parameter(torch.tensor([ROWS, COLUMNS]), requires_grad=False)
    return layer


def float8() -> nn.Module:
    """Return the storage of fine-grained fp8: the weight and the reciprocal of its scale."""
    layer = nn.Linear(COLUMNS, ROWS, bias=False, dtype=torch.float16)
    layer.weight = nn.Parameter(torch.zeros(ROWS, COLUMNS).to(torch.float8_e4m3fn), requires_grad=False)
    layer.weight_scale_inv = nn.Parameter(torch.zeros(1, 1), requires_grad=False)
    return layer
