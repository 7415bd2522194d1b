"""Dense products and convolutions, forward and backward: their operators, and how each tells its shapes.

One rule covers most products: every output element sums as many products as the activation's last dimension is long,
whatever the packing of the weight.
"""

from __future__ import annotations

from math import prod
from typing import Any

from layerprof.flops import formulas
from layerprof.flops.counted import Formula, Operands, Product, given


def contraction(first: str) -> Formula:
    """Return the formula of products whose output elements sum over the last dimension of operand `first`."""

    def count(operands: Operands, output: Any) -> Product:
        return Product(formulas.contraction(output, operands[first][-1]))

    return count


def _batched(first: str, second: str) -> Formula:
    def count(operands: Operands, output: Any) -> Product:
        (batch, rows, inner), columns = operands[first], operands[second][-1]
        return Product(formulas.matmul(rows, inner, columns, batch), (batch, rows, inner, columns))

    return count


def _grouped(first: str, second: str) -> Formula:
    def count(operands: Operands, output: Any) -> Product:
        a, b = operands[first], operands[second]
        # Two plain matrices: the groups cut the inner dimension, so all groups together do one product.
        return Product(
            formulas.matmul(a[0], a[1], b[1]) if len(a) == len(b) == 2 else formulas.contraction(output, a[-1])
        )

    return count


def _summed_batch(operands: Operands, output: Any) -> Product:
    (batch, rows, inner), columns = operands["batch1"], operands["batch2"][-1]
    return Product(formulas.matmul(rows, inner, columns, batch))


def _outer(operands: Operands, output: Any) -> Product:
    """Count a column by a row as `mm` does: with an inner dimension of 1."""
    return Product(formulas.contraction(output, 1))


def _trilinear(operands: Operands, output: Any) -> Product:
    """Count two products for each place of the unrolled dimension, as torch runs it (Bilinear, and its gradients).

    `expand*` are the dimensions that an operand lacks. The first product joins i1 and i2 over the summed dimensions
    that i3 lacks, the second joins what it gave with i3 over the others.
    """
    names, unrolled = ("1", "2", "3"), operands.get("unroll_dim", 1)
    total = len(operands["i1"]) + len(operands["expand1"])
    sizes: dict[int, int] = {}
    lacks: dict[str, set[int]] = {name: {d % total for d in operands[f"expand{name}"]} for name in names}
    for name in names:
        there = (dim for dim in range(total) if dim not in lacks[name])
        sizes |= zip(there, operands[f"i{name}"], strict=True)
    summed = {dim % total for dim in operands["sumdim"]} & lacks["3"]
    pair = {dim for dim in range(total) if dim not in lacks["1"] & lacks["2"]} | {unrolled}
    triple = (pair - summed) | {dim for dim in range(total) if dim not in lacks["3"]}
    return Product(2 * sum(prod(sizes.get(dim, 1) for dim in dims) for dims in (pair, triple)))


# --- convolutions -----------------------------------------------------------------------------------------------


def _convolution(*, transposed: bool | None = None) -> Formula:
    def count(operands: Operands, output: Any) -> Product:
        inputs, weight = given(operands, "input", "self", "X"), given(operands, "weight", "W")
        turned = bool(operands.get("transposed", False)) if transposed is None else transposed
        return Product(formulas.convolution(inputs, weight, output, transposed=turned))

    return count


def _time_major_convolution(operands: Operands, output: Any) -> Product:
    """`conv_tbc`: (time, batch, channels) by a weight (kernel, channels in, channels out)."""
    kernel, channels, _ = operands["weight"]
    return Product(formulas.contraction(output, kernel * channels))


def _convolution_backward(*, transposed: bool | None = None) -> Formula:
    def count(operands: Operands, output: Any) -> Product:
        inputs, made = given(operands, "input", "self"), given(operands, "grad_output", "gO")
        turned = bool(operands.get("transposed", False)) if transposed is None else transposed
        wanted = _wanted(operands.get("output_mask"))
        return Product(
            formulas.convolution_backward(inputs, operands["weight"], made, transposed=turned, wanted=wanted)
        )

    return count


def _time_major_convolution_backward(operands: Operands, output: Any) -> Product:
    kernel, channels, _ = operands["weight"]
    return Product(2 * formulas.contraction(operands["self"], kernel * channels))


# --- backward of products ---------------------------------------------------------------------------------------


def _wanted(mask: Any) -> int:
    """Gradients of the first two operands that are asked for; both where nothing says which."""
    return 2 if mask is None else sum(map(bool, mask[:2]))


def _linear_backward(gradient: str, first: str, mask: str) -> Formula:
    """Each gradient multiplies as often as the product itself: output elements x inner dimension."""

    def count(operands: Operands, output: Any) -> Product:
        one = formulas.contraction(operands[gradient], operands[first][-1])
        return Product(_wanted(operands.get(mask)) * one)

    return count


def _linear_backward_one(last: str) -> Formula:
    def count(operands: Operands, output: Any) -> Product:
        return Product(formulas.contraction(operands["grad_output"], operands[last][-1]))

    return count


