"""FLOPs of recurrent layers in a live forward: gates x (input + hidden) x hidden of every position, by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from one_call import flops
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

STEPS, ROWS, INPUTS, HIDDEN = 5, 2, 4, 3
GATES: dict[Callable[..., Any], int] = {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1}
quantize_dynamic: Any = torch.ao.quantization.quantize_dynamic
X = torch.ones(STEPS, ROWS, INPUTS)


def by_hand(gates: int, positions: int, *, layers: int = 1, directions: int = 1) -> int:
    """Layers above the first take what both directions below gave."""
    first = 2 * positions * gates * HIDDEN * (INPUTS + HIDDEN)
    above = 2 * positions * gates * HIDDEN * (directions * HIDDEN + HIDDEN)
    return directions * (first + (layers - 1) * above)


def packed(x: torch.Tensor) -> Any:
    """Pack sequences of 5 and 3 positions: 8 in all."""
    return pack_padded_sequence(x, torch.tensor([5, 3]))


@pytest.mark.parametrize("way", ["no_grad", "grad", "inference_mode"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", [*GATES])
@pytest.mark.parametrize(("layers", "bidirectional"), [(1, False), (2, True)])
def test_a_network_counts_the_same_however_torch_runs_it(
    kind: Callable[..., Any], layers: int, bidirectional: bool, dtype: torch.dtype, way: str
) -> None:
    """As one operator of oneDNN, taken apart into products, or whole; packed sequences by their real positions."""
    network = kind(INPUTS, HIDDEN, num_layers=layers, bidirectional=bidirectional).to(dtype)
    x, modes = X.to(dtype), {"grad": way == "grad", "inference": way == "inference_mode"}
    shape = {"layers": layers, "directions": 1 + bidirectional}
    assert flops(lambda: network(x), **modes) == by_hand(GATES[kind], STEPS * ROWS, **shape)
    assert flops(lambda: network(packed(x)), **modes) == by_hand(GATES[kind], 8, **shape)


@pytest.mark.parametrize("inference", [False, True])
def test_projections_are_products_of_their_own(inference: bool) -> None:
    """Hidden states of 6 projected to 3, which is what comes back in: 24 gates from 4 + 3, then 6 to 3."""
    network = nn.LSTM(INPUTS, 6, proj_size=3)
    assert flops(lambda: network(X), inference=inference) == 2 * STEPS * ROWS * (24 * (4 + 3) + 6 * 3)


def test_batches_come_first_where_they_are_said_to() -> None:
    """The layout changes nothing."""
    network = nn.LSTM(INPUTS, HIDDEN, batch_first=True, bidirectional=True)
    assert flops(lambda: network(X.transpose(0, 1))) == by_hand(4, STEPS * ROWS, directions=2)


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTMCell, 4), (nn.GRUCell, 3), (nn.RNNCell, 1)])
def test_cells_are_one_step(kind: Callable[..., Any], gates: int, inference: bool) -> None:
    """All gates from input and hidden state; what is done with them is elementwise."""
    cell = kind(INPUTS, HIDDEN)
    assert flops(lambda: cell(X[0]), inference=inference) == by_hand(gates, ROWS)


def test_the_backward_of_a_network_is_twice_its_forward() -> None:
    """Gradients of what went in, and of the weights."""
    network = nn.LSTM(INPUTS, HIDDEN)

    def run() -> None:
        torch.autograd.grad(network(X)[0].sum(), list(network.parameters()))

    assert flops(run, grad=True) == 3 * by_hand(4, STEPS * ROWS)


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.LSTMCell, 4), (nn.GRUCell, 3)])
def test_networks_of_packed_8_bit_weights_count_the_same(kind: Any, gates: int) -> None:
    """Their matrices are no tensors: hidden states tell the width."""
    network = nn.Sequential(kind(INPUTS, HIDDEN))
    quantised = quantize_dynamic(copy.deepcopy(network), {kind}, dtype=torch.qint8)
    x = X[0] if kind.__name__.endswith("Cell") else X
    assert flops(lambda: quantised(x)) == by_hand(gates, x.shape[:-1].numel())


def test_stacked_8_bit_networks_take_both_directions_below() -> None:
    """Two layers in two directions."""
    network = nn.Sequential(nn.LSTM(INPUTS, HIDDEN, num_layers=2, bidirectional=True))
    quantised = quantize_dynamic(network, {nn.LSTM}, dtype=torch.qint8)
    assert flops(lambda: quantised(X)) == by_hand(4, STEPS * ROWS, layers=2, directions=2)
