"""FLOPs of backward passes inside a forward, and of layers that torch fuses: by hand, and as torch's counter says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # torch's own documentation calls it so
from one_call import flops
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def gradients(output: torch.Tensor, *inputs: torch.Tensor) -> Any:
    """Take gradients as a model does that needs them in its forward."""
    return torch.autograd.grad(output.sum(), inputs)


FORWARD = 2 * 2 * 6 * 6 * 6 * 4 * 9
"""2 images, 6 channels from 4 by a 3 x 3 kernel, 6 x 6 places."""


@pytest.mark.parametrize(("wanted", "times"), [("x", 2), ("w", 2), ("xw", 3), ("b", 1)])
def test_a_convolution_s_backward_is_one_more_for_each_gradient(wanted: str, times: int) -> None:
    """That of the bias alone is a sum."""
    x, w, b = torch.rand(2, 4, 8, 8), torch.rand(6, 4, 3, 3), torch.rand(6)
    asked = [{"x": x, "w": w, "b": b}[name].requires_grad_() for name in wanted]
    assert flops(lambda: gradients(F.conv2d(x, w, b), *asked), grad=True) == times * FORWARD


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
def test_strided_and_grouped_and_transposed_convolutions(transposed: bool, groups: int) -> None:
    """Three times the forward, as torch's counter says, which takes no notice of groups in the weight's gradient."""
    shape = (4, 6 // groups, 3, 3) if transposed else (6, 4 // groups, 3, 3)
    x, weight = torch.rand(2, 4, 9, 9, requires_grad=True), torch.rand(shape, requires_grad=True)
    convolve: Any = F.conv_transpose2d if transposed else F.conv2d

    def run() -> None:
        gradients(convolve(x, weight, stride=2, groups=groups), x, weight)

    with FlopCounterMode(display=False) as peer:
        convolve(x, weight, stride=2, groups=groups)
    forward = peer.get_total_flops()
    with peer:
        run()
    assert flops(run, grad=True) == 3 * forward
    assert groups > 1 or peer.get_total_flops() == 3 * forward


@pytest.mark.parametrize("width_v", [16, 8])
@pytest.mark.parametrize("causal", [False, True])
def test_fused_attention_s_backward_has_five_products(width_v: int, causal: bool) -> None:
    """Scores again and the gradients of queries and keys over 16, of weights and values over their own width."""
    q, k, v = (torch.rand(2, 4, 5, width, requires_grad=True) for width in (16, 16, width_v))
    pairs = 2 * 4 * 5 * 5

    def run() -> None:
        gradients(F.scaled_dot_product_attention(q, k, v, is_causal=causal), q, k, v)

    both = 2 * pairs * (16 + width_v)
    backward = 2 * pairs * (3 * 16 + 2 * width_v)
    eager = 2 * pairs * (2 * 16 + 2 * width_v)  # what is not fused keeps its scores
    assert flops(run, grad=True) == both + (backward if width_v == 16 else eager)


def test_linear_layers_and_distances_in_a_backward() -> None:
    """Two products for a linear layer; two of (30 x 20) with 4 coordinates for distances, forward over 4 + 2."""
    x, layer = torch.rand(30, 4, requires_grad=True), nn.Linear(4, 3)
    assert flops(lambda: gradients(layer(x), x, layer.weight), grad=True) == 3 * 2 * 30 * 4 * 3
    other = torch.rand(20, 4)
    product = 2 * 30 * 20 * (4 + 2) + 2 * 2 * 30 * 20 * 4
    assert flops(lambda: gradients(torch.cdist(x, other), x), grad=True) == product
    summed = 2 * 30 * 20 * 4
    assert flops(lambda: gradients(torch.cdist(x, other, p=1), x), grad=True) == 2 * summed


# --- layers that torch fuses --------------------------------------------------------------------------------------

WIDTH, INNER, LENGTHS = 8, 16, (5, 3, 4)
LAYER = nn.TransformerEncoderLayer(WIDTH, 2, INNER, batch_first=True).eval()
HIDDEN = torch.tensor([[position >= length for position in range(5)] for length in LENGTHS])


def fused(run: Any) -> Any:
    """Return a function that runs with torch's fused encoder layers switched on."""

    def switched() -> None:
        before = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(True)
        try:
            run()
        finally:
            torch.backends.mha.set_fastpath_enabled(before)

    return switched


def encoder_layer(positions: int) -> int:
    """Four projections and two products of `positions`, and attention of 3 rows padded to 5."""
    return 2 * positions * (4 * WIDTH * WIDTH + 2 * WIDTH * INNER) + 4 * 3 * 5 * 5 * WIDTH


def test_a_fused_encoder_layer_counts_as_the_unfused_one() -> None:
    """One operator, with and without padding hidden."""
    x = torch.ones(3, 5, WIDTH)
    for run in (lambda: LAYER(x), lambda: LAYER(x, src_key_padding_mask=HIDDEN)):
        assert flops(fused(run)) == flops(run) == encoder_layer(15)


def test_nested_rows_skip_padding_in_products_and_have_it_in_attention() -> None:
    """The encoder nests padded rows: 12 real positions of 15, and scores padded to the longest row."""
    encoder = nn.TransformerEncoder(LAYER, 1)
    x = torch.ones(3, 5, WIDTH)
    assert flops(fused(lambda: encoder(x, src_key_padding_mask=HIDDEN))) == encoder_layer(12)


def test_fused_multi_head_attention_by_hand() -> None:
    """Four projections of 15 positions, and their attention."""
    attention, x = nn.MultiheadAttention(WIDTH, 2, batch_first=True).eval(), torch.ones(3, 5, WIDTH)
    expected = 2 * 15 * 4 * WIDTH * WIDTH + 4 * 3 * 5 * 5 * WIDTH
    assert flops(fused(lambda: attention(x, x, x))) == expected
    assert flops(lambda: attention(x, x, x)) == expected
