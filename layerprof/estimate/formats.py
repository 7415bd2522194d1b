"""Formats that weights are stored in: how many bytes a matrix takes in each. Pure arithmetic on shapes.

Where each layout is written down:

- `int8`: torchao's `Int8WeightOnlyConfig` (`torchao/quantization/quantize_/workflows/int8/int8_tensor.py`): codes
  (rows, columns) of one byte; a scale (rows, 1) of float32 and a zero point (rows, 1) of one byte.
- `int4`: torchao's `Int4WeightOnlyConfig` with its groups of 128 along a row, packing `plain`
  (`workflows/int4/int4_tensor.py`): two codes a byte; scale and zero point (columns / 128, rows) in the dtype of the
  matrix. A matrix whose columns are no multiple of 128 is left as it is.
- `nf4`: bitsandbytes' `Linear4bit` without double quantisation (`bitsandbytes/functional.py`, `quantize_4bit`; QLoRA,
  arXiv:2305.14314): two codes a byte, the largest magnitude of every 64 elements of the flattened matrix as float32,
  and the table of 16 float32 values that the codes stand for.
- `fp8`: torchao's `Float8WeightOnlyConfig` (`workflows/float8/float8_tensor.py`): codes (rows, columns) of one byte
  (e4m3), a scale (rows, 1) of float32.

All four store weights only. The arithmetic is that of the model's dtype: codes become numbers of that dtype inside the
product, so FLOPs and the peak that bounds them stay what they were.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

GROUP = 128
"""Columns of a row that share a scale and a zero point in int4."""
BLOCK = 64
"""Elements that share a largest magnitude in nf4."""
TABLE = 16
"""Values that nf4's codes stand for."""
FLOAT32 = 4


@dataclass(frozen=True, slots=True)
class Format:
    """How a matrix is stored: `stored(rows, columns, itemsize)` are its bytes, None where it stays as it is.

    `itemsize` is that of the dtype it had. `least_bits` are the bits that an element takes at the least, whatever the
    shape: the codes, and what stands beside blocks of one size, but nothing that stands once a row, a group of a row or
    a matrix. `told` says it in words.
    """

    name: str
    told: str
    stored: Callable[[int, int, int], int | None]
    least_bits: float


def _int8(rows: int, columns: int, _itemsize: int) -> int:
    return rows * columns + rows * (FLOAT32 + 1)


def _fp8(rows: int, columns: int, _itemsize: int) -> int:
    return rows * columns + rows * FLOAT32


def _int4(rows: int, columns: int, itemsize: int) -> int | None:
    if columns % GROUP:
        return None
    return rows * columns // 2 + 2 * rows * (columns // GROUP) * itemsize


def _nf4(rows: int, columns: int, _itemsize: int) -> int:
    elements = rows * columns
    return ceil(elements / 2) + ceil(elements / BLOCK) * FLOAT32 + TABLE * FLOAT32


FORMATS = {
    it.name: it
    for it in (
        Format("int8", "8-bit integers, a scale and a zero point a row", _int8, 8),
        Format("int4", f"4-bit integers, a scale and a zero point for {GROUP} columns of a row", _int4, 4),
        Format("nf4", f"4-bit normal floats, a scale for {BLOCK} elements", _nf4, 4 + 8 * FLOAT32 / BLOCK),
        Format("fp8", "8-bit floats (e4m3), a scale a row", _fp8, 8),
    )
}
"""By the name that `--quantization` takes."""

KEPT = ("embed_tokens", "lm_head", "head", "norm", "rotary", "pos_embed", "patch_embed")
"""Kinds of layers without a matrix that is stored otherwise: transformers leaves embeddings and heads as they are."""
