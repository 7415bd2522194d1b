"""Linear algebra: what the textbook algorithm behind each of torch's factorisations and solvers multiplies.

A count is 2 FLOPs per multiply-accumulate of the algorithm's products, summed exactly; divisions, square roots,
pivoting and norms are elementwise. Its leading terms are those of LAPACK Working Note 41 and of Golub and Van Loan,
"Matrix Computations" (4th edition, "GVL" here). Iterative algorithms have the textbook's typical count: theirs depends
on values.
"""

from __future__ import annotations


def _sum_of_products(a: int, b: int, steps: int) -> int:
    """Sum of (a - k)(b - k) over k = 1 ... steps."""
    first, second = steps * (steps + 1) // 2, steps * (steps + 1) * (2 * steps + 1) // 6
    return steps * a * b - (a + b) * first + second


# --- triangles --------------------------------------------------------------------------------------------------


def triangular_solve(size: int, sides: int) -> int:
    """FLOPs of solving with a (size, size) triangle for `sides` right-hand sides: size² x sides to leading order.

    Each unknown takes off the products of those known before. Source: GVL section 3.1.
    """
    return sides * size * (size - 1)


def lu(rows: int, columns: int) -> int:
    """FLOPs of an LU factorisation: 2/3 n³ of a square matrix.

    Step k takes a column times a row off the (rows - k, columns - k) that remain. Source: GVL algorithm 3.4.1; LAPACK
    Working Note 41, GETRF.
    """
    return 2 * _sum_of_products(rows, columns, min(rows, columns))


def cholesky(size: int) -> int:
    """FLOPs of a Cholesky (or LDL) factorisation: 1/3 n³.

    Step k updates one half of what remains, the diagonal included. Source: GVL algorithm 4.2.1; LAPACK Working Note 41,
    POTRF.
    """
    return (size**3 - size) // 3


def cholesky_inverse(size: int) -> int:
    """FLOPs of inverting from a Cholesky factor: 2/3 n³. Source: LAPACK Working Note 41, POTRI."""
    return size * (size - 1) * (2 * size - 1) // 3


def solve(size: int, sides: int) -> int:
    """FLOPs of solving a square system: LU, then two triangles. Source: GVL section 3.2.

    torch inverts by the same, with as many right-hand sides as rows: 8/3 n³.
    """
    return lu(size, size) + 2 * triangular_solve(size, sides)


# --- reflections ------------------------------------------------------------------------------------------------


def qr(rows: int, columns: int) -> int:
    """FLOPs of a Householder QR without forming Q: 2 n² (m - n/3) of a tall matrix.

    Reflection k, of length rows - k + 1, meets the columns - k behind it twice: once for the inner products, once to
    take them off. Source: GVL algorithm 5.2.1; LAPACK Working Note 41, GEQRF.
    """
    return 4 * _sum_of_products(rows + 1, columns, min(rows, columns))


def householder_product(rows: int, columns: int, reflections: int) -> int:
    """FLOPs of the first `columns` columns of a product of reflections: 4 m n k - 2 (m + n) k² + 4/3 k³.

    Source: GVL section 5.1.6 (backward accumulation); LAPACK Working Note 41, ORGQR.
    """
    return 4 * _sum_of_products(rows + 1, columns, reflections)


def reflect(size: int, sides: int, reflections: int) -> int:
    """FLOPs of applying reflections of lengths size, size - 1, ... to `sides` vectors: 2 n k (2 m - k).

    Source: LAPACK Working Note 41, ORMQR.
    """
    return 4 * sides * sum(range(size - reflections + 1, size + 1))


def least_squares(rows: int, columns: int, sides: int) -> int:
    """FLOPs of least squares by QR: factor, reflect the right-hand sides, solve a triangle; LQ where it is wide.

    Source: GVL section 5.3.2 (and 5.6.2 for wide ones).
    """
    tall, short = max(rows, columns), min(rows, columns)
    return qr(tall, short) + reflect(tall, sides, short) + triangular_solve(short, sides)


