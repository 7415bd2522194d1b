"""FLOPs of what models do beside linear layers, as `LayerProfiler` gives them of anyone's own loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # torch's own documentation calls it so
from torch import nn

from layerprof import LayerProfiler
from layerprof.records import Run


class After(nn.Module):
    """A linear layer of 64, and any function of what it gives."""

    def __init__(self, function: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 64)
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        """Call both."""
        return self.function(self.linear(x))


LINEAR = 2 * 64**3


def profiled(model: nn.Module, *inputs: Any, flops: Any = "together") -> Run:
    """Profile two calls of a model with the same inputs."""
    with torch.no_grad(), LayerProfiler(model.eval(), flops=flops) as prof:
        for _ in range(2):
            prof.model(*inputs)
    return prof.run


POINTS = torch.rand(512, 64)
LU = 2 * sum((64 - k) ** 2 for k in range(1, 65))


@pytest.mark.parametrize("flops", ["once", "together"])
@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda h: torch.cdist(h, POINTS), 2 * 64 * 512 * (64 + 2)),
        (lambda h: torch.matrix_exp(h / h.abs().sum(0).max()), 4 * 2 * 64**3),  # a norm of 1 takes degree 12
        (lambda h: torch.linalg.solve(h, h), LU + 2 * 64 * 64 * 63),
        (torch.linalg.inv, LU + 2 * 64 * 64 * 63),
        (lambda h: torch.linalg.cholesky(h @ h.T + 64 * torch.eye(64)), LINEAR + (64**3 - 64) // 3),
        (lambda h: F.linear(h, torch.eye(64).to_sparse_csr()), 2 * 64 * 64),
    ],
)
def test_matrix_work_of_any_kind_is_in_the_books(function: Any, expected: int, flops: str) -> None:
    """Nothing is missing, and the books balance."""
    run = profiled(After(function), torch.rand(64, 64) + 8 * torch.eye(64), flops=flops)
    assert run.uncounted_ops == {}
    assert run.ledger.flops.residual == 0
    assert run.ledger.flops.total == 2 * (LINEAR + expected)


def test_an_lstm_counts_the_same_in_single_and_in_half_precision() -> None:
    """On a CPU both run as one operator; every figure of the rows is the same, and nothing is uncounted."""

    class Speaks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(40, 64, num_layers=2, bidirectional=True, batch_first=True)
            self.head = nn.Linear(128, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.head(self.lstm(x)[0])
            return out

    x = torch.ones(3, 20, 40)
    single, half = profiled(Speaks(), x), profiled(Speaks().bfloat16(), x.bfloat16())
    by_hand = 2 * 60 * (2 * 256 * (40 + 64) + 2 * 256 * (128 + 64) + 128 * 10)
    for run in (single, half):
        assert run.ledger.flops.total == 2 * by_hand
        assert run.uncounted_ops == {}
    assert [(row.name, row.flops) for row in single.layers] == [(row.name, row.flops) for row in half.layers]


@pytest.mark.parametrize("flops", ["once", "together", "rerun", "off"])
def test_a_batch_without_rows_is_a_run_all_the_same(flops: Any) -> None:
    """It did no work, and took some time."""
    run = profiled(After(torch.relu), torch.ones(0, 64), flops=flops)
    assert run.ledger.flops.total == (None if flops == "off" else 0)
    assert run.totals.latency_s.per_batch.median > 0
