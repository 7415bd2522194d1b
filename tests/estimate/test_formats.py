"""The least that a weight takes in each format, against the bytes of matrices."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerprof.estimate.formats import LEAST_BITS
from layerprof.models.quantization import package_of, scheme_of

sides = st.integers(1, 3000)


@pytest.mark.parametrize("on", ["cpu", "cuda"])
@pytest.mark.parametrize("name", LEAST_BITS)
@given(rows=sides, columns=sides)
def test_no_matrix_takes_less(name: str, on: str, rows: int, columns: int) -> None:
    """Whatever its shape, and whichever package stores it."""
    scheme = scheme_of(name, package_of(name, on), [columns])
    if scheme.takes(columns):
        assert scheme.stored_bytes(rows, columns, 2) >= rows * columns * LEAST_BITS[name] / 8


@pytest.mark.parametrize(("name", "bits"), [("int8", 8), ("int4", 4), ("nf4", 4.5), ("fp8", 8)])
def test_a_large_matrix_takes_hardly_more(name: str, bits: float) -> None:
    """Of 8192 x 8192 codes all but a fortieth of the bytes are codes, int4's scales and zero points excepted."""
    scheme = scheme_of(name, package_of(name, "cuda"), [8192])
    stored = scheme.stored_bytes(8192, 8192, 2) * 8 / 8192**2
    assert LEAST_BITS[name] == bits
    assert bits <= stored <= bits * (1.07 if name == "int4" else 1.001)
