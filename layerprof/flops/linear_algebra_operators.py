"""torch's operators of linear algebra and of distances, and which count of `linear_algebra` each takes.

What torch runs is counted, where that is known: it inverts by solving for the identity, and takes determinants from an
LU factorisation. All but the last two dimensions are a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from layerprof.flops import formulas, linear_algebra
from layerprof.flops.counted import Formula, Operands, Product, given

PRODUCTS = "products by value"
"""Key beside the operands of a matrix exponential: products of square matrices, which the norms decide."""


def _matrices(operand: tuple[int, ...]) -> tuple[int, int, int]:
    """Return (batch, rows, columns)."""
    return prod(operand[:-2]), operand[-2], operand[-1]


def _of_matrix(count: Callable[[int, int], int], *names: str) -> Formula:
    """Return the formula of an operator that does `count(rows, columns)` for each matrix of its first operand."""

    def formula(operands: Operands, output: Any) -> Product:
        batch, rows, columns = _matrices(given(operands, *names))
        return Product(batch * count(rows, columns))

    return formula


def _of_square(count: Callable[[int], int], *names: str) -> Formula:
    return _of_matrix(lambda rows, columns: count(columns), *names)


# --- solvers ----------------------------------------------------------------------------------------------------


def _sides(output: Any, left: Any) -> int:
    """Right-hand sides of a solution (…, size, sides), or (…, sides, size) where the matrix stands on the right."""
    return int(output[-1] if left else output[-2])


def _solve(operands: Operands, output: Any) -> Product:
    """Matrices are factored as they come; solutions have the batch of both operands together."""
    a, b = operands["A"], operands["B"]
    size = a[-1]
    if len(b) == 1 or (len(b) == len(a) - 1 and b == a[:-1]):
        solutions, sides = prod(output[:-1]), 1
    else:
        solutions, sides = prod(output[:-2]), _sides(output, operands.get("left", True))
    factored = prod(a[:-2]) * linear_algebra.lu(size, size)
    return Product(factored + 2 * solutions * linear_algebra.triangular_solve(size, sides))


def _triangles(times: int, *names: str) -> Formula:
    """Return the formula of solvers that have a triangle (or its two) already; `names` may be the matrix."""

    def count(operands: Operands, output: Any) -> Product:
        sides = _sides(output, operands.get("left", True))
        one = linear_algebra.triangular_solve(given(operands, *names)[-1], sides)
        return Product(times * prod(output[:-2]) * one)

    return count


def _least_squares(operands: Operands, output: Any) -> Product:
    a, b = given(operands, "self", "input"), operands["b"]
    batch, rows, columns = _matrices(a)
    by_svd = operands.get("driver") in ("gelsd", "gelss")
    count = linear_algebra.least_squares_by_svd if by_svd else linear_algebra.least_squares
    return Product(batch * count(rows, columns, b[-1] if len(b) == len(a) else 1))


# --- factorisations ---------------------------------------------------------------------------------------------


def _qr(operands: Operands, output: Any) -> Product:
    """Factor, then form Q where it is wanted: `output` is its shape."""
    batch, rows, columns = _matrices(operands["A"])
    work = linear_algebra.qr(rows, columns)
    if prod(output):
        work += linear_algebra.householder_product(rows, output[-1], min(rows, columns))
    return Product(batch * work)


def _householder_product(operands: Operands, output: Any) -> Product:
    batch, rows, columns = _matrices(given(operands, "input", "self"))
    return Product(batch * linear_algebra.householder_product(rows, columns, given(operands, "tau", "input2")[-1]))


def _reflect(operands: Operands, output: Any) -> Product:
    """`ormqr`: the reflections in `self` meet the columns of the last operand, or its rows from the right."""
    batch, rows, columns = _matrices(operands["input3"])
    size, sides = (rows, columns) if operands.get("left", True) else (columns, rows)
    return Product(batch * linear_algebra.reflect(size, sides, operands["input2"][-1]))


def _svd(operands: Operands, output: Any) -> Product:
    batch, rows, columns = _matrices(operands["A"])
    vectors, full = operands.get("compute_uv", True), operands.get("full_matrices", False)
    return Product(batch * linear_algebra.svd(rows, columns, vectors=vectors, full=full))


def _symmetric_eigen(operands: Operands, output: Any) -> Product:
    batch, _, size = _matrices(operands["A"])
    return Product(batch * linear_algebra.symmetric_eigen(size, vectors=operands.get("compute_v", True)))


def _pseudoinverse(operands: Operands, output: Any) -> Product:
    """All vectors, and one product of them: V x (U over the values)."""
    batch, rows, columns = _matrices(operands["self"])
    if operands.get("hermitian", False):
        vectors = linear_algebra.symmetric_eigen(columns, vectors=True)
    else:
        vectors = linear_algebra.svd(rows, columns, vectors=True)
    return Product(batch * (vectors + formulas.matmul(columns, min(rows, columns), rows)))


def _exponential(operands: Operands, output: Any) -> Product:
    """As many products as the norms ask for; where nobody could read them, as many as there are at the least."""
    batch, _, size = _matrices(operands["self"])
    if size < 2:
        return Product(0)
    products = operands.get(PRODUCTS)
    least = linear_algebra.PRODUCTS_OF_18 * batch if batch > 1 else 0
    return Product(formulas.matmul(size, size, size, least if products is None else products), least=products is None)


# --- distances --------------------------------------------------------------------------------------------------


def _through_product(operands: Operands, output: Any) -> Product:
    """Count |x|² - 2xy + |y|² as torch runs it: one product, over two more than the points' coordinates."""
    return Product(formulas.contraction(output, operands["x1"][-1] + 2))


