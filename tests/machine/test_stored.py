"""What weights are stored as: each way in which a package keeps codes and scales, on modules made by hand."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
from quantised_storages import (
    COLUMNS,
    GROUP,
    GROUPS,
    NUMBERS,
    ROWS,
    Awq,
    Gptq,
    Hqq,
    Opaque,
    Untold,
    float8,
    four_bits,
    int8,
    linear,
    packed_int4,
    wrapped,
)
from torch import nn

from layerprof.machine import stored, tensors

CASES: dict[str, tuple[nn.Module, str, int, int]] = {
    "plain": (nn.Linear(COLUMNS, ROWS, dtype=torch.float16), "fp16", 2 * (NUMBERS + ROWS), NUMBERS + ROWS),
    "subclass": (linear(wrapped()), "int8 + bf16", NUMBERS + 2 * ROWS + 2 * ROWS, NUMBERS + ROWS),
    "subclass that tells no names": (linear(wrapped(Untold), bias=False), "int8", NUMBERS + 2 * ROWS, NUMBERS),
    "int8 with scales": (int8(), "int8 + fp16", NUMBERS + 2 * ROWS + 2 * ROWS, NUMBERS + ROWS),
    "int4 packed": (packed_int4(), "int4", NUMBERS // 2 + 2 * ROWS * GROUPS + 16, NUMBERS),
    "fp8": (float8(), "fp8", NUMBERS + 4, NUMBERS),
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
    "nf4": (four_bits(nested=False), "nf4", NUMBERS // 2 + 4 * NUMBERS // 64 + 4 * 16, NUMBERS),
    "nf4 in memory of bf16": (
        four_bits(nested=False, lent=torch.bfloat16),
        "nf4",
        NUMBERS // 2 + 4 * NUMBERS // 64 + 4 * 16,
        NUMBERS,
    ),
    "nf4 with nested scales": (
        four_bits(nested=True),
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
    hidden = linear(Opaque(ROWS, COLUMNS), bias=False)
    model = nn.Sequential(OrderedDict(seen=nn.Linear(4, 4), hidden=hidden))
    assert stored.unseen(model) == {"Opaque": NUMBERS}
    assert stored.size(model) == 4 * 4 + 4 + NUMBERS
    assert sum(weight.bytes for weight in stored.weights(hidden)) == 0


def test_torchs_packed_matrices_are_seen_by_the_copy_that_they_give() -> None:
    """Dynamic quantisation keeps codes in an object of C++: one byte a number, a float a bias, 8 for the quantiser."""
    plain: Any = nn.Sequential(nn.Linear(COLUMNS, ROWS))
    quantise: Any = torch.ao.quantization.quantize_dynamic
    quantised = quantise(plain, {nn.Linear}, torch.qint8)
    assert sum(weight.bytes for weight in stored.weights(quantised)) == NUMBERS + 4 * ROWS + 8
    assert stored.size(quantised) == NUMBERS + ROWS
    assert stored.format_of(quantised) == "int8"


def test_torchs_packed_halves_are_two_bytes_a_number() -> None:
    """The object stores fp16 and gives its copy in fp32; the bias is kept in fp32."""
    plain: Any = nn.Sequential(nn.Linear(COLUMNS, ROWS))
    quantise: Any = torch.ao.quantization.quantize_dynamic
    packed = quantise(plain, {nn.Linear}, torch.float16)
    assert sum(weight.bytes for weight in stored.weights(packed)) == 2 * NUMBERS + 4 * ROWS
    assert stored.size(packed) == NUMBERS + ROWS
    assert stored.format_of(packed) == "fp16"
    assert not any(weight.quantised for weight in stored.weights(packed))


@pytest.mark.parametrize(
    ("dtype", "name", "matrix"),
    [(torch.qint8, "int8", 4 * ROWS * COLUMNS + 8), (torch.float16, "fp16", 2 * 4 * ROWS * COLUMNS)],
)
def test_a_recurrent_layers_packed_matrices_are_seen_with_their_biases(dtype: Any, name: str, matrix: int) -> None:
    """An object in each layer holds one for the input and one for the hidden state, four gates high, with a bias each.

    The biases are floats, and in 8 bits the layer's object and its matrices hold the same ones.
    """
    plain: Any = nn.Sequential(nn.LSTM(COLUMNS, ROWS))
    hidden = matrix * ROWS // COLUMNS if dtype is torch.float16 else 4 * ROWS * ROWS + 8
    quantise: Any = torch.ao.quantization.quantize_dynamic
    packed = quantise(plain, {nn.LSTM}, dtype)
    assert sum(weight.bytes for weight in stored.weights(packed)) == matrix + hidden + 2 * 4 * 4 * ROWS
    assert stored.size(packed) == sum(parameter.numel() for parameter in plain.parameters())
    assert stored.format_of(packed) == name


def test_an_object_that_gives_no_copy_is_not_seen() -> None:
    """It is named by the module that has it."""
    assert stored.of_packed(object(), "Packed").unseen == "Packed"


def test_tied_weights_are_one() -> None:
    """Two parameters of one memory are one weight, quantised or not."""
    layers = [nn.Linear(COLUMNS, ROWS, bias=False) for _ in range(2)]
    layers += [linear(wrapped(), bias=False) for _ in range(2)]
    layers[1].weight, layers[3].weight = layers[0].weight, layers[2].weight
    model = nn.ModuleList(layers)
    assert stored.size(model) == 2 * NUMBERS


def test_masks_and_positions_are_no_codes() -> None:
    """Buffers of whole numbers without scales beside them are no parameters."""
    module = nn.Module()
    module.weight = nn.Parameter(torch.zeros(4))
    module.register_buffer("position_ids", torch.zeros(1, 8, dtype=torch.int64))
    module.register_buffer("mask", torch.zeros(8, 8, dtype=torch.uint8))
    assert stored.size(module) == 4
    assert stored.format_of(module) == "fp32"


def test_positions_beside_a_learnt_scale_are_no_codes() -> None:
    """Swin V2's attention has both: an index of relative positions, and a temperature that is named a scale."""
    module = nn.Module()
    module.logit_scale = nn.Parameter(torch.ones(2, 1, 1))
    module.register_buffer("relative_position_index", torch.zeros(64, 64, dtype=torch.int64))
    assert stored.size(module) == 2
    assert stored.format_of(module) == "fp32"
    assert not any(weight.quantised for weight in stored.of_module(module))


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
    assert not tensors.owns_memory(wrapped())
    assert not tensors.has_storage(torch.eye(2).to_sparse())
    assert tensors.inside(Opaque(2, 2)) == ()
    assert [part.dtype for part in tensors.inside(wrapped())] == [torch.int8, torch.bfloat16]
