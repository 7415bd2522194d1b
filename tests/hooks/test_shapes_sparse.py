"""FLOPs of products with sparse and nested operands in a live forward: by stored values, by real lengths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # torch's own documentation calls it so
from one_call import counted, flops
from torch import nn

A = torch.tensor([[1.0, 0, 0, 2, 0, 0, 0, 0], [0, 0, 3, 0, 0, 0, 0, 4], [0] * 8, [0, 5, 0, 0, 0, 0, 6, 0]])
"""(4, 8) with 6 values."""
B = torch.tensor([[1.0, 0, 0], [0, 2, 0], [0, 0, 0], [4, 5, 6], [0, 0, 0], [0, 7, 0], [8, 0, 9], [0, 0, 0]])
"""(8, 3)."""
DENSE = torch.ones(8, 3)
LAYOUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "coo": lambda t: t.to_sparse(),
    "csr": lambda t: t.to_sparse_csr(),
    "csc": lambda t: t.to_sparse_csc(),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "run",
    [
        lambda a: a @ DENSE,
        lambda a: torch.sparse.mm(a, DENSE),
        lambda a: torch.sparse.addmm(torch.ones(4, 3), a, DENSE),
        lambda a: torch.addmm(torch.ones(4, 3), a, DENSE),
        lambda a: F.linear(a, DENSE.T),
    ],
)
def test_a_sparse_matrix_counts_its_stored_values(layout: str, run: Callable[[torch.Tensor], Any]) -> None:
    """Each of 6 values meets the 3 columns."""
    sparse = LAYOUTS[layout](A)
    assert flops(lambda: run(sparse)) == 2 * 6 * 3


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_sparse_matrix_meets_a_vector_and_stands_on_the_right(layout: str) -> None:
    """Once for the vector; 5 times for the 5 rows of a dense matrix on the left."""
    sparse = LAYOUTS[layout](A)
    assert flops(lambda: sparse @ DENSE[:, 0]) == 2 * 6
    assert flops(lambda: torch.ones(5, 4) @ sparse) == 2 * 5 * 6


@pytest.mark.parametrize("inference", [False, True])
def test_a_linear_layer_of_a_sparse_weight(inference: bool) -> None:
    """4 outputs of 8 inputs, 6 weights: each meets the 5 rows."""
    weight = A.to_sparse_csr()
    assert flops(lambda: F.linear(torch.ones(5, 8), weight, torch.ones(4)), inference=inference) == 2 * 5 * 6


def test_blocks_are_multiplied_whole() -> None:
    """Three 2 x 2 blocks hold 12 values, with explicit zeros."""
    blocks = torch.kron(torch.eye(3), torch.tensor([[1.0, 0], [1, 1]])).to_sparse_bsr((2, 2))
    assert flops(lambda: blocks @ torch.ones(6, 5)) == 2 * 12 * 5


def test_equal_shapes_of_other_values_are_told_apart() -> None:
    """The same layer with 6 and with 1 stored values."""
    few = torch.zeros(4, 8)
    few[0, 0] = 1
    matrices = [A.to_sparse_csr(), few.to_sparse_csr()]
    assert flops(lambda: [a @ DENSE for a in (*matrices, *matrices)]) == 2 * (2 * 6 * 3 + 2 * 1 * 3)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_sparse_matrices_multiply_where_their_indices_meet(layout: str) -> None:
    """Counted by the dense definition: pairs of which both factors are there."""
    pairs = int(((A != 0).int() @ (B != 0).int()).sum())
    one, other = LAYOUTS[layout](A), LAYOUTS[layout](B)
    assert flops(lambda: one @ other) == 2 * pairs == 2 * 7


def test_a_sampled_product_computes_what_the_pattern_stores() -> None:
    """6 elements of sums over 5."""
    pattern = A.to_sparse_csr()
    assert flops(lambda: torch.sparse.sampled_addmm(pattern, torch.ones(4, 5), torch.ones(5, 8))) == 2 * 6 * 5


def test_products_that_reduce_otherwise_count_the_same() -> None:
    """A mean over stored values multiplies as a sum does, and its gradients as often each."""
    sparse = A.to_sparse_csr()
    assert flops(lambda: torch.sparse.mm(sparse, DENSE, "mean")) == 2 * 6 * 3


def test_batches_of_sparse_matrices() -> None:
    """Two of 6 values each."""
    batch = torch.stack([A, A]).to_sparse()
    assert flops(lambda: torch.bmm(batch, torch.ones(2, 8, 3))) == 2 * 12 * 3


def test_what_no_formula_knows_of_sparse_operands_is_named() -> None:
    """Solving with a sparse triangle is not counted as with a dense one: nothing, and the operator's name."""
    triangle = torch.eye(4).to_sparse_csr()
    run = lambda: torch.triangular_solve(torch.ones(4, 2), triangle)  # noqa: E731
    assert counted(run) == (0, {"aten::triangular_solve"})


# --- nested -----------------------------------------------------------------------------------------------------


def nested(layout: torch.layout) -> torch.Tensor:
    """Make rows of 3 and 5 positions, 8 wide."""
    return torch.nested.nested_tensor([torch.ones(3, 8), torch.ones(5, 8)], layout=layout)


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_a_linear_layer_takes_the_real_positions_of_nested_rows(layout: torch.layout) -> None:
    """8 positions in all, 8 to 4."""
    x, layer = nested(layout), nn.Linear(8, 4)
    assert flops(lambda: layer(x)) == 2 * 8 * 8 * 4


def test_nested_rows_multiply_one_by_one() -> None:
    """(3 x 8) (8 x 2) and (5 x 8) (8 x 4)."""
    other = torch.nested.nested_tensor([torch.ones(8, 2), torch.ones(8, 4)])
    assert flops(lambda: torch.bmm(nested(torch.strided), other)) == 2 * 3 * 8 * 2 + 2 * 5 * 8 * 4


@pytest.mark.parametrize("inference", [False, True])
def test_nested_rows_of_heads_multiply_as_torch_multiplies_them(inference: bool) -> None:
    """The composite `matmul` has a kernel of its own for them: 2 heads of (3 x 4) (4 x 3) and (5 x 4) (4 x 5)."""
    rows = [torch.ones(2, 3, 4), torch.ones(2, 5, 4)]
    one, other = torch.nested.nested_tensor(rows), torch.nested.nested_tensor([row.mT for row in rows])
    assert flops(lambda: one @ other, inference=inference) == 2 * 2 * 4 * (3 * 3 + 5 * 5)


def test_attention_of_nested_rows_stays_within_each() -> None:
    """2 heads of 4, scores and weighted values of 3 x 3 and 5 x 5 pairs, of jagged rows as torch takes them apart."""
    rows = torch.nested.nested_tensor([torch.ones(3, 2, 4), torch.ones(5, 2, 4)], layout=torch.jagged)
    q = rows.transpose(1, 2)
    assert flops(lambda: F.scaled_dot_product_attention(q, q, q)) == 4 * 2 * 4 * (3 * 3 + 5 * 5)
