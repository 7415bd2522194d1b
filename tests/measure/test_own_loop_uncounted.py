"""A user's own operators in a user's own loop: named with layer, calls and share of the time, never taken for zero."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from shown import shown
from torch import nn

from layerprof import LayerProfiler, load_run
from layerprof.records import LayerRow, Phase
from layerprof.runs import store

MATMUL, PLAIN = "lp_own_loop::my_matmul", "lp_own_loop::plain"
WORK = 2 * 4 * 8 * 8
"""FLOPs of one linear layer of 8 on 4 rows."""
NAP_S = 0.01

Op = Callable[[torch.Tensor], torch.Tensor]


def _custom(name: str) -> Any:
    @torch.library.custom_op(name, mutates_args=())
    def op(x: torch.Tensor) -> torch.Tensor:
        time.sleep(NAP_S)
        return x @ torch.ones(8, 8)

    return op


matmul, plain = _custom(MATMUL), _custom(PLAIN)


class Block(nn.Module):
    """A layer that multiplies (or norms, which is no matrix work), and gives what it got to an operator."""

    def __init__(self, run: Op, linear: bool = True) -> None:
        super().__init__()
        self.linear, self.run = nn.Linear(8, 8) if linear else nn.LayerNorm(8), run

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply, then run it."""
        return self.run(self.linear(x))


class Model(nn.Module):
    """Blocks, and an operator outside of all of them."""

    def __init__(self, *blocks: Block, outside: Op = torch.relu) -> None:
        super().__init__()
        self.blocks, self.run = nn.ModuleList(blocks), outside

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the blocks, then the operator."""
        for block in self.blocks:
            x = block(x)
        return self.run(x)


def profiled(model: nn.Module, calls: int = 1, **options: Any) -> Any:
    """Return the run of some calls."""
    with torch.no_grad(), LayerProfiler(model.eval(), **options) as prof:
        for _ in range(calls):
            model(torch.ones(4, 8))
    return prof.run


def rows(run: Any) -> dict[str, LayerRow]:
    """Return the rows by name."""
    return {row.name: row for row in run.layers}


@pytest.mark.parametrize(("op", "name"), [(matmul, MATMUL), (plain, PLAIN)])
def test_an_operator_inside_a_layer_makes_its_row_and_the_total_bounds(op: Op, name: str) -> None:
    """What it is called does not matter: nobody knows what an operator of another's namespace does."""
    run = profiled(Model(Block(torch.relu), Block(op)))
    row = rows(run)
    assert (row["blocks.0"].flops, row["blocks.0"].at_least) == (WORK, False)
    assert (row["blocks.1"].flops, row["blocks.1"].uncounted) == (WORK, {name: 1})
    assert (run.totals.flops, run.totals.flops_at_least) == (2 * WORK, True)
    assert run.ledger.flops.at_least == ("layers", "total")
    assert run.uncounted_ops == {name: 1}


def test_a_layer_of_which_nothing_is_known_is_none() -> None:
    """Its neighbour that runs no matrix work has measured zero."""
    row = rows(profiled(Model(Block(plain, linear=False), Block(torch.relu, linear=False), Block(torch.relu))))
    assert [row[f"blocks.{n}"].flops for n in range(3)] == [None, 0, WORK]


def test_a_model_of_which_nothing_is_known_is_none() -> None:
    """Totals and books, too; the reason names the operator."""
    run = profiled(Model(Block(plain, linear=False), Block(plain, linear=False)))
    assert (run.totals.flops, run.totals.flops_per_sample, run.ledger.flops.total) == (None, None, None)
    assert "2 calls of lp_own_loop::plain in blocks.0, blocks.1" in run.ledger.flops.reason
    assert "0 FLOP" not in shown(run, 120)


def test_an_operator_outside_of_layers_has_a_line_of_its_own() -> None:
    """The rows are whole, the books are not."""
    run = profiled(Model(Block(torch.relu), Block(torch.relu), outside=matmul))
    assert not any(row.at_least for row in run.layers)
    assert run.ledger.flops.at_least == ("outside layers: Model", "total")
    assert run.ledger.flops.not_counted[MATMUL].places == {"Model prefill": 1}


def test_a_layer_holds_what_the_layers_inside_it_miss() -> None:
    """A block, and the module in it that a selector asked for."""
    inner = nn.Sequential(Block(plain, linear=False), nn.Linear(8, 8))
    model = Model(Block(torch.relu), Block(torch.relu))
    model.blocks[0].linear = inner
    row = rows(profiled(model, layers="all,blocks.0.linear.0"))
    assert (row["blocks.0"].uncounted, row["blocks.0"].flops) == ({PLAIN: 1}, WORK)
    assert (row["blocks.0.linear.0"].uncounted, row["blocks.0.linear.0"].flops) == ({PLAIN: 1}, None)


def test_a_selector_hides_rows_and_no_missing_work() -> None:
    """The row asked for is whole; the books of the model are not."""
    run = profiled(Model(Block(torch.relu), Block(plain)), layers="blocks.0")
    assert [row.at_least for row in run.layers] == [False]
    assert run.totals.flops_at_least
    assert "have no formula" in run.warnings[-1] or "has no formula" in run.warnings[-1]


@pytest.mark.parametrize("flops", ["once", "together", "rerun"])
def test_every_call_is_counted_and_the_warning_tells_operator_layer_calls_and_share(flops: str) -> None:
    """Three calls, two naps of 10 ms in each, which is most of the time."""
    run = profiled(Model(Block(plain), Block(plain)), 3, flops=flops)
    missed = run.ledger.flops.not_counted[PLAIN]
    assert (missed.calls, missed.places) == (6, {"blocks.0 prefill": 3, "blocks.1 prefill": 3})
    assert missed.share is not None
    assert 0.3 < missed.share <= 1
    (warning,) = (text for text in run.warnings if "formula" in text)
    told = r"FLOPs are at least those given: 6 calls of lp_own_loop::plain in blocks\.0, blocks\.1 "
    assert re.fullmatch(told + r"\(\d+\.\d % of the time\) have no formula\.", warning)
    assert {row.name: row.uncounted for row in run.layers} == {"blocks.0": {PLAIN: 3}, "blocks.1": {PLAIN: 3}}


def test_books_that_miss_an_operator_are_not_called_balanced(tmp_path: Path) -> None:
    """On the screen, and when read from the file."""
    run = profiled(Model(Block(torch.relu), Block(matmul)))
    store.save(run, tmp_path)
    for one in (run, load_run(tmp_path)):
        text = shown(one, 120)
        (line,) = (line for line in text.splitlines() if line.startswith("FLOPs: "))
        assert line.startswith(f"FLOPs: at least; 1 call of {MATMUL} in blocks.1 (")
        assert "balanced exactly" not in line
        assert "≥ " in text
        assert (one.totals, one.layers, one.ledger) == (run.totals, run.layers, run.ledger)


def test_an_fp32_lstm_is_no_zero() -> None:
    """Torch runs it on a CPU as one operator of oneDNN: counted, or said not to be."""

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.linear = nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = self.linear(self.lstm(x)[0])
            return made

    model = Reader().eval()
    with torch.no_grad(), LayerProfiler(model, layers="all,lstm") as prof:
        model(torch.ones(2, 5, 8))
    row = {(row.name, row.phase): row for row in prof.run.layers}["lstm", Phase.PREFILL]
    by_hand = 2 * (2 * 5) * 4 * (8 * 8 + 8 * 8)
    assert (row.flops is None and row.at_least) or row.flops == by_hand
