"""Layers of architectures, as the kernels that servers, compilers and eager models run for them."""

from __future__ import annotations

import random
from collections.abc import Sequence

from kernel_stacks import ADD, HEAD, LLAMA, TAIL, VIT, Stretch

NORM = "rms_norm_kernel"
LAYER_NORM = "vectorized_layer_norm_kernel"


def gemm(what: str) -> str:
    """Return a GEMM whose tile tells it from others."""
    return f"nvjet_hsh_{what}_v_bz_TNT"


MLP = (NORM, gemm("up"), "silu_and_mul", gemm("down"))
ATTENTION = (NORM, gemm("qkv"), "rotary_embedding_kernel", "reshape_and_cache_kernel", "flash_fwd_kernel", gemm("o"))
EXPERTS = (
    NORM,
    gemm("router"),
    "grouped_topk_kernel",
    "fused_moe_kernel",
    "silu_and_mul",
    "fused_moe_kernel",
    "moe_sum",
)
MLA = (
    *(NORM, gemm("qkva"), NORM, gemm("qb"), gemm("kvb"), "rotary_embedding_kernel", "concat_and_cache_mla"),
    *("flash_fwd_splitkv_mla_kernel", "flash_fwd_splitkv_mla_combine_kernel", gemm("vb"), gemm("o")),
)
MAMBA_1 = (NORM, gemm("in"), "causal_conv1d_fwd", gemm("x"), gemm("dt"), "selective_scan_fwd_kernel", gemm("out"), ADD)
MAMBA_2 = (
    *(NORM, gemm("in"), "causal_conv1d_fwd", "_chunk_state_fwd_kernel", "_state_passing_fwd", "_chunk_scan_fwd_kernel"),
    *("gated_rms_norm_kernel", gemm("out")),
)
DELTA = (NORM, gemm("in"), "causal_conv1d", "chunk_gated_delta_rule_fwd", "gated_rms_norm_kernel", gemm("out"))
GEMMA = (*ATTENTION, NORM, ADD, NORM, gemm("up"), "gelu_and_mul", gemm("down"), NORM, ADD)
CROSS = (
    *(LAYER_NORM, gemm("q"), gemm("k"), gemm("v"), "fmha_kernel", gemm("o"), ADD),
    *(
        LAYER_NORM,
        gemm("q"),
        "fmha_kernel",
        gemm("o"),
        ADD,
        LAYER_NORM,
        gemm("fc1"),
        "GeluCUDAKernelImpl",
        gemm("fc2"),
        ADD,
    ),
)
PARALLEL = (
    *(LAYER_NORM, gemm("qkv"), "rotary_embedding_kernel", "fmha_kernel", gemm("o")),
    *(gemm("fc1"), "GeluCUDAKernelImpl", gemm("fc2"), ADD, ADD),
)
POST_NORM = (gemm("qkv"), "q_norm_kernel", "fmha_kernel", gemm("o"), NORM, ADD, *MLP[1:], NORM, ADD)
EXPLICIT = (
    *(NORM, gemm("qkv"), "rotary_embedding_kernel", "cutlass_gemm_qk", "elementwise_kernel<MulFunctor>"),
    *("softmax_warp_forward", "cutlass_gemm_pv", gemm("o"), ADD, *MLP, ADD),
)
DIT = (
    *("silu_kernel", gemm("ada"), LAYER_NORM, "modulate_elementwise", gemm("qkv"), "fmha_kernel", gemm("o")),
    *("gate_elementwise", LAYER_NORM, "modulate_elementwise", gemm("fc1"), "GeluCUDA", gemm("fc2"), "gate_elementwise"),
)
REDUCED = (
    *("allreduce_fusion_kernel_oneshot", *LLAMA[1:6]),
    *("allreduce_fusion_kernel_oneshot", *LLAMA[7:]),
)


