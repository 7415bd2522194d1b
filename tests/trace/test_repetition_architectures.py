"""Layers of many architectures are found by the names of their kernels, and of most by repetition alone."""

from __future__ import annotations

import random

import pytest
from kernel_architectures import NAMED, compiled, decoder, gemm
from kernel_stacks import ADD, HEAD, LLAMA, TAIL, VIT, Stretch, but

from layerprof.trace.inference.repetition import Template, find


def nameless(stretch: Stretch) -> Stretch:
    """Return the same kernels under names that say nothing."""
    numbers: dict[str, int] = {}
    names = []
    for name in stretch.names:
        number = numbers.setdefault(name, len(numbers))
        names.append("fn" + chr(97 + number % 26) + "q" * (number // 26))
    return Stretch(names, stretch.ns, stretch.truth, stretch.stacks)


@pytest.mark.parametrize("what", NAMED)
def test_each_kernel_is_in_its_layer(what: str) -> None:
    """What a stream beside it strews over the seam may be one layer off."""
    assert NAMED[what].right() > 0.99


@pytest.mark.parametrize(
    "what",
    [
        "norms around both parts",
        "latent attention, three dense layers, then experts",
        "cross attention",
        "norms behind both parts",
        "state spaces",
        "one attention in eight",
        "one attention in four, experts",
        "shared experts on another stream",
        "modulated by a time step",
        "a tower and a decoder with nothing between",
    ],
)
def test_repetition_alone_finds_them_where_names_say_nothing(what: str) -> None:
    """The first layer begins as early as it can."""
    stretch = nameless(NAMED[what])
    assert [len(layers.starts) for layers in stretch.found()] == [len(layers.starts) for layers in NAMED[what].found()]
    assert stretch.right() > 0.98


@pytest.mark.parametrize("seed", range(40))
def test_whatever_the_kernels_stacks_are_disjoint_and_in_order(seed: int) -> None:
    """A recording may begin and end anywhere, and lose any kernels."""
    chance = random.Random(seed)
    names = [name for name in chance.choice(list(NAMED.values())).names if chance.random() > 0.2 * (seed % 3)]
    begin = chance.randrange(len(names))
    names = names[begin : begin + chance.randrange(300)]
    bounds = [place for found in find(names, [1] * len(names)) for place in (*found.starts, found.end - 1)]
    assert bounds == sorted(set(bounds))
    assert all(0 <= place < len(names) for place in bounds)


def test_numbers_at_the_end_of_names_are_no_kinds() -> None:
    """A compiler's numbers differ from layer to layer, what they run does not."""
    (found,) = NAMED["numbered through by a compiler"].found()
    assert found.kinds == (0,) * 24


POST_NORM = (
    *(gemm("q"), gemm("k"), gemm("v"), "fmha_kernel", gemm("o"), ADD, "vectorized_layer_norm_kernel"),
    *(gemm("fc1"), "GeluCUDAKernelImpl", gemm("fc2"), ADD, "vectorized_layer_norm_kernel"),
)


def test_a_layer_that_ran_eagerly_elsewhere_tells_where_they_begin() -> None:
    """A norm after the embedding makes both readings possible, until a template decides."""
    head = (*HEAD, ADD, "vectorized_layer_norm_kernel")
    stretch = decoder([POST_NORM] * 12, head, (gemm("pooler"), "tanh_kernel"))
    templates = [Template("ViTLayer", VIT, 12), Template("BertLayer", POST_NORM, 12)]
    assert stretch.right() < 1.0
    assert stretch.right(templates) == 1.0
    (found,) = stretch.found(templates)
    assert found.template == 1
    assert "cut as the eager layer BertLayer" in found.evidence


def test_a_template_may_have_other_tiles_and_a_kernel_more() -> None:
    """Another batch, and no fused norm."""
    other = but(
        LLAMA, {LLAMA[1]: gemm("64x8"), LLAMA[5]: gemm("8x8"), LLAMA[8]: ("silu_kernel", "mul_elementwise_kernel")}
    )
    (found,) = decoder([LLAMA] * 16).found([Template("LlamaDecoderLayer", other, 16)])
    assert found.template == 0
    assert found.starts == tuple(1 + 10 * number for number in range(16))


def test_a_template_of_something_else_is_not_used() -> None:
    """A vision block tells nothing of compiled decoder layers."""
    (found,) = decoder([compiled(number) for number in range(1, 25)]).found([Template("Conv", (gemm("a"), "relu"), 3)])
    assert found.template is None


def test_layers_of_a_backward_pass_are_said_to_be_that() -> None:
    """They come in the order from the last to the first."""
    backward = tuple(name.replace("cutlassF", "cutlassB").replace("Gelu", "GeluBackward") for name in reversed(VIT))
    stretch = Stretch().rest(HEAD).layers([VIT] * 12).rest(("nll_loss_forward", "nll_loss_backward"))
    stretch.layers([backward] * 12).rest(("multi_tensor_apply_kernel<Adam>",) * 8)
    forward, behind = stretch.found()
    assert [len(layers.starts) for layers in (forward, behind)] == [12, 12]
    assert behind.evidence[-1].startswith("of the backward pass")
    assert not any("backward" in phrase for phrase in forward.evidence)


def test_two_kinds_of_which_each_has_its_own_time() -> None:
    """The spread is that within a kind: a layer of experts may take thrice as long as a dense one."""
    experts = but(LLAMA, {"act_and_mul_kernel": "fused_moe_kernel"})
    stretch = Stretch().rest(HEAD).layers([LLAMA, experts] * 8).rest(TAIL)
    stretch.ns = [3000 if name == "fused_moe_kernel" else 1000 for name in stretch.names]
    (found,) = stretch.found()
    assert found.kinds == (0, 1) * 8
    assert found.spread == 0.0
    stretch.ns[0:21] = [1100] * 21
    assert stretch.found()[0].spread == 0.0
    stretch.ns = [0] * len(stretch.names)
    assert stretch.found()[0].spread is None