def _distances(operands: Operands, output: Any) -> Product:
    """Count a sum over coordinates for each pair of points: a multiply-accumulate each, whatever the norm.

    With the Euclidean norm and more than 25 points torch takes the product, unless told not to.
    """
    x1, x2, mode = operands["x1"], operands["x2"], operands.get("compute_mode") or 0
    if operands.get("p", 2) == 2 and (mode == 1 or (mode == 0 and max(x1[-2], x2[-2]) > 25)):
        return _through_product(operands, output)
    return Product(formulas.contraction(output, x1[-1]))


def _distances_backward(operands: Operands, output: Any) -> Product:
    """Count, for each coordinate of a point, a sum over the points of the other set."""
    return Product(formulas.contraction(operands["grad"], operands["x1"][-1]))


def _own_distances(operands: Operands, output: Any) -> Product:
    """Count each pair of one set's points once; twice for gradients, which both points of a pair get."""
    points, width = operands["self"]
    times = 2 if "grad" in operands else 1
    return Product(times * formulas.contraction((points * (points - 1) // 2,), width))


def _grid(operands: Operands, output: Any) -> Product:
    """Count each row's matrix by every place of its grid, (places, dimensions + 1); the same for its gradient."""
    rows, _, *places = operands.get("size") or [operands[name] for name in ("N", "C", "H", "W")]
    return Product(formulas.matmul(prod(places), len(places) + 1, len(places), rows))


FORMULAS: dict[str, Formula] = {
    **dict.fromkeys(
        ("aten::linalg_lu_factor_ex", "aten::linalg_lu_factor", "aten::linalg_lu", "aten::_lu_with_info"),
        _of_matrix(linear_algebra.lu, "A", "self"),
    ),
    **dict.fromkeys(("aten::_linalg_det", "aten::_linalg_slogdet"), _of_matrix(linear_algebra.lu, "A")),
    "aten::linalg_inv_ex": _of_square(lambda size: linear_algebra.solve(size, size), "A"),
    **dict.fromkeys(("aten::_linalg_solve_ex", "aten::linalg_solve_ex", "aten::linalg_solve"), _solve),
    "aten::linalg_lu_solve": _triangles(2, "LU"),
    "aten::lu_solve": _triangles(2, "LU_data"),
    **dict.fromkeys(("aten::cholesky_solve", "aten::_cholesky_solve_helper"), _triangles(2, "input2", "A")),
    "aten::linalg_ldl_solve": _triangles(2, "LD"),
    "aten::linalg_solve_triangular": _triangles(1, "self"),
    "aten::triangular_solve": _triangles(1, "A"),
    "aten::linalg_lstsq": _least_squares,
    **dict.fromkeys(
        ("aten::linalg_cholesky_ex", "aten::cholesky", "aten::linalg_ldl_factor_ex"),
        _of_square(linear_algebra.cholesky, "self"),
    ),
    "aten::cholesky_inverse": _of_square(linear_algebra.cholesky_inverse, "self"),
    "aten::linalg_qr": _qr,
    "aten::geqrf": _of_matrix(linear_algebra.qr, "self"),
    **dict.fromkeys(("aten::linalg_householder_product", "aten::orgqr"), _householder_product),
    "aten::ormqr": _reflect,
    "aten::_linalg_svd": _svd,
    "aten::_linalg_eigh": _symmetric_eigen,
    "aten::linalg_eig": _of_square(lambda size: linear_algebra.eigen(size, vectors=True), "self"),
    **dict.fromkeys(
        ("aten::_linalg_eigvals", "aten::linalg_eigvals"),
        _of_square(lambda size: linear_algebra.eigen(size, vectors=False), "self"),
    ),
    "aten::linalg_pinv": _pseudoinverse,
    "aten::linalg_matrix_exp": _exponential,
    "aten::_euclidean_dist": _through_product,
    "aten::_cdist_forward": _distances,
    "aten::_cdist_backward": _distances_backward,
    **dict.fromkeys(("aten::_pdist_forward", "aten::_pdist_backward"), _own_distances),
    **dict.fromkeys(
        (
            "aten::affine_grid_generator",
            "aten::affine_grid_generator_backward",
            "aten::cudnn_affine_grid_generator",
            "aten::cudnn_affine_grid_generator_backward",
        ),
        _grid,
    ),
}