def compiled(number: int, norm: str = "triton_red_fused_add_mean_mul_pow_rsqrt") -> tuple[str, ...]:
    """Return a layer as Inductor makes it, whose kernels it numbers through."""
    return (
        *(f"{norm}_{4 * number}", gemm("qkv"), f"triton_poi_fused_cat_neg_{4 * number + 1}", "flash_fwd_kernel"),
        *(gemm("o"), f"triton_red_fused_add_mean_mul_pow_rsqrt_{4 * number + 2}", gemm("up")),
        *(f"triton_poi_fused_mul_silu_{4 * number + 3}", gemm("down")),
    )


def beside(layer: Sequence[str], others: Sequence[str], seed: int) -> tuple[str, ...]:
    """Return a layer with kernels of another stream among those of its feed-forward part, each time elsewhere."""
    chance = random.Random(seed)
    found = list(layer)
    for place, name in sorted(
        zip([chance.randrange(7, len(layer)) for _ in others], others, strict=True), reverse=True
    ):
        found.insert(place, name)
    return tuple(found)


def decoder(layers: Sequence[Sequence[str]], head: Sequence[str] = HEAD, tail: Sequence[str] = TAIL) -> Stretch:
    """Return one step."""
    return Stretch().rest(head).layers(layers).rest(tail)


def vision_language() -> Stretch:
    """Return a prefill: three blocks of the tower hand on what they see, three layers of the decoder add it."""
    merger = (LAYER_NORM, "cutlass_tensorop_gemm_m1", "GeluCUDAKernelImpl", "cutlass_tensorop_gemm_m2")
    blocks = [VIT + (merger if number in (5, 11, 17) else ()) for number in range(24)]
    adds = ("nonzero_kernel", "index_elementwise_kernel", ADD, "index_put_kernel")
    layers = [LLAMA + (adds if number < 3 else ()) for number in range(28)]
    tower = Stretch().rest(("conv3d_gemm", ADD)).layers(blocks)
    return tower.rest((*merger, "indexSelectLargeIndex", "masked_scatter")).layers(layers).rest(TAIL)


NAMED: dict[str, Stretch] = {
    "numbered through by a compiler": decoder(
        [compiled(number) for number in range(1, 25)], ("triton_poi_fused_embedding_0",)
    ),
    "embedding fused into the first norm": decoder(
        [compiled(0, "triton_red_fused_embedding_mean_mul_pow_rsqrt"), *map(compiled, range(1, 24))], ()
    ),
    "norms around both parts": decoder([GEMMA] * 26, (*HEAD, "elementwise_kernel<MulFunctor>")),
    "latent attention, three dense layers, then experts": decoder([MLA + MLP] * 3 + [MLA + EXPERTS] * 58),
    "cross attention": decoder([CROSS] * 32, tail=(LAYER_NORM, gemm("lm"))),
    "attention and feed-forward part side by side": decoder([PARALLEL] * 28, tail=(LAYER_NORM, gemm("lm"))),
    "norms behind both parts": decoder([POST_NORM] * 32),
    "state spaces": decoder([MAMBA_2] * 48),
    "state spaces with projections inside": decoder([MAMBA_1] * 48),
    "one attention in eight": decoder([(ATTENTION if n % 8 == 4 else MAMBA_2) + MLP for n in range(32)]),
    "one attention in four, experts": decoder([(ATTENTION if n % 4 == 3 else DELTA) + EXPERTS for n in range(48)]),
    "shared experts on another stream": decoder(
        [beside(LLAMA, ("side_gemm_a", "side_copy", "side_gemm_b"), seed) for seed in range(32)]
    ),
    "attention as a softmax, and another to sample": decoder([EXPLICIT] * 24, tail=(*TAIL, "softmax_warp_forward")),
    "modulated by a time step": decoder(
        [DIT] * 28, ("conv2d_gemm", "silu_kernel", gemm("t")), (LAYER_NORM, gemm("out"))
    ),
    "norms fused into the sum over GPUs": decoder(
        [(NORM, *REDUCED[1:]), *[REDUCED] * 79], tail=("allreduce_fusion_kernel_oneshot", *TAIL[1:])
    ),
    "a tower and a decoder": vision_language(),
    "a tower and a decoder with nothing between": Stretch().layers([VIT] * 24).layers([LLAMA] * 28),
}
