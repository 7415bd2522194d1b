"""Counts of linear algebra: the multiply-accumulates of the textbook algorithms, gone through step by step."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.profiler import profile

from layerprof.flops import linear_algebra as count

SIZES = st.integers(1, 7)


def lu_steps(m: int, n: int) -> int:
    """Multiply-accumulates of elimination (GVL 3.4.1): a -= l u for every element right of and below a pivot."""
    return sum(1 for k in range(min(m, n)) for _ in product(range(k + 1, m), range(k + 1, n)))


def back_substitution_steps(n: int) -> int:
    """Multiply-accumulates of x[i] = (b[i] - sum over j < i of l[i, j] x[j]) / l[i, i]."""
    return sum(1 for i in range(n) for _ in range(i))


def cholesky_steps(n: int) -> int:
    """Multiply-accumulates of a[i, j] -= l[i, k] l[j, k] for k < j <= i."""
    return sum(1 for k in range(n) for j in range(k + 1, n) for _ in range(j, n))


def reflection_steps(m: int, n: int, first: int, last: int) -> int:
    """Multiply-accumulates of reflections k = first ... last - 1 (of length m - k) on the columns behind k of n."""
    return sum(2 for k in range(first, last) for _ in product(range(k, m), range(k + 1, n)))


@given(SIZES, SIZES)
def test_factorisations_are_their_algorithms_steps(m: int, n: int) -> None:
    """LU, Cholesky and Householder QR, of any shape."""
    assert count.lu(m, n) == 2 * lu_steps(m, n)
    assert count.cholesky(n) == 2 * cholesky_steps(n)
    assert count.qr(m, n) == 2 * reflection_steps(m, n, 0, min(m, n))


@given(SIZES, st.integers(0, 4))
def test_solving_is_eliminating_and_two_triangles(n: int, sides: int) -> None:
    """Forward and back for each right-hand side."""
    assert count.triangular_solve(n, sides) == 2 * sides * back_substitution_steps(n)
    assert count.solve(n, sides) == 2 * lu_steps(n, n) + 4 * sides * back_substitution_steps(n)


@given(SIZES, SIZES, st.integers(0, 4))
def test_reflections_meet_what_they_are_applied_to_twice(m: int, k: int, sides: int) -> None:
    """Inner product, then update, of each reflection's length; Q's own columns are those behind a reflection."""
    k = min(m, k)
    assert count.reflect(m, sides, k) == 2 * sum(2 * sides for i in range(k) for _ in range(i, m))
    assert count.householder_product(m, m, k) == 2 * reflection_steps(m, m, 0, k)


@pytest.mark.parametrize(
    ("found", "leading"),
    [
        (count.lu(1000, 1000), 2 / 3 * 1e9),
        (count.lu(2000, 1000), 2000 * 1e6 - 1 / 3 * 1e9),
        (count.cholesky(1000), 1 / 3 * 1e9),
        (count.cholesky_inverse(1000), 2 / 3 * 1e9),
        (count.triangular_solve(1000, 50), 50 * 1e6),
        (count.solve(1000, 1000), 8 / 3 * 1e9),
        (count.qr(2000, 1000), 2 * 1e6 * (2000 - 1000 / 3)),
        (count.householder_product(2000, 1000, 1000), 4 * 2e9 - 2 * 3000 * 1e6 + 4 / 3 * 1e9),
        (count.reflect(2000, 50, 1000), 2 * 50 * 1000 * 3000),
        (count.least_squares(2000, 1000, 1), 2 * 1e6 * (2000 - 1000 / 3)),
    ],
)
def test_leading_terms_are_those_of_the_textbooks(found: int, leading: float) -> None:
    """LAPACK Working Note 41 and Golub and Van Loan give them; lower orders are below 1 % at this size."""
    assert found == pytest.approx(leading, rel=1e-2)


def test_singular_values_take_the_lower_of_both_ways() -> None:
    """Square: Golub-Reinsch for values, a QR first for vectors; ten times as tall as wide: QR first for both."""
    assert count.svd(10, 10, vectors=False) == 4 * 1000 - 4 * 1000 // 3
    assert count.svd(100, 10, vectors=False) == count.svd(10, 100, vectors=False) == 2 * 100 * 100 + 2 * 1000
    assert count.svd(10, 10, vectors=True) == 14 * 1000 + 8 * 1000
    assert count.svd(100, 10, vectors=True) == 6 * 100 * 100 + 20 * 1000
    assert count.svd(100, 10, vectors=True, full=True) == 4 * 100**2 * 10 + 22 * 1000


def test_eigenvalues_have_the_textbook_s_multiples_of_n_cubed() -> None:
    """Symmetric 4/3 and 9, general 10 and 25."""
    assert [count.symmetric_eigen(30, vectors=v) for v in (False, True)] == [36000, 243000]
    assert [count.eigen(30, vectors=v) for v in (False, True)] == [270000, 675000]


NORMS = [0.0, 1e-8, 1e-5, 1e-3, 0.03, 0.2, 0.9, 1.3, 2.0, 4.0, 9.0, 70.0, 500.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("norms", [*([norm] for norm in NORMS), [1e-8, 1e-8], [0.2, 4.0, 70.0]])
def test_a_matrix_exponential_has_the_products_that_torch_runs(norms: list[float], dtype: torch.dtype) -> None:
    """Told by torch's profiler, which sees the products inside of the operator."""
    matrices = torch.stack([torch.full((4, 4), norm / 4, dtype=dtype) for norm in norms])
    with profile(record_shapes=True) as seen:
        torch.linalg.matrix_exp(matrices)
    ran = sum(event.input_shapes[0][0] for event in seen.events() if event.name == "aten::bmm")
    assert count.exponential_products(norms, double=dtype is torch.float64) == ran


def test_a_norm_that_is_no_number_is_no_endless_loop() -> None:
    """Infinite and undefined norms end."""
    assert count.exponential_products([math.nan], double=False) == count.PRODUCTS_OF_18
    assert count.exponential_products([math.inf, 1.0], double=True) > 0
