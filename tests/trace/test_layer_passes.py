"""Several passes over the same layers in one sequence are as many stacks; what merely comes periodically is none."""

from __future__ import annotations

import pytest
from kernel_architectures import ATTENTION, DELTA, EXPERTS, LAYER_NORM, MAMBA_2, MLP, NORM, gemm
from kernel_stacks import ADD, HEAD, LLAMA, TAIL, VIT, Stretch

from layerprof.trace.inference.repetition import find

SCALE = "elementwise_kernel<MulFunctor>"
DIT = (
    *(LAYER_NORM, SCALE, gemm("qkv"), "flash_fwd_kernel", gemm("o"), ADD),
    *(LAYER_NORM, SCALE, gemm("fc1"), "GeluCUDAKernelImpl", gemm("fc2"), ADD),
)
PATCHES = (ADD, gemm("patch"))
PROJECTION = (LAYER_NORM, gemm("out"))
SCHEDULER = ("elementwise_kernel<LerpFunctor>", ADD)
DOUBLE = (
    *(LAYER_NORM, gemm("qkv"), gemm("txt"), "CatArrayBatchedCopy", "flash_fwd_kernel", gemm("o"), gemm("otxt")),
    *(LAYER_NORM, gemm("up"), "GeluCUDAKernelImpl", gemm("down"), LAYER_NORM, gemm("utxt"), "GeluCUDAKernelImpl"),
    gemm("dtxt"),
)
SINGLE = (LAYER_NORM, gemm("in"), "GeluCUDAKernelImpl", "flash_fwd_kernel", "CatArrayBatchedCopy", gemm("so"), ADD)


def denoising(steps: int, layers: int = 28) -> Stretch:
    """Return steps of a diffusion model."""
    stretch = Stretch()
    for _ in range(steps):
        stretch.rest(PATCHES).layers([DIT] * layers).rest((*PROJECTION, *SCHEDULER))
    return stretch


def heights(stretch: Stretch) -> list[int]:
    """Return how many layers each stack has, in a replay as well as outside of one."""
    found = [len(layers.starts) for layers in stretch.found()]
    assert [len(layers.starts) for layers in find(stretch.names, stretch.ns, in_graph=True)] == found
    return found


@pytest.mark.parametrize(("steps", "layers"), [(30, 28), (4, 12), (3, 3), (2, 28)])
def test_steps_of_a_diffusion_model_are_as_many_stacks(steps: int, layers: int) -> None:
    """Between them stand no more than a projection, a scheduler and the patches; two steps have one such place."""
    assert heights(denoising(steps, layers)) == [layers] * steps


def test_all_that_stands_between_passes_is_in_no_layer() -> None:
    """But for the norm, of which one before a projection tells nothing else."""
    assert denoising(30).right() > 0.99


def test_layers_of_two_kinds_one_after_the_other() -> None:
    """Blocks of two streams, then of one."""
    stretch = Stretch()
    head = (gemm("time"), "silu_kernel", gemm("time"))
    for _ in range(8):
        stretch.rest(head).layers([DOUBLE] * 19 + [SINGLE] * 38).rest((*PROJECTION, *SCHEDULER))
    assert heights(stretch) == [57] * 8


def test_copies_between_some_steps_do_not_matter() -> None:
    """They come when the host asks for something."""
    stretch = Stretch()
    for step in range(12):
        stretch.rest(("Memcpy DtoH",) * (step % 3) + PATCHES).layers([DIT] * 28).rest((*PROJECTION, *SCHEDULER))
    assert heights(stretch) == [28] * 12


def test_what_runs_once_before_and_after_all_steps_is_beside_them() -> None:
    """An encoder of text ahead, a decoder of images behind."""
    once = Stretch().rest(("conv2d_gemm", gemm("text"), "tanh_kernel") * 3)
    for _ in range(10):
        once.rest(PATCHES).layers([DIT] * 28).rest((*PROJECTION, *SCHEDULER))
    assert heights(once.rest(("implicit_convolve_sgemm", "upsample_nearest2d") * 6)) == [28] * 10


def test_a_recording_may_begin_or_end_in_the_midst_of_a_pass() -> None:
    """What is left of that pass is a stack of fewer layers."""
    whole = denoising(10)
    cut = 2 + 18 * len(DIT) + 1
    late = Stretch(whole.names[cut:], whole.ns[cut:])
    early = Stretch(whole.names[:-cut], whole.ns[:-cut])
    assert heights(late)[1:] == [28] * 9
    assert heights(late)[0] in (9, 10)
    assert heights(early)[:-1] == [28] * 9
    assert heights(early)[-1] in (9, 10)


MERGER = (LAYER_NORM, gemm("m1"), "GeluCUDAKernelImpl", gemm("m2"))
CROSS = (NORM, gemm("q"), "fmha_kernel", gemm("o"), ADD)
SHARED = (*ATTENTION, *MLP)


@pytest.mark.parametrize(
    ("layers", "head", "tail"),
    [
        ([(ATTENTION if n % 6 == 5 else DELTA) + MLP for n in range(36)], HEAD, TAIL),
        ([(ATTENTION if n % 6 == 0 else DELTA) + MLP for n in range(36)], HEAD, TAIL),
        ([ATTENTION + (EXPERTS if n % 4 == 3 else MLP) for n in range(48)], HEAD, TAIL),
        ([ATTENTION + (CROSS if n % 5 == 3 else ()) + MLP for n in range(40)], HEAD, TAIL),
        ([VIT + (MERGER if n % 6 == 5 else ()) for n in range(24)], ("conv3d_gemm", ADD), (*MERGER, "gather")),
        ([VIT + (MERGER if n % 6 == 5 else ()) for n in range(24)], (gemm("m2"),), MERGER),
        ([VIT + (MERGER if n % 6 == 5 else ()) for n in range(30)], (), (*MERGER, *MERGER)),
        ([((gemm("adapter"), ADD) if n % 7 == 0 else ()) + LLAMA for n in range(35)], HEAD, TAIL),
        ([LLAMA + ((gemm("adapter"), ADD) if n % 7 == 6 else ()) for n in range(35)], HEAD, TAIL),
        ([((LAYER_NORM, *VIT[1:]) if n % 8 else ("window_partition", *VIT)) for n in range(32)], (ADD,), MERGER),
    ],
    ids=[
        "every sixth full attention",
        "the first and every sixth full attention",
        "every fourth of experts",
        "cross attention in every fifth",
        "features merged",
        "features merged, with a head that ends alike",
        "features merged, without a head",
        "an adapter before every seventh",
        "an adapter behind every seventh",
        "another window every eighth",
    ],
)
def test_what_comes_periodically_within_a_model_ends_no_pass(
    layers: list[tuple[str, ...]], head: tuple[str, ...], tail: tuple[str, ...]
) -> None:
    """It does not begin as the model's end and end as its beginning."""
    assert heights(Stretch().rest(head).layers(layers).rest(tail)) == [len(layers)]


def test_a_shared_block_every_sixth_layer_begins_no_pass() -> None:
    """It has attention of its own, and state spaces around it."""
    layers = [(SHARED if n % 6 == 5 else ()) + MAMBA_2 for n in range(36)]
    assert all(height not in (5, 6) for height in heights(Stretch().rest(HEAD).layers(layers).rest(TAIL)))
