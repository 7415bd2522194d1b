"""What weights are stored as: each way in which a package keeps codes and scales, on modules made by hand."""

from __future__ import annotations

from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from layerprof.machine import stored, tensors

ROWS, COLUMNS, GROUP = 32, 64, 16
NUMBERS = ROWS * COLUMNS
GROUPS = COLUMNS // GROUP


class Wrapped(torch.Tensor):
    """A subclass that wraps codes and scales, and tells by `__tensor_flatten__`."""

    codes: Tensor
    scale: Tensor

    @staticmethod
    def __new__(cls, codes: Tensor, scale: Tensor) -> Wrapped:
        return torch.Tensor._make_wrapper_subclass(cls, codes.shape, dtype=scale.dtype)  # type: ignore[attr-defined, no-any-return]  # how torch documents such classes

    def __init__(self, codes: Tensor, scale: Tensor) -> None:
        self.codes, self.scale = codes, scale

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["codes", "scale"], None

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
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
        return torch.Tensor._make_wrapper_subclass(cls, (rows, columns), dtype=torch.bfloat16)  # type: ignore[attr-defined, no-any-return]  # how torch documents such classes

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.detach.default:
            return cls(*args[0].shape)
        return func(*(torch.zeros(x.shape, dtype=x.dtype) if isinstance(x, Opaque) else x for x in args))


def _wrapped(kind: type[Wrapped] = Wrapped) -> Wrapped:
    return kind(torch.ones(ROWS, COLUMNS, dtype=torch.int8), torch.ones(ROWS, 1, dtype=torch.bfloat16))


def _linear(weight: Tensor, *, bias: bool = True) -> nn.Linear:
    linear = nn.Linear(COLUMNS, ROWS, bias=bias, dtype=torch.bfloat16)
    linear.weight = nn.Parameter(weight, requires_grad=False)
    return linear


class Gptq(nn.Module):
    """The storage of a GPTQ layer: eight 4-bit codes to an int32, in buffers."""

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


