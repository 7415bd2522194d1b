"""FLOPs of linear algebra in a live forward: what torch runs, by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # torch's own documentation calls it so
from one_call import counted, flops
from torch.profiler import profile

from layerprof.machine.internals import answering

L: Any = torch.linalg
N = 6


def square(*batch: int) -> torch.Tensor:
    """Make well-conditioned symmetric matrices."""
    drawn = torch.randn(*batch, N, N, generator=torch.Generator().manual_seed(1))
    return drawn @ drawn.mT + N * torch.eye(N)


ONE, TWO, FOUR, THREE_BY_ONE = square(), square(2), square(4), square(3, 1)
OBLONG = torch.rand(8, 5)

LU = 2 * sum((N - k) ** 2 for k in range(1, N + 1))
TRIANGLE = N * (N - 1)
CHOLESKY = (N**3 - N) // 3
TALL = 4 * sum((8 + 1 - k) * (5 - k) for k in range(1, 6))  # reflections of an 8 x 5 matrix
FORM = 4 * sum((8 + 1 - k) * (8 - k) for k in range(1, 6))  # all 8 columns of their product
SIDES = torch.ones(N, 3)

VECTORS = 6 * 8 * 25 + 20 * 125  # of singular values, with a QR first
CASES: dict[str, tuple[Callable[[], Any], int]] = {
    "solve": (lambda: L.solve(ONE, SIDES), LU + 2 * 3 * TRIANGLE),
    "solve a vector": (lambda: L.solve(ONE, torch.ones(N)), LU + 2 * TRIANGLE),
    "solve from the right": (lambda: L.solve(ONE, torch.ones(2, N), left=False), LU + 2 * 2 * TRIANGLE),
    "solve, batches of both": (
        lambda: L.solve(THREE_BY_ONE, torch.ones(4, N, 2)),
        3 * LU + 12 * 2 * 2 * TRIANGLE,
    ),
    "inv": (lambda: L.inv(TWO), 2 * (LU + 2 * N * TRIANGLE)),
    "det": (lambda: L.det(FOUR), 4 * LU),
    "slogdet": (lambda: L.slogdet(ONE), LU),
    "lu": (lambda: L.lu(ONE), LU),
    "lu_factor, lu_solve": (lambda: L.lu_solve(*L.lu_factor(ONE), SIDES), LU + 2 * 3 * TRIANGLE),
    "cholesky": (lambda: L.cholesky(TWO), 2 * CHOLESKY),
    "cholesky_solve": (lambda: torch.cholesky_solve(SIDES, torch.eye(N)), 2 * 3 * TRIANGLE),
    "cholesky_inverse": (lambda: torch.cholesky_inverse(torch.eye(N)), N * (N - 1) * (2 * N - 1) // 3),
    "ldl": (lambda: L.ldl_solve(*L.ldl_factor(ONE), SIDES), CHOLESKY + 2 * 3 * TRIANGLE),
    "solve_triangular": (lambda: L.solve_triangular(ONE, SIDES, upper=True), 3 * TRIANGLE),
    "solve_triangular from the right": (
        lambda: L.solve_triangular(TWO, torch.ones(2, 3, N), upper=True, left=False),
        2 * 3 * TRIANGLE,
    ),
    "triangular_solve": (lambda: torch.triangular_solve(SIDES, ONE), 3 * TRIANGLE),
    "qr": (lambda: L.qr(OBLONG), TALL + TALL),
    "qr, all of Q": (lambda: L.qr(OBLONG, mode="complete"), TALL + FORM),
    "qr without Q": (lambda: L.qr(OBLONG, mode="r"), TALL),
    "geqrf, householder_product": (lambda: L.householder_product(*torch.geqrf(OBLONG)), TALL + TALL),
    "ormqr": (lambda: torch.ormqr(*torch.geqrf(OBLONG), torch.ones(8, 2)), TALL + 4 * 2 * sum(range(4, 9))),
    "lstsq": (
        lambda: L.lstsq(OBLONG, torch.ones(8, 2)),
        TALL + 4 * 2 * sum(range(4, 9)) + 2 * 5 * 4,
    ),
    "lstsq by singular values": (
        lambda: L.lstsq(OBLONG, torch.ones(8, 2), driver="gelsd"),
        4 * 8 * 25 + 8 * 125,
    ),
    "svd": (lambda: L.svd(OBLONG, full_matrices=False), VECTORS),
    "svd, all vectors": (lambda: L.svd(OBLONG), 4 * 64 * 5 + min(8 * 8 * 25 + 9 * 125, 22 * 125)),
    "eigh": (lambda: L.eigh(TWO), 2 * 9 * N**3),
    "eig": (lambda: L.eig(ONE), 25 * N**3),
    "pinv": (lambda: L.pinv(OBLONG), VECTORS + 2 * 5 * 5 * 8),
    "pinv of a symmetric one": (lambda: L.pinv(ONE, hermitian=True), 9 * N**3 + 2 * N**3),
    "matrix_power": (lambda: L.matrix_power(ONE, 5), 3 * 2 * N**3),
    "multi_dot": (lambda: L.multi_dot([ONE, ONE, SIDES]), 2 * 2 * N * N * 3),
    "addr": (lambda: torch.addr(torch.ones(4, 5), torch.ones(4), torch.ones(5)), 2 * 4 * 5),
    "einsum": (lambda: torch.einsum("ij,kj->ik", torch.ones(4, 5), torch.ones(3, 5)), 2 * 4 * 5 * 3),
    "tensordot": (lambda: torch.tensordot(torch.ones(4, 5), torch.ones(5, 3), 1), 2 * 4 * 5 * 3),
}


@pytest.mark.parametrize("inference", [False, True], ids=["no_grad", "inference_mode"])
@pytest.mark.parametrize("name", CASES)
def test_linear_algebra_by_hand(name: str, inference: bool) -> None:
    """Each operator by its algorithm's products, whichever way torch is told that no gradient is wanted."""
    run, expected = CASES[name]
    assert flops(run, inference=inference) == expected