FORMULAS: dict[str, Formula] = {
    **dict.fromkeys(
        (
            "aten::mm",
            "aten::mv",
            "aten::dot",
            "aten::vdot",
            "aten::_int_mm",
            "aten::_scaled_mm",
            "aten::_scaled_mm_v2",
            "aten::_weight_int4pack_mm",
            "aten::_weight_int4pack_mm_for_cpu",
            "aten::_weight_int4pack_mm_with_scales_and_zeros",
            "aten::_weight_int8pack_mm",
            "aten::mkldnn_linear",
            "aten::_mixed_dtypes_linear",
        ),
        contraction("self"),
    ),
    **dict.fromkeys(
        (
            "aten::linear",
            "aten::fbgemm_linear_fp16_weight",
            "aten::fbgemm_linear_fp16_weight_fp32_activation",
            "aten::fbgemm_linear_int8_weight",
            "aten::fbgemm_linear_int8_weight_fp32_activation",
            "aten::_wrapped_quantized_linear_prepacked",
        ),
        contraction("input"),
    ),
    **dict.fromkeys(
        (
            "mkldnn::_linear_pointwise",
            "mkl::_mkl_linear",
            "quantized::linear",
            "quantized::linear_relu",
            "quantized::linear_leaky_relu",
            "quantized::linear_tanh",
            "quantized::linear_dynamic",
            "quantized::linear_relu_dynamic",
            "quantized::linear_dynamic_fp16",
            "quantized::linear_relu_dynamic_fp16",
            "quantized::linear_dynamic_fp16_unpacked_weight",
            "quantized::linear_with_input_q_dq_qweight_dq_output_fp32",
            "quantized::linear_with_input_q_dq_qweight_dq_relu_output_fp32",
            "_quantized::linear",
            "_quantized::linear_dynamic",
            "_quantized::wrapped_quantized_linear",
            "_quantized::_wrapped_quantized_linear_prepacked",
            "_quantized::wrapped_fbgemm_linear_fp16_weight",
        ),
        contraction("X"),
    ),
    **dict.fromkeys(("onednn::linear_dynamic_fp16", "onednn::linear_relu_dynamic_fp16"), contraction("x")),
    "quantized::matmul": contraction("qa"),
    "onednn::qlinear_pointwise": contraction("qx"),
    "aten::addmm": contraction("mat1"),
    "aten::_addmm_activation": contraction("mat1"),
    "aten::addmv": contraction("mat"),
    "aten::addr": _outer,
    "aten::_dyn_quant_matmul_4bit": contraction("inp"),
    "aten::bmm": _batched("self", "mat2"),
    "aten::baddbmm": _batched("batch1", "batch2"),
    "aten::addbmm": _summed_batch,
    "aten::_grouped_mm": _grouped("self", "mat2"),
    "aten::_scaled_grouped_mm": _grouped("self", "mat2"),
    "aten::_scaled_grouped_mm_v2": _grouped("self", "mat2"),
    "transformers::grouped_mm_fallback": _grouped("input", "weight"),
    "aten::_trilinear": _trilinear,
    **dict.fromkeys(
        (
            "aten::convolution",
            "aten::_convolution",
            "aten::_convolution_mode",
            "aten::convolution_overrideable",
            "aten::conv1d",
            "aten::conv2d",
            "aten::conv3d",
            "aten::cudnn_convolution",
            "aten::cudnn_convolution_relu",
            "aten::cudnn_convolution_add_relu",
            "aten::miopen_convolution",
            "aten::miopen_convolution_relu",
            "aten::miopen_convolution_add_relu",
            "aten::miopen_depthwise_convolution",
            "aten::mkldnn_convolution",
            "aten::_mps_convolution",
            "aten::thnn_conv2d",
            "aten::_slow_conv2d_forward",
            "aten::slow_conv3d",
            "aten::slow_conv3d_forward",
            "aten::slow_conv_dilated2d",
            "aten::slow_conv_dilated3d",
            "aten::_conv_depthwise2d",
            "aten::conv_depthwise3d",
            "aten::_nnpack_spatial_convolution",
            "mkldnn::_convolution_pointwise",
        ),
        _convolution(),
    ),
    **dict.fromkeys(
        (
            "aten::conv_transpose1d",
            "aten::conv_transpose2d",
            "aten::conv_transpose3d",
            "aten::cudnn_convolution_transpose",
            "aten::miopen_convolution_transpose",
            "aten::_mps_convolution_transpose",
            "aten::slow_conv_transpose2d",
            "aten::slow_conv_transpose3d",
        ),
        _convolution(transposed=True),
    ),
    "aten::conv_tbc": _time_major_convolution,
    "aten::conv_tbc_backward": _time_major_convolution_backward,
    **dict.fromkeys(
        (
            "aten::convolution_backward",
            "aten::convolution_backward_overrideable",
            "aten::_slow_conv2d_backward",
            "aten::mps_convolution_backward",
        ),
        _convolution_backward(),
    ),
    "aten::mps_convolution_transpose_backward": _convolution_backward(transposed=True),
    "aten::linear_backward": _linear_backward("grad_output", "self", "output_mask"),
    "aten::mkldnn_linear_backward": _linear_backward("grad_output", "self", "output_mask"),
    "aten::mkldnn_linear_backward_input": _linear_backward_one("weight"),
    "aten::mkldnn_linear_backward_weights": _linear_backward_one("input"),
    "aten::matmul_backward": _linear_backward("grad", "self", "mask"),
}