def _four_bits(*, nested: bool) -> nn.Linear:
    """Return a layer of 4-bit codes in blocks of 64; `nested` has the blocks' sizes quantised in turn."""
    linear = nn.Linear(COLUMNS, ROWS, bias=False)
    weight = Params4bit(torch.zeros(NUMBERS // 2, 1, dtype=torch.uint8), requires_grad=False)
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
    linear.weight = weight
    return linear


def _int8() -> nn.Module:
    """Return the storage of 8-bit layers of compressed-tensors: an int8 parameter and its scales."""
    linear = nn.Linear(COLUMNS, ROWS, dtype=torch.float16)
    linear.weight = nn.Parameter(torch.zeros(ROWS, COLUMNS, dtype=torch.int8), requires_grad=False)
    linear.weight_scale = nn.Parameter(torch.zeros(ROWS, 1, dtype=torch.float16), requires_grad=False)
    return linear


def _packed_int4() -> nn.Module:
    """Return the storage of 4-bit layers of compressed-tensors: `weight_packed`, and the shape that it had."""
    linear = nn.Linear(COLUMNS, ROWS, bias=False, dtype=torch.float16)
    del linear.weight
    packed = torch.zeros(ROWS, COLUMNS // 8, dtype=torch.int32)
    linear.weight_packed = nn.Parameter(packed, requires_grad=False)
    linear.weight_scale = nn.Parameter(torch.zeros(ROWS, GROUPS, dtype=torch.float16), requires_grad=False)
    linear.weight_shape = nn.Parameter(torch.tensor([ROWS, COLUMNS]), requires_grad=False)
    return linear


def _float8() -> nn.Module:
    linear = nn.Linear(COLUMNS, ROWS, bias=False, dtype=torch.float16)
    linear.weight = nn.Parameter(torch.zeros(ROWS, COLUMNS).to(torch.float8_e4m3fn), requires_grad=False)
    linear.weight_scale_inv = nn.Parameter(torch.zeros(1, 1), requires_grad=False)
    return linear


CASES: dict[str, tuple[nn.Module, str, int, int]] = {
    "plain": (nn.Linear(COLUMNS, ROWS, dtype=torch.float16), "fp16", 2 * (NUMBERS + ROWS), NUMBERS + ROWS),
    "subclass": (_linear(_wrapped()), "int8 + bf16", NUMBERS + 2 * ROWS + 2 * ROWS, NUMBERS + ROWS),
    "subclass that tells no names": (_linear(_wrapped(Untold), bias=False), "int8", NUMBERS + 2 * ROWS, NUMBERS),
    "int8 with scales": (_int8(), "int8 + fp16", NUMBERS + 2 * ROWS + 2 * ROWS, NUMBERS + ROWS),
    "int4 packed": (_packed_int4(), "int4", NUMBERS // 2 + 2 * ROWS * GROUPS + 16, NUMBERS),
    "fp8": (_float8(), "fp8", NUMBERS + 4, NUMBERS),
    "gptq": (
        Gptq(),
        "int4 + fp16",
        NUMBERS // 2 + GROUPS * ROWS // 2 + 2 * GROUPS * ROWS + 4 * COLUMNS + 2 * ROWS,
        NUMBERS + ROWS,
    ),
    "gptq of 8 bits": (
        Gptq(8),
        "int8 + fp16",
        NUMBERS + GROUPS * ROWS + 2 * GROUPS * ROWS + 4 * COLUMNS + 2 * ROWS,
        NUMBERS + ROWS,
    ),
    "awq": (Awq(), "int4", NUMBERS // 2 + GROUPS * ROWS // 2 + 2 * GROUPS * ROWS, NUMBERS),
    "hqq": (Hqq(), "int4 + fp16", NUMBERS // 2 + 2 * 2 * NUMBERS // GROUP + 2 * ROWS, NUMBERS + ROWS),
    "nf4": (_four_bits(nested=False), "nf4", NUMBERS // 2 + 4 * NUMBERS // 64 + 4 * 16, NUMBERS),
    "nf4 with nested scales": (
        _four_bits(nested=True),
        "nf4",
        NUMBERS // 2 + NUMBERS // 64 + 4 * 16 + 4 + 4 + 4 * 256,
        NUMBERS,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bytes_numbers_and_format_are_those_of_what_is_stored(name: str) -> None:
    """Codes, scales and zero points by their own sizes; numbers as many as the matrix has that they stand for."""
    module, format_, size, numbers = CASES[name]
    assert stored.format_of(module) == format_
    assert sum(weight.bytes for weight in stored.weights(module)) == size
    assert stored.size(module) == numbers
    assert stored.unseen(module) == {}


def test_what_does_not_show_its_memory_is_named_with_its_numbers() -> None:
    """Nothing is made up for it: no bytes, and the class under which a reader can look it up."""
    model = nn.Sequential(OrderedDict(seen=nn.Linear(4, 4), hidden=_linear(Opaque(ROWS, COLUMNS), bias=False)))
    assert stored.unseen(model) == {"Opaque": NUMBERS}
    assert stored.size(model) == 4 * 4 + 4 + NUMBERS
    assert sum(weight.bytes for weight in stored.weights(model.hidden)) == 0


def test_torchs_packed_matrices_are_seen_by_the_copy_that_they_give() -> None:
    """Dynamic quantisation keeps codes in an object of C++: one byte a number, a float a bias, 8 for the quantiser."""
    quantised = torch.ao.quantization.quantize_dynamic(
        nn.Sequential(nn.Linear(COLUMNS, ROWS)), {nn.Linear}, torch.qint8
    )
    assert sum(weight.bytes for weight in stored.weights(quantised)) == NUMBERS + 4 * ROWS + 8
    assert stored.size(quantised) == NUMBERS + ROWS
    assert stored.format_of(quantised) == "int8"


def test_an_object_that_gives_no_copy_is_not_seen() -> None:
    """It is named by the module that has it."""
    assert stored.of_packed(object(), "Packed").unseen == "Packed"


def test_tied_weights_are_one() -> None:
    """Two parameters of one memory are one weight, quantised or not."""
    plain = nn.Linear(COLUMNS, ROWS, bias=False)
    model = nn.ModuleList([plain, nn.Linear(COLUMNS, ROWS, bias=False), _linear(_wrapped(), bias=False)])
    model[1].weight = plain.weight
    model.append(_linear(model[2].weight.detach(), bias=False))
    assert stored.size(model) == 2 * NUMBERS


def test_masks_and_positions_are_no_codes() -> None:
    """Buffers of whole numbers without scales beside them are no parameters."""
    module = nn.Module()
    module.weight = nn.Parameter(torch.zeros(4))
    module.register_buffer("position_ids", torch.zeros(1, 8, dtype=torch.int64))
    module.register_buffer("mask", torch.zeros(8, 8, dtype=torch.uint8))
    assert stored.size(module) == 4
    assert stored.format_of(module) == "fp32"


def test_a_module_of_buffers_alone_has_their_format() -> None:
    """A rotary embedding has no parameters, and is still stored as something."""
    module = nn.Module()
    assert stored.format_of(module) is None
    module.register_buffer("inv_freq", torch.zeros(8))
    assert stored.format_of(module) == "fp32"
    assert stored.size(module) == 0


def test_an_expanded_view_has_the_bytes_of_what_lies_in_memory() -> None:
    """GPTQ unpacks by shifting an expanded view of its codes: that is the codes once, not once a shift."""
    codes = torch.zeros(8, 4, dtype=torch.int32)
    assert tensors.own_bytes(codes.unsqueeze(1).expand(8, 8, 4)) == 8 * 4 * 4
    assert tensors.view_key(codes.unsqueeze(1).expand(8, 8, 4)) == tensors.view_key(codes)
    assert tensors.view_key(codes.t()) == tensors.view_key(codes)
    assert tensors.view_key(codes.view(torch.float32)) == tensors.view_key(codes)
    assert tensors.view_key(codes[2:4]) != tensors.view_key(codes)


def test_the_memory_of_tensors_without_any() -> None:
    """Those on no device have sizes; sparse ones are themselves; wrappers have none of their own."""
    assert tensors.owns_memory(torch.zeros(2, device="meta"))
    assert tensors.owns_memory(torch.zeros(0))
    assert tensors.owns_memory(torch.eye(2).to_sparse())
    assert not tensors.owns_memory(_wrapped())
    assert not tensors.has_storage(torch.eye(2).to_sparse())
    assert tensors.inside(Opaque(2, 2)) == ()
    assert [part.dtype for part in tensors.inside(_wrapped())] == [torch.int8, torch.bfloat16]
