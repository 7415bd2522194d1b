"""What repeats without being a model's layers gives none, nor does a training whose passes do not agree."""

from __future__ import annotations

import pytest
from kernel_architectures import ATTENTION, CROSS, MAMBA_2, MLP, NORM, decoder, gemm
from kernel_stacks import ADD, HEAD, LLAMA, TAIL, VIT, Stretch

from layerprof.trace.inference.repetition import BACKWARD, find

FLUSH = "Memset (Device)"
ADAM = ("multi_tensor_apply_kernel<Adam>",) * 8
LOSS = ("softmax_warp_forward", "nll_loss_forward", "nll_loss_backward", "softmax_warp_backward")
BACK = (
    *(gemm("dgrad_a"), "GeluBackwardKernelImpl", gemm("dgrad_b"), "layer_norm_grad_input_kernel", ADD),
    *(gemm("dgrad_c"), "flash_bwd_kernel", gemm("dgrad_d"), "layer_norm_grad_input_kernel", ADD),
)
UPSAMPLE = ("Memcpy HtoD (Pinned -> Device)", "upsample_bilinear2d_out_frame", "elementwise_kernel<MulFunctor>", ADD)
RESIDUAL = ("sm80_xmma_fprop_implicit_gemm_indexed_tf32", "cudnn::bn_fw_inf_1C11_kernel_NCHW", "launch_clamp_scalar")


def stacks(stretch: Stretch, in_graph: bool = False) -> list[int]:
    """Return how many layers each stack has that is found."""
    return [len(layers.starts) for layers in find(stretch.names, stretch.ns, in_graph=in_graph)]


class TestABenchmark:
    """One block, timed many times."""

    def test_rounds_that_are_all_the_same_with_nothing_beside_them_are_no_layers(self) -> None:
        """A model would embed first, or end with a norm and a head."""
        assert stacks(Stretch().layers([LLAMA] * 50)) == []
        assert stacks(Stretch().rest(("Memcpy HtoD", "distribution_elementwise")).layers([LLAMA] * 50)) == []

    def test_in_a_graph_they_are_layers(self) -> None:
        """A server may capture the layers alone."""
        assert stacks(Stretch().layers([LLAMA] * 50), in_graph=True) == [50]

    @pytest.mark.parametrize(("head", "tail"), [(HEAD, ()), ((), TAIL), (("rms_norm_kernel",), ())])
    def test_a_head_or_a_tail_makes_a_model_of_it(self, head: tuple[str, ...], tail: tuple[str, ...]) -> None:
        """As it stands in a recording that began or ended in the midst of a step."""
        assert [layers >= 49 for layers in stacks(Stretch().rest(head).layers([LLAMA] * 50).rest(tail))] == [True]

    def test_layers_of_two_kinds_are_no_rounds(self) -> None:
        """A benchmark does the same each time."""
        assert stacks(Stretch().layers([ATTENTION + MLP, MAMBA_2 + MLP] * 12)) == [24]

    def test_a_cache_that_is_emptied_before_each_round_is_a_benchmarks(self) -> None:
        """Even behind rounds that warm up, which look like a head; a short fill is a layer's own."""
        stretch = Stretch().layers([LLAMA] * 2).layers([(FLUSH, *LLAMA)] * 50).rest(TAIL)
        assert [layers >= 50 for layers in stacks(stretch)] == [True]
        stretch.ns = [30_000 if name == FLUSH else took for name, took in zip(stretch.names, stretch.ns, strict=True)]
        assert stacks(stretch) == []


def test_what_does_no_matrix_work_or_only_convolutions_has_no_layers() -> None:
    """Images that are resized one by one; blocks of a residual network."""
    assert stacks(Stretch().rest(HEAD).layers([UPSAMPLE] * 32).rest(TAIL)) == []
    assert stacks(Stretch().rest(("max_pool_forward",)).layers([RESIDUAL] * 48).rest((ADD, gemm("fc")))) == []


class TestTraining:
    """A pass forward, one backward, and an optimizer, three times."""

    def trained(self, forward: int, backward: int) -> Stretch:
        """Return three steps."""
        stretch = Stretch()
        for _ in range(3):
            stretch.rest(HEAD).layers([VIT] * forward).rest((NORM, gemm("lm"), *LOSS)).layers([BACK] * backward)
            stretch.rest(("embedding_backward_kernel", *ADAM))
        return stretch

    def test_passes_of_as_many_layers_are_both_told(self) -> None:
        """And which of them goes backward."""
        found = self.trained(24, 24).found()
        assert [len(layers.starts) for layers in found] == [24, 24] * 3
        assert [BACKWARD in layers.evidence for layers in found] == [False, True] * 3

    def test_passes_that_do_not_agree_are_not_told(self) -> None:
        """One of them is counted wrong."""
        assert stacks(self.trained(24, 30)) == []

    def test_a_pass_forward_beside_an_unknown_one_backward_is_not_told(self) -> None:
        """Nothing confirms it."""
        assert stacks(Stretch().rest(HEAD).layers([VIT] * 24).rest((*TAIL, *ADAM))) == []

    def test_layers_that_run_forward_again_in_the_pass_backward_are_not_counted_twice(self) -> None:
        """With checkpoints a layer's forward kernels stand ahead of its backward ones."""
        layers = Stretch().rest(HEAD).layers([VIT] * 24).rest((NORM, gemm("lm"), *LOSS)).layers([VIT + BACK] * 24)
        assert stacks(layers.rest(ADAM)) in ([], [24, 24])


def test_self_and_cross_attention_are_one_layer_where_attention_is_a_softmax() -> None:
    """It ends with its feed-forward part, whose activation is a plain one."""
    part = (NORM, gemm("q"), gemm("qk"), "softmax_warp_forward", gemm("pv"), gemm("o"), ADD)
    fed = (NORM, gemm("wi"), "vectorized_elementwise_kernel<4, at::native::relu, std::array<char*, 2ul> >", gemm("wo"))
    stretch = decoder([(*part, *part, *fed, ADD)] * 12, tail=(NORM, gemm("lm")))
    assert stacks(stretch) == [12]
    assert stretch.right() == 1.0


@pytest.mark.parametrize(
    ("layer", "what"),
    [
        (MAMBA_2, "one scan kernel"),
        (CROSS, "one attention kernel"),
        ((*ATTENTION, *MLP, *MAMBA_2, *MLP), "one attention or scan kernel"),
    ],
)
def test_evidence_names_what_each_layer_has_one_of(layer: tuple[str, ...], what: str) -> None:
    """State spaces have no attention."""
    assert decoder([layer] * 12).found()[0].evidence[0].startswith(f"{what} and what follows it")
