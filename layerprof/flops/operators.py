"""Operators -> formulas: which formula an executed operator takes, by its name and schema. No torch.

What has no formula is `unknown` where it may do matrix work, so that it is named and never a silent zero, and `plain`
where it is known to do none.
"""

from __future__ import annotations

import re
from typing import Any, Literal

from layerprof.flops import attention, dense, linear_algebra_operators, quantised, ragged, recurrent, sparse
from layerprof.flops.counted import Attention, Formula, Operands, Product

Role = Literal["formula", "gather", "softmax", "unknown", "plain"]

FORMULAS: dict[str, Formula] = {
    **sparse.TWO_OF_FOUR,
    **sparse.FORMULAS,  # a formula of dense operands goes before: `count` chooses by the operands
    **dense.FORMULAS,
    **attention.FORMULAS,
    **recurrent.FORMULAS,
    **linear_algebra_operators.FORMULAS,
}
"""Formula by operator name."""

GROUPED = frozenset({"aten::_grouped_mm", "transformers::grouped_mm_fallback"})
"""Products of rows sorted by group with one matrix of a stack each; their `offs` are where the groups end."""

GATHERS = frozenset({"aten::embedding", "aten::index", "aten::index_select", "aten::gather", "aten::embedding_bag"})
SOFTMAXES = frozenset({"aten::_softmax", "aten::_safe_softmax", "aten::softmax"})
KNOWN = frozenset(
    {
        "aten",
        "prim",
        "prims",
        "rngprims",
        "profiler",
        "torchvision",
        "image",
        "inductor",
        "mkldnn",
        "mkl",
        "onednn",
        "cuda",
    }
    | {
        "quantized",
        "_quantized",
        "static_runtime",
        "streams",
        "c10d",
        "c10d_functional",
        "_c10d_functional",
        "fsdp",
        "symm_mem",
    }
)
"""Namespaces in which an operator without a formula is matrix work only if its name says so."""

MATRIX_WORK = re.compile(
    r"(^|_|[a-z0-9])(mm|bmm|matmul|gemm|gemv|rnn|gru|lstm)(_|\d|$)"
    r"|(^|_)q?(linear|mv|dot|inner|outer|ger|kron|bilinear|trilinear|multi_dot|einsum|tensordot)(_|$)"
    r"|conv(_?(1|2|3)d|olution|_tbc|_transpose|_pointwise)|im2col_mm"
    r"|(^|_)(attn|attention|sdpa|multi_head|encoder_layer|fft)(_|$)|scaled_dot_product|fft_\w+"
    r"|(^|_)([cp]dist|euclidean_dist|matrix_(exp|power|rank|norm)|affine_grid_generator)(_|$)"
    r"|(^|_)(lu|ldl|qr|svd\w*|eig\w*|cholesky|geqrf|orgqr|ormqr|householder\w*|lobpcg)(_|$)"
    r"|(^|_)(\w*solve|lstsq|p?inverse|p?inv|tensorinv|s?log_?det|slogdet|logdet|det|cond|nuclear_norm)(_|$)"
    r"|(^|_)(linear_combination|chain_matmul|semi_structured_(mm|addmm|linear)|cov|corrcoef|stft|istft)(_|$)"
)
"""Names that may mean matrix work: products, convolutions, attention, recurrence, linear algebra, Fourier."""
NOT_WORK = re.compile(
    r"prepack|unpack|pack_|reorder|_choice|plan_cache|flatten_weight|upsample|fftfreq|fftshift|resolve_|slice_inverse|erf_inv"
    r"|_thnn_\w+_cell|quantize_weight|conv\w*_(stride|padding|output_padding|dilation|groups|transpose|sizes\w*)$"
)
"""Names among them of what is none: packing, choosing, resampling, and what a cell does with its finished gates."""


def role(name: str, arguments: tuple[str, ...]) -> Role:
    """Say what an operator is to the count, from its full name (`namespace::name`) and its schema's argument names."""
    if formula(name, arguments) is not None:
        return "formula"
    if name in GATHERS:
        return "gather"
    if name in SOFTMAXES:
        return "softmax"
    space, _, own = name.rpartition("::")
    if NOT_WORK.search(own) or (_foreign(space) and quantised.is_plain(name)):
        return "plain"
    return "unknown" if _foreign(space) or MATRIX_WORK.search(own) else "plain"


def _foreign(space: str) -> bool:
    """Tell whether a namespace is of a package that nobody here knows."""
    return bool(space) and space not in KNOWN


def formula(name: str, arguments: tuple[str, ...]) -> Formula | None:
    """Find an operator's formula; attention and products outside torch are told by their operands' names."""
    known = FORMULAS.get(name) or FORMULAS.get(name.removesuffix("_"))
    if known is not None or name.startswith("aten::"):
        return known
    found = attention.by_operands(name, arguments)
    if found is not None or not _foreign(name.rpartition("::")[0]):
        return found
    return quantised.by_operands(name, arguments)


def formula_of_nested(name: str) -> Formula | None:
    """Find the formula of an operator that has one for nested operands alone: with others it is taken apart."""
    return ragged.OWN.get(name)


def count(name: str, usual: Formula, operands: Operands, output: Any) -> Product | Attention | None:
    """Count one call: by stored values where an operand is sparse, by real lengths where one is nested.

    `usual` is the operator's formula. None where it does not know such operands: then nobody knows what was done.
    """
    chosen: Formula | None = usual
    if sparse.NONZEROS in operands:
        chosen = sparse.FORMULAS.get(name) or sparse.FORMULAS.get(name.removesuffix("_"))
    elif ragged.LENGTHS in operands:
        chosen = ragged.OWN.get(name) or (usual if name in ragged.BY_SHAPE else None)
    if chosen is None:
        return None
    try:
        counted = chosen(operands, output)
        return counted if isinstance(counted.flops, int) else None
    except Exception:  # operands that the formula was not made for; the operator is named as not counted
        return None
