"""What kernels do is read from their names, as profilers write them."""

from __future__ import annotations

import pytest

from layerprof.trace.kernel_names import Does, coarse, does, numberless

NATIVE = (
    "void at::native::vectorized_elementwise_kernel<4, at::native::{}, std::array<char*, 3ul> >(int, at::native::{})"
)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("_ZN5aiter24add_rmsnorm_quant_kernelIDF16bDF16bLi256ELi16ELb0EEEvPT0_PT_", Does.NORM),
        (
            "void at::native::(anonymous namespace)::vectorized_layer_norm_kernel<c10::BFloat16, float>(int, float)",
            Does.NORM,
        ),
        ("triton_red_fused__to_copy_add_embedding_mean_mul_pow_rsqrt_0", Does.NORM),
        (NATIVE.format("rsqrt_kernel_cuda(at::TensorIteratorBase&)", "rsqrt_kernel_cuda"), Does.NORM_PART),
        ("Cijk_Alik_Bljk_BBS_BH_Bias_HA_S_SAV_UserArgs_MT64x32x256_MI16x16x1_SN", Does.GEMM),
        (
            "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64_warpgroupsize1x1x1_execute_kernel__5x_cublas",
            Does.GEMM,
        ),
        ("nvjet_sm90_hsh_64x8_64x16_4x2_h_bz_TNT", Does.GEMM),
        ("void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm_relu_bf16_128x64_64x6_tn_align8>(...)", Does.GEMM),
        (
            "void pytorch_flash::flash_fwd_kernel<pytorch_flash::Flash_fwd_kernel_traits<64, 128>>(Params)",
            Does.ATTENTION,
        ),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7_64x128x64_kernel0_0", Does.ATTENTION),
        ("void paged_attention_ll4mi_QKV_mfma16_kernel<0, (vllm::Fp8KVCacheDataType)0>(int)", Does.ATTENTION),
        ("kernel_unified_attention_2d", Does.ATTENTION),
        ("_ZN7ck_tile6kentryILi2ENS_38FmhaBatchPrefillWithPagedKVCacheKernelINS_4ThatEEEEvv", Does.ATTENTION),
        ("void vllm::reshape_and_cache_flash_kernel<__hip_bfloat16, (vllm::Fp8KVCacheDataType)0>(int)", Does.CACHE),
        ("void (anonymous namespace)::store_kvcache<2048l, 4, false, long>(StoreKVCacheParams)", Does.CACHE),
        ("void vllm::rotary_embedding_kernel<c10::BFloat16, true>(long const*)", Does.ROPE),
        ("triton_poi_fused__scaled_dot_product_cudnn_attention_add_cat_mul_neg_view_1", Does.ROPE),
        ("_ZN7sgl_hip10activation18act_and_mul_kernelI14__hip_bfloat16EEvPS3_PS4_i", Does.ACTIVATION),
        ("triton_poi_fused__unsafe_view_mul_silu_4", Does.ACTIVATION),
        ("_matmul_ogs_NNT_bf16xbf16xmxfp4_16x128x256x1_swiglu", Does.EXPERTS),
        ("void vllm::moe::topkGatingSoftmax<4, 64, 4, 16>(float const*)", Does.EXPERTS),
        ("_topk_forward", Does.EXPERTS),
        ("void at::native::(anonymous namespace)::cunn_SoftMaxForward<8, c10::BFloat16>(c10::BFloat16*)", Does.SOFTMAX),
        (
            "void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float, at::native::ArgMaxOps<float>>>(int)",
            Does.SAMPLE,
        ),
        ("void at::native::(anonymous namespace)::indexSelectLargeIndex<c10::BFloat16, long>(int)", Does.EMBEDDING),
        (NATIVE.format("CUDAFunctor_add<c10::BFloat16>", "CUDAFunctor_add<c10::BFloat16>"), Does.ADD),
        (
            "void at::native::elementwise_kernel<128, 4, gpu_kernel_impl_nocast<BinaryFunctor<float>>>(int)",
            Does.ELEMENTWISE,
        ),
        ("sm80_xmma_fprop_implicit_gemm_tf32f32_tf32f32_f32_nhwckrsc_nhwc_tilesize128x128x16_cudnn", Does.CONVOLUTION),
        (NATIVE.format("relu", "relu"), Does.ACTIVATION),
        ("Memcpy DtoD (Device -> Device)", Does.COPY),
        ("Memset (Device)", Does.FILL),
        ("ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)", Does.COMMUNICATION),
        ("void causal_conv1d_fwd_kernel<Causal_conv1d_fwd_kernel_traits<128>>(ConvParamsBase)", Does.SCAN),
        ("void flash::flash_bwd_dq_dk_dv_loop_seqk_parallel_kernel<Flash_bwd_kernel_traits<64>>(int)", Does.BACKWARD),
        ("compute_position_kernel", Does.OTHER),
    ],
)
def test_what_a_kernel_does(name: str, what: Does) -> None:
    """The more telling word counts: a cache write that is named after flash attention is a cache write."""
    assert does(name) == what


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("triton_poi_fused_add_3", "triton_poi_fused_add_17"),
        ("fused_kernel_0d1d2d3", "fused_kernel_0d1d2d3"),
        ("kernel_1f3a9c77be", "kernel_77aa00bb1c"),
    ],
)
def test_names_that_differ_by_a_number_at_their_end_are_one(one: str, other: str) -> None:
    """So do compilers tell their kernels apart, or by a hash."""
    assert numberless(one) == numberless(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Cijk_Alik_Bljk_BBS_MT64x32x256_MI16x16x1_SN", "Cijk_Alik_Bljk_BBS_MT256x48x64_MI16x16x1_SN"),
        ("nvjet_sm90_hsh_64x8_64x16_1x2_h_bz_bias_TNT", "nvjet_sm90_hsh_128x8_64x16_4x2_h_bz_TNT"),
        (
            "_ZN5aiter24add_rmsnorm_quant_kernelIDF16bLi256EEEvPT_",
            "_ZN5aiter24add_rmsnorm_quant_kernelIDF16bLi64EEEvPT_",
        ),
        ("void vllm::act_and_mul_kernel<c10::Half, 8>(int)", "void vllm::act_and_mul_kernel<c10::BFloat16, 4>(int)"),
    ],
)
def test_tiles_types_and_template_parameters_make_no_family(one: str, other: str) -> None:
    """They depend on sizes; the family does not."""
    assert coarse(one) == coarse(other) != coarse("vllm::rotary_embedding_kernel")


def test_what_elementwise_kernels_compute_makes_a_family() -> None:
    """They share one template, and what they compute stands in it."""
    add, copy = (NATIVE.format(functor, functor) for functor in ("CUDAFunctor_add<float>", "direct_copy_kernel_cuda"))
    assert coarse(add) != coarse(copy)