def test_distances_are_a_product_where_torch_takes_one() -> None:
    """More than 25 points: |x|² - 2xy + |y|², one product over two columns more than coordinates."""
    one, other = torch.rand(2, 30, 7), torch.rand(2, 40, 7)
    assert flops(lambda: torch.cdist(one, other)) == 2 * 2 * 30 * 40 * (7 + 2)


@pytest.mark.parametrize(
    "distances",
    [
        lambda a, b: torch.cdist(a, b, p=1),
        lambda a, b: torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist"),
        lambda a, b: torch.cdist(a, b, p=3.0),
    ],
)
def test_other_distances_are_sums_over_coordinates(distances: Any) -> None:
    """A multiply-accumulate for each coordinate of each pair, whatever is summed."""
    one, other = torch.rand(2, 30, 7), torch.rand(2, 40, 7)
    assert flops(lambda: distances(one, other)) == 2 * 2 * 30 * 40 * 7


def test_distances_within_a_set_count_each_pair_once() -> None:
    """8 points have 28 pairs."""
    points = torch.rand(8, 5)
    assert flops(lambda: torch.pdist(points)) == 2 * 28 * 5


def test_a_product_of_three_is_counted_as_torch_runs_it() -> None:
    """Bilinear: for each of 6 outputs (4 x 3) (3 x 5), then 4 sums of 5."""
    one, two, weight = torch.rand(4, 3), torch.rand(4, 5), torch.rand(6, 3, 5)
    assert flops(lambda: F.bilinear(one, two, weight)) == 6 * (2 * 4 * 3 * 5 + 2 * 4 * 5)


def products_inside(run: Callable[[], Any]) -> int:
    """Count the products that torch's profiler sees inside of operators."""
    with torch.no_grad(), profile(record_shapes=True) as seen:
        run()
    pairs = [event.input_shapes[:2] for event in seen.events() if event.name in ("aten::bmm", "aten::mm")]
    return sum(2 * torch.Size(a).numel() * b[-1] for a, b in pairs)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("backward", [False, True])
def test_products_hidden_in_operators_are_those_the_profiler_sees(dims: int, backward: bool) -> None:
    """Affine grids and gradients of a bilinear product run theirs inside one operator."""
    theta, size = torch.rand(2, dims, dims + 1), [2, 3, *([4, 5, 6][:dims])]
    grid = torch.rand(2, *size[2:], dims)
    one, two, weight = (torch.rand(4, 3, requires_grad=backward), torch.rand(4, 5), torch.rand(6, 3, 5))

    def run() -> None:
        if backward:
            torch.ops.aten.affine_grid_generator_backward(grid, size, False)
        else:
            torch.ops.aten.affine_grid_generator(theta, size, False)
        F.bilinear(one, two, weight)

    assert flops(run) == products_inside(run) > 0


def test_options_of_equal_value_and_other_name_are_told_apart() -> None:
    """A square right-hand side by its columns or its rows is one count; a vector's one is another."""
    sides = torch.ones(N, N)
    both: list[Callable[[], Any]] = [
        lambda: L.solve_triangular(ONE, sides[:, :2], upper=True, unitriangular=False),
        lambda: L.solve_triangular(ONE, sides[:2], upper=True, left=False),
        lambda: torch.ormqr(OBLONG, torch.ones(5), torch.ones(8, 8), left=True),
        lambda: torch.ormqr(OBLONG, torch.ones(5), torch.ones(8, 8), transpose=True),
    ]
    assert flops(lambda: [run() for run in both]) == 2 * 2 * TRIANGLE + 2 * 4 * 8 * sum(range(4, 9))


# --- what values decide ------------------------------------------------------------------------------------------


def test_a_matrix_exponential_takes_products_by_its_norm() -> None:
    """Norms of 6e-5, 0.6 and 60 take 1, 4 and 5 + 5 products; one shape of different values is no one count."""
    matrices = [torch.full((N, N), norm / N) for norm in (6e-5, 0.6, 60.0, 0.6)]
    assert flops(lambda: [torch.matrix_exp(matrix) for matrix in matrices]) == (1 + 4 + 10 + 4) * 2 * N**3


def test_a_matrix_exponential_whose_values_nobody_can_read_is_counted_at_the_least() -> None:
    """Two matrices take 5 products each, and nobody knows how many squarings: the operator is named, too."""
    matrices = torch.empty(2, N, N, device="meta")
    total, missed = counted(lambda: torch.matrix_exp(matrices))
    assert (total, missed) == (2 * 5 * 2 * N**3, {"aten::linalg_matrix_exp"})


def test_a_mode_of_the_user_s_does_not_see_how_norms_are_read() -> None:
    """It sees the operators of the forward, and no others."""
    seen: list[str] = []

    def see(operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        seen.append(operator.name())
        return operator(*args, **kwargs)

    with answering(see):
        total = flops(lambda: torch.matrix_exp(ONE))
    assert total % (2 * N**3) == 0
    assert seen[-1] == "aten::linalg_matrix_exp"  # the model was made before
    assert not {"aten::abs", "aten::amax"} & {*seen}
