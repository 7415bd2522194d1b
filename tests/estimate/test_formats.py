"""Bytes of a matrix in each format: counted by hand from the layouts, and by the libraries that store them."""

from __future__ import annotations

from typing import Any

import pytest

from layerprof.estimate.formats import FORMATS

ROWS, COLUMNS = 100, 256
BY_HAND = {
    "int8": 100 * 256 + 100 * 4 + 100 * 1,
    "int4": 100 * 128 + 100 * 2 * 2 + 100 * 2 * 2,  # two groups of 128 a row, scale and zero point of two bytes
    "nf4": 100 * 128 + 400 * 4 + 16 * 4,
    "fp8": 100 * 256 + 100 * 4,
}


@pytest.mark.parametrize("name", BY_HAND)
def test_a_matrix_has_the_bytes_of_its_layout(name: str) -> None:
    """A matrix of 100 rows and 256 columns, which was fp16: codes, scales, zero points and tables."""
    assert FORMATS[name].stored(ROWS, COLUMNS, 2) == BY_HAND[name]


def test_int4_keeps_what_does_not_divide_into_its_groups() -> None:
    """Rows of 192 columns are one group and a half: the matrix stays as it is."""
    assert FORMATS["int4"].stored(64, 192, 2) is None


@pytest.mark.parametrize(("name", "bits"), [("int8", 8), ("int4", 4), ("nf4", 4.5), ("fp8", 8)])
def test_the_least_bits_of_an_element(name: str, bits: float) -> None:
    """Codes, and in nf4 the scale of every 64 elements; no matrix takes less than that."""
    least = FORMATS[name].least_bits
    assert least == bits
    for rows, columns in ((1, 128), (4096, 4096), (7, 11008)):
        stored = FORMATS[name].stored(rows, columns, 2)
        assert stored is not None
        assert stored >= rows * columns * least / 8


@pytest.mark.parametrize(("name", "config"), [("int8", "Int8WeightOnlyConfig"), ("fp8", "Float8WeightOnlyConfig")])
def test_torchao_stores_as_many_bytes(name: str, config: str) -> None:
    """A linear layer that torchao has quantised: the tensors inside its weight."""
    import torch

    quantization = pytest.importorskip("torchao.quantization")
    layer = torch.nn.Linear(COLUMNS, ROWS, dtype=torch.bfloat16)
    quantization.quantize_(layer, getattr(quantization, config)())
    weight: Any = layer.weight
    parts = [getattr(weight, inner) for inner in weight.__tensor_flatten__()[0]]
    assert sum(part.nbytes for part in parts) == FORMATS[name].stored(ROWS, COLUMNS, 2)


def test_bitsandbytes_stores_as_many_bytes() -> None:
    """A linear layer in nf4: packed codes, the largest magnitude of each block, and the table of the codes."""
    import torch

    bitsandbytes = pytest.importorskip("bitsandbytes")
    layer = bitsandbytes.nn.Linear4bit(COLUMNS, ROWS, bias=False, quant_type="nf4", compress_statistics=False)
    weight = layer.to("cpu").weight
    state = weight.quant_state
    stored = sum(part.nbytes for part in (weight.data, state.absmax, state.code))
    assert stored == FORMATS["nf4"].stored(ROWS, COLUMNS, torch.float32.itemsize)
