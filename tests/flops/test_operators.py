"""Which operators have a formula, which may do matrix work without one, and which are known to do none."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import flop_registry

from layerprof.flops.operators import role

FORMULA = """
aten::mm aten::addmm_ aten::_int_mm aten::_weight_int4pack_mm aten::_grouped_mm aten::addr aten::_trilinear
aten::_euclidean_dist aten::_cdist_forward aten::_cdist_backward aten::_pdist_forward aten::linalg_matrix_exp
aten::_linalg_solve_ex aten::linalg_inv_ex aten::_linalg_det aten::_linalg_slogdet aten::linalg_lu_factor_ex
aten::linalg_lu aten::linalg_lu_solve aten::linalg_cholesky_ex aten::cholesky_inverse aten::cholesky_solve
aten::linalg_qr aten::geqrf aten::ormqr aten::linalg_householder_product aten::_linalg_svd aten::_linalg_eigh
aten::linalg_eig aten::cudnn_affine_grid_generator
aten::linalg_lstsq aten::linalg_pinv aten::linalg_solve_triangular aten::triangular_solve aten::linalg_ldl_factor_ex
aten::affine_grid_generator aten::conv_tbc aten::slow_conv_dilated2d aten::cudnn_convolution_transpose
aten::convolution_backward aten::linear_backward aten::mkldnn_linear_backward aten::matmul_backward
aten::_scaled_dot_product_flash_attention_backward aten::_scaled_dot_product_flash_attention_for_cpu_backward
aten::_scaled_dot_product_efficient_attention_backward aten::_scaled_dot_product_cudnn_attention_backward
aten::_flash_attention_backward aten::_efficient_attention_backward
aten::lstm aten::gru aten::rnn_tanh aten::lstm_cell aten::mkldnn_rnn_layer aten::mkldnn_rnn_layer_backward
aten::_cudnn_rnn aten::_cudnn_rnn_backward aten::quantized_lstm quantized::quantized_lstm_cell_dynamic
aten::_sparse_addmm aten::_sparse_sparse_matmul aten::sparse_sampled_addmm aten::_sparse_mm_reduce_impl
aten::_sparse_semi_structured_linear aten::_cslt_sparse_mm
aten::_transformer_encoder_layer_fwd aten::_native_multi_head_attention aten::_triton_multi_head_attention
bitsandbytes::gemm_4bit bitsandbytes::int8_mixed_scaled_mm quantized::linear_relu_dynamic
"""

UNKNOWN = """
aten::_fft_r2c aten::_fft_c2c aten::fft_rfft aten::stft aten::_spsolve aten::_cslt_sparse_mm_search
aten::_convolution_double_backward aten::matrix_exp_backward aten::_compute_linear_combination
aten::linalg_tensorsolve aten::linalg_matrix_rank aten::linalg_cond aten::matmul aten::einsum aten::inverse
quantized::conv2d quantized::conv_transpose2d quantized::int4mm_packed_weight_cpu onednn::qconv_pointwise
inductor::_mm_plus_mm sparse::qlinear_dynamic prepacked::linear_clamp_run torchvision::deform_conv2d
mykernels::fused_mlp gptq::marlin_gemm
"""

PLAIN = """
aten::add aten::silu aten::native_layer_norm aten::cumsum aten::gammaln aten::addcmul aten::addcdiv aten::index_add
aten::upsample_bilinear2d aten::upsample_linear1d_backward aten::upsample_trilinear3d aten::grid_sampler_2d
aten::grid_sampler_2d_backward aten::segment_reduce aten::_softmax_backward_data aten::native_layer_norm_backward
aten::embedding_dense_backward aten::_embedding_bag_backward aten::max_pool2d_with_indices_backward
aten::_thnn_fused_lstm_cell aten::_thnn_fused_gru_cell_backward aten::_thnn_differentiable_lstm_cell_backward
aten::_transform_bias_rescale_qkv aten::_fused_sdp_choice aten::_cudnn_rnn_flatten_weight
aten::_use_cudnn_rnn_flatten_weight aten::linalg_vector_norm aten::linalg_cross aten::linalg_diagonal
aten::_linalg_check_errors aten::lu_unpack aten::relu aten::elu aten::selu_ aten::glu aten::weight_norm aten::erfinv
aten::special_erfinv aten::resolve_conj aten::detach aten::trace_backward aten::polar aten::im2col aten::col2im
aten::fft_fftfreq aten::_pack_padded_sequence aten::_weight_norm_interface_backward aten::slice_inverse
aten::_sparse_semi_structured_tile aten::_to_sparse_csr aten::nested_to_padded_tensor aten::ctc_loss aten::geometric
quantized::add quantized::linear_prepack quantized::conv2d_stride quantized::cat quantized::embedding_byte
onednn::qadd prim::device profiler::_record_function_enter_new c10d::allreduce_ aten::_foreach_lerp_
"""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((name, "formula") for name in FORMULA.split()),
        *((name, "unknown") for name in UNKNOWN.split()),
        *((name, "plain") for name in PLAIN.split()),
        ("aten::embedding", "gather"),
        ("aten::_softmax", "softmax"),
    ],
)
def test_what_may_be_matrix_work_without_a_formula_is_told_apart(name: str, expected: str) -> None:
    """Nothing that multiplies matrices passes silently, and elementwise operators are no noise."""
    assert role(name, ()) == expected


def test_torch_s_own_counter_knows_nothing_that_is_silent_here() -> None:
    """Each operator with a formula in torch.utils.flop_counter has one here, or is named."""
    names = {str(packet).replace(".", "::", 1) for packet in flop_registry if "." in str(packet)}
    assert len(names) > 20
    assert {name: role(name, ()) for name in names if role(name, ()) == "plain"} == {}


def test_operators_of_torch_that_multiply_by_name_are_never_silent() -> None:
    """Over all of torch's operators: a name that says product, attention or recurrence is plain for a listed reason."""
    words = {
        "mm",
        "bmm",
        "matmul",
        "linear",
        "attention",
        "lstm",
        "gru",
        "rnn",
        "conv",
        "solve",
        "cholesky",
        "svd",
        "lu",
    }
    schemas = torch._C._jit_get_all_schemas()
    names = {schema.name for schema in schemas if schema.name.startswith("aten::")}
    plain = {name for name in names if role(name, ()) == "plain"}
    silent = {name for name in plain if words & {*name.removeprefix("aten::").split("_")}}
    assert silent == {
        "aten::_wrapped_linear_prepack",
        "aten::lu_unpack",
        "aten::_cudnn_rnn_flatten_weight",
        "aten::_thnn_differentiable_gru_cell_backward",
        "aten::_thnn_differentiable_lstm_cell_backward",
        "aten::_thnn_fused_gru_cell",
        "aten::_thnn_fused_gru_cell_backward",
        "aten::_thnn_fused_lstm_cell",
        "aten::_thnn_fused_lstm_cell_backward",
        "aten::_thnn_fused_lstm_cell_backward_impl",
        "aten::_use_cudnn_rnn_flatten_weight",
        "aten::fbgemm_linear_quantize_weight",
    }
