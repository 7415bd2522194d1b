"""Recurrent layers: gates x (input + hidden) x hidden, per position, layer and direction, projections included.

Each weight matrix meets each position of each sequence once, so a packed batch of sequences does the work of its real
positions. What is done with the gates afterwards is elementwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from layerprof.flops.counted import Formula, Operands, Product, given

GATES = {0: 1, 1: 1, 2: 4, 3: 3}
"""Gates by torch's number of the kind: RNN with ReLU, RNN with tanh, LSTM, GRU."""


def cell(gates: int, rows: int, inputs: int, hidden: int) -> int:
    """FLOPs of one step of a cell for `rows` sequences: all gates from the input and from the hidden state.

    Source: the definitions of torch.nn.LSTMCell (4 gates), GRUCell (3) and RNNCell (1).
    """
    return 2 * rows * gates * hidden * (inputs + hidden)


def of_weights(positions: int, weights: Sequence[Any]) -> int:
    """FLOPs of a whole network by its weights, matrices among biases: each matrix meets each position once."""
    elements: int = sum(prod(shape) for shape in weights if len(shape) == 2)
    return 2 * positions * elements


def of_states(gates: int, positions: int, inputs: int, states: Sequence[int], directions: int) -> int:
    """FLOPs of a whole network by its hidden states' shape: (layers x directions, rows, hidden).

    Layers above the first take what all directions below gave.
    """
    stacked, _, hidden = states
    layers = stacked // directions
    above = (layers - 1) * cell(gates, positions, directions * hidden, hidden)
    return directions * (cell(gates, positions, inputs, hidden) + above)


def _positions(operands: Operands) -> tuple[int, int]:
    """Return positions of all sequences together, and the input's width; packed sequences lie behind one another."""
    shape = given(operands, "input", "data")
    return prod(shape[:-1]), shape[-1]


def _network(weights: str, *, backward: bool = False) -> Formula:
    """Return the formula of a network whose `weights` tell their shapes.

    The backward multiplies twice: for gradients of what went in, and of the weights where `output_mask` asks so.
    """

    def count(operands: Operands, output: Any) -> Product:
        forward = of_weights(_positions(operands)[0], operands[weights])
        mask = operands.get("output_mask")
        times = (1 if mask is not None and not mask[3] else 2) if backward else 1
        return Product(times * forward)

    return count


def _one_direction(times: int) -> Formula:
    """Return the formula of one layer in one direction, as oneDNN takes it; its backward does twice the forward."""

    def count(operands: Operands, output: Any) -> Product:
        positions, inputs = _positions(operands)
        return Product(times * cell(GATES[operands["mode"]], positions, inputs, operands["hidden_size"]))

    return count


def _packed_weights(gates: int) -> Formula:
    def count(operands: Operands, output: Any) -> Product:
        hx = operands["hx"]
        states = hx if isinstance(hx[0], int) else hx[0]
        directions = 2 if operands["bidirectional"] else 1
        return Product(of_states(gates, *_positions(operands), states, directions))

    return count


def _cell(gates: int) -> Formula:
    """One step: `input` (rows, inputs), the output (rows, hidden)."""

    def count(operands: Operands, output: Any) -> Product:
        return Product(cell(gates, *_positions(operands), output[-1]))

    return count


_CELLS = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}

FORMULAS: dict[str, Formula] = {
    **dict.fromkeys((*(f"aten::{kind}" for kind in _CELLS), "aten::_lstm_mps"), _network("params")),
    **dict.fromkeys(("aten::_cudnn_rnn", "aten::miopen_rnn"), _network("weight")),
    **dict.fromkeys(("aten::_cudnn_rnn_backward", "aten::miopen_rnn_backward"), _network("weight", backward=True)),
    "aten::lstm_mps_backward": _network("params", backward=True),
    "aten::mkldnn_rnn_layer": _one_direction(1),
    "aten::mkldnn_rnn_layer_backward": _one_direction(2),
    "aten::quantized_lstm": _packed_weights(4),
    "aten::quantized_gru": _packed_weights(3),
    **{f"aten::{kind}_cell": _cell(gates) for kind, gates in _CELLS.items()},
    **{f"aten::quantized_{kind}_cell": _cell(gates) for kind, gates in _CELLS.items()},
    **{f"quantized::quantized_{kind}_cell_dynamic": _cell(gates) for kind, gates in _CELLS.items()},
}
