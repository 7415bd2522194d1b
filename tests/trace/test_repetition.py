"""Layers are found in kernels without module names, in sequences that were put together layer by layer."""

from __future__ import annotations

import random

import pytest
from kernel_stacks import ADD, HEAD, LLAMA, TAIL, VIT, Stretch, but

from layerprof.trace.inference.repetition import find

MOE = but(
    LLAMA,
    {
        "nvjet_hsh_256x128_2x1_v_up": ("nvjet_hsh_16x16_router", "topk_softmax_kernel", "moe_align_block_size_kernel"),
        "act_and_mul_kernel": "fused_moe_kernel",
        "nvjet_hsh_128x256_1x2_h_down": ("moe_sum_kernel",),
    },
)
MAMBA = but(
    LLAMA,
    {
        "rotary_embedding_kernel": "causal_conv1d_fwd_kernel",
        "reshape_and_cache_flash_kernel": "_chunk_state_fwd_kernel",
        "flash_fwd_splitkv_kernel": "_chunk_scan_fwd_kernel",
    },
)
WINDOWED = but(LLAMA, {"flash_fwd_splitkv_kernel": ("kernel_unified_attention_3d", "reduce_segments")})


def step(layers: int = 12) -> Stretch:
    """Return one step of a decoder."""
    return Stretch().rest(HEAD).layers([LLAMA] * layers).rest(TAIL)


@pytest.mark.parametrize("layers", [3, 4, 12, 36, 80])
def test_a_sequence_that_repeats_n_times_is_n_layers(layers: int) -> None:
    """What comes before the first norm is the head; the last norm and what follows are the tail."""
    (found,) = step(layers).found()
    assert found.starts == tuple(1 + 10 * number for number in range(layers))
    assert found.end == 1 + 10 * layers
    assert found.kinds == (0,) * layers
    assert found.spread == 0.0


def test_the_first_norm_may_be_another_kernel() -> None:
    """There is no residual yet to add, or the embedding is fused into it."""
    for first in ("rms_norm_kernel", "triton_red_fused_embedding_mean_pow_rsqrt_0"):
        layers = [but(LLAMA, {}), *[LLAMA] * 11]
        layers[0] = (first, *LLAMA[1:])
        assert Stretch().rest(HEAD).layers(layers).rest(TAIL).right() == 1.0


def test_the_last_layer_may_do_less_work() -> None:
    """Only the last position's row goes through its feed-forward part, with a gather ahead and other tiles."""
    last = but(LLAMA, {LLAMA[5]: (LLAMA[5], "index_elementwise_kernel"), LLAMA[7]: "nvjet_hsh_16x64_1x1_v_up"})
    assert Stretch().rest(HEAD).layers([*[LLAMA] * 11, last]).rest(TAIL).right() == 1.0


@pytest.mark.parametrize(
    ("pattern", "kinds"),
    [
        ((WINDOWED, LLAMA), (0, 1)),
        ((WINDOWED, WINDOWED, WINDOWED, WINDOWED, WINDOWED, LLAMA), (0, 0, 0, 0, 0, 1)),
        ((MAMBA, MAMBA, MAMBA, LLAMA), (0, 0, 0, 1)),
    ],
    ids=["every other layer", "every sixth layer", "every fourth layer"],
)
def test_layers_of_two_kinds_in_turn(pattern: tuple[tuple[str, ...], ...], kinds: tuple[int, ...]) -> None:
    """Windowed and full attention, state spaces and attention: each is a layer, and its kind is told."""
    stretch = Stretch().rest(HEAD).layers(list(pattern) * 4).rest(TAIL)
    assert stretch.right() == 1.0
    assert stretch.found()[0].kinds == kinds * 4


@pytest.mark.parametrize("dense", [1, 3])
def test_the_first_layers_may_be_dense_and_the_others_of_experts(dense: int) -> None:
    """They are one stack of two kinds."""
    stretch = Stretch().rest(HEAD).layers([LLAMA] * dense + [MOE] * 20).rest(TAIL)
    assert stretch.right() == 1.0
    assert stretch.found()[0].kinds == (0,) * dense + (1,) * 20


def test_one_odd_layer_out() -> None:
    """It is a layer all the same, of a kind of its own."""
    stretch = Stretch().rest(HEAD).layers([*[LLAMA] * 7, MOE, *[LLAMA] * 8]).rest(TAIL)
    assert stretch.right() == 1.0
    assert stretch.found()[0].kinds == (0,) * 7 + (1,) + (0,) * 8


def test_a_vision_tower_and_a_decoder_are_two_stacks() -> None:
    """What merges patches stands between them, in neither."""
    merger = (
        "vectorized_layer_norm_kernel",
        "cutlass_tensorop_gemm_x",
        "GeluCUDAKernelImpl",
        "cutlass_tensorop_gemm_y",
    )
    stretch = (
        Stretch()
        .rest(("nchwToNhwcKernel", "implicit_convolve_sgemm", ADD))
        .layers([VIT] * 32)
        .rest((*merger, "indexSelectLargeIndex", "masked_scatter_kernel"))
        .layers([LLAMA] * 36)
        .rest(TAIL)
    )
    assert [len(layers.starts) for layers in stretch.found()] == [32, 36]
    assert stretch.right() > 0.99


def test_several_steps_in_a_row_are_as_many_stacks() -> None:
    """A sampled token and the next one's embedding stand between them."""
    stretch = Stretch()
    for _ in range(5):
        stretch.rest(HEAD).layers([LLAMA] * 8).rest(TAIL)
    assert [len(layers.starts) for layers in stretch.found()] == [8] * 5
    assert stretch.right() == 1.0


@pytest.mark.parametrize("seed", range(5))
def test_copies_fills_and_kernels_of_noise_between_them(seed: int) -> None:
    """They go to the layer in which they stand, and a kernel that is missing costs nothing else."""
    random_ = random.Random(seed)
    noise = ("Memcpy DtoD (Device -> Device)", "Memset (Device)", "some_unheard_of_kernel")
    layers = []
    for _ in range(24):
        layer = list(LLAMA)
        for _ in range(random_.randrange(3)):
            layer.insert(random_.randrange(1, len(layer)), random_.choice(noise))
        if random_.random() < 0.2:
            layer.remove(random_.choice(("rotary_embedding_kernel", "nvjet_hsh_64x64_1x2_h_out")))
        layers.append(layer)
    assert Stretch().rest(HEAD).layers(layers).rest(TAIL).right() == 1.0


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["elementwise_kernel"] * 400,
        ["flash_fwd_kernel"] * 50,
        ["multi_tensor_apply_kernel<A>", "multi_tensor_apply_kernel<B>", "multi_tensor_apply_kernel<C>"] * 4,
        [f"kernel_{chr(97 + number)}" for number in range(26)],
        [*LLAMA, *LLAMA],
    ],
    ids=["nothing", "a loop of one kernel", "a benchmark", "four steps of an optimizer", "all different", "two layers"],
)
def test_what_is_not_a_model_has_no_layers(names: list[str]) -> None:
    """Less than three repetitions, a single kernel, or no matrix work."""
    assert find(names, [1000] * len(names)) == ()