def least_squares_by_svd(rows: int, columns: int, sides: int) -> int:
    """FLOPs of least squares by singular values: 4 m n² + 8 n³, for whatever right-hand sides.

    Source: GVL table 5.5.1 (Golub-Reinsch SVD).
    """
    tall, short = max(rows, columns), min(rows, columns)
    return 4 * tall * short**2 + 8 * short**3


# --- values and vectors -----------------------------------------------------------------------------------------


def svd(rows: int, columns: int, *, vectors: bool, full: bool = False) -> int:
    """FLOPs of a singular value decomposition; the lower of both textbook ways, since libraries change over, too.

    Golub-Reinsch, and with a QR first (the lower one of tall matrices): values only 4 m n² - 4/3 n³ or 2 m n² + 2 n³;
    with the vectors of both sides 14 m n² + 8 n³ or 6 m n² + 20 n³; with all m of them on the long side
    4 m² n + 8 m n² + 9 n³ or 4 m² n + 22 n³. Source: GVL figure 8.6.1.
    """
    m, n = max(rows, columns), min(rows, columns)
    if not vectors:
        return min(4 * m * n**2 - 4 * n**3 // 3, 2 * m * n**2 + 2 * n**3)
    if full:
        return 4 * m**2 * n + min(8 * m * n**2 + 9 * n**3, 22 * n**3)
    return min(14 * m * n**2 + 8 * n**3, 6 * m * n**2 + 20 * n**3)


def symmetric_eigen(size: int, *, vectors: bool) -> int:
    """FLOPs of a symmetric eigenvalue decomposition: 4/3 n³ for the values, 9 n³ with vectors.

    Source: GVL section 8.3 (tridiagonal QR).
    """
    return 9 * size**3 if vectors else 4 * size**3 // 3


def eigen(size: int, *, vectors: bool) -> int:
    """FLOPs of a general eigenvalue decomposition: 10 n³ for the values, 25 n³ with vectors.

    Source: GVL section 7.5 (Hessenberg QR).
    """
    return 25 * size**3 if vectors else 10 * size**3


# --- the exponential --------------------------------------------------------------------------------------------

_SINGLE = (
    1.192092800768788e-07,
    5.978858893805233e-04,
    5.116619363445086e-02,
    5.800524627688768e-01,
    1.461661507209034,
)
_DOUBLE = (
    2.220446049250313e-16,
    2.580956802971767e-08,
    3.397168839976962e-04,
    4.991228871115323e-02,
    2.996158913811580e-01,
)
_SCALED = {False: 3.010066362817634, True: 1.090863719290036}
PRODUCTS_OF_18 = 5


def exponential_products(norms: list[float], *, double: bool) -> int:
    """Products of square matrices in torch's matrix exponential of a batch, from each matrix's 1-norm.

    A Taylor polynomial of degree 1, 2, 4, 8 or 12 takes 0 to 4 products, chosen by the norm; of degree 18 it takes 5
    and as many squarings as the matrix was halved. A batch of several takes degree 18 for all. Source: Bader, Blanes
    and Casas, "Computing the Matrix Exponential with an Optimized Taylor Polynomial Approximation" (2019), table 1 and
    section 3, whose bounds on the norm torch has.
    """
    bounds, scaled = (_DOUBLE if double else _SINGLE), _SCALED[double]
    if len(norms) == 1 and norms[0] <= bounds[-1]:
        return next(products for products, bound in enumerate(bounds) if norms[0] <= bound)
    return sum(PRODUCTS_OF_18 + _squarings(norm / scaled) for norm in norms)


def _squarings(ratio: float) -> int:
    """Halvings that bring a ratio down to 1."""
    count = 0
    while ratio > 1 and count < 1100:
        ratio, count = ratio / 2, count + 1
    return count
