"""Operands of an operator as formulas take them: tensors as shapes, and what a formula's result depends on as a key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from layerprof.flops.counted import Operands
from layerprof.flops.linear_algebra import exponential_products
from layerprof.flops.linear_algebra_operators import PRODUCTS
from layerprof.flops.ragged import LENGTHS, Sizes, behind_one_another
from layerprof.flops.sparse import MULTIPLIED, NONZEROS
from layerprof.machine.internals import component_sizes, modes_aside, stored_indices, stored_values

ORDINARY = frozenset({Tensor, nn.Parameter})
DENSE = torch.strided
NO_VALUES: Mapping[str, int] = {}
PLAIN = (int, float, bool, str, type(None))
SPARSE = frozenset(
    {torch.sparse_coo, torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc}
)  # fmt: skip


def shapes(operands: Operands, values: Mapping[str, int] = NO_VALUES) -> dict[str, Any]:
    """Replace tensors by their shapes, lists by tuples, and add what shapes do not tell.

    That is of sparse operands how many values they store, of nested ones their components' sizes, and what `values`
    decide (see `measured`).
    """
    found: dict[str, Any] = {key: _shape(value) for key, value in operands.items()}
    tensors = {key: value for key, value in operands.items() if isinstance(value, Tensor)}
    nonzeros = {key: stored for key, value in tensors.items() if (stored := _stored(value)) is not None}
    lengths = {key: _sizes(value) for key, value in tensors.items() if value.is_nested}
    if nonzeros:
        found[NONZEROS] = nonzeros
    if lengths:
        found[LENGTHS] = lengths
    return found | dict(values)


def signature(operands: Operands, values: Mapping[str, int] = NO_VALUES) -> tuple[Any, ...]:
    """Return what a formula's result depends on, hashable: what `shapes` gives, numbers and lists of them."""
    key = (*operands, *(_key(value) for value in operands.values()))
    return (*key, *values.items()) if values else key


def output_shape(output: Any) -> tuple[int, ...]:
    """Shape of an operator's (first) output."""
    first = output[0] if isinstance(output, (tuple, list)) and output else output
    return _shape(first) if isinstance(first, Tensor) else ()


# --- one operand ------------------------------------------------------------------------------------------------


def _shape(value: Any) -> Any:
    if isinstance(value, Tensor):
        if not value.is_nested:
            return tuple(value.shape)
        sizes = _sizes(value)
        return tuple(value.values().shape) if sizes is None else behind_one_another(sizes)
    return tuple(_shape(part) for part in value) if isinstance(value, (list, tuple)) else value


def _key(value: Any) -> Any:
    if type(value) in ORDINARY and value.layout is DENSE and not value.is_nested:  # nearly all: this is asked often
        return value.shape
    if isinstance(value, Tensor):
        if value.is_nested:
            return _shape(value), _sizes(value)
        stored = _stored(value)
        return tuple(value.shape) if stored is None else (tuple(value.shape), stored)
    if isinstance(value, PLAIN):
        return value
    return tuple(_key(part) for part in value) if isinstance(value, (list, tuple)) else None


def _sizes(tensor: Tensor) -> Sizes | None:
    """Sizes of a nested tensor's components; None of a jagged one, whose lengths stand on its device."""
    return None if tensor.layout is torch.jagged else component_sizes(tensor)


def _stored(tensor: Tensor) -> int | None:
    """Values that a sparse tensor stores: two of four, elements, or all elements of its blocks; None of a dense one."""
    if tensor.layout in SPARSE:
        return stored_values(tensor)
    if type(tensor) is not Tensor and isinstance(tensor, torch.sparse.SparseSemiStructuredTensor):
        return tensor.numel() // 2
    return None


# --- what values decide -----------------------------------------------------------------------------------------


def measured(operands: Operands, name: str) -> Mapping[str, int]:
    """Read what decides the work of some operators beside shapes; {} for others, and where values cannot be read.

    Two sparse matrices multiply where their indices meet; a matrix exponential takes products by the matrices' norms.
    No mode of torch sees the reading. Nothing is read while a CUDA graph is captured, which reading would break, or of
    tensors without values.
    """
    reader = READERS.get(name)
    if reader is None:
        return NO_VALUES
    try:
        with modes_aside():
            return reader(operands)
    except Exception:  # fake tensors, and those of functional transforms, give no values
        return NO_VALUES


def _exponential(operands: Operands) -> dict[str, int]:
    matrices: Tensor = operands["self"]
    if matrices.numel() == 0 or not _readable(matrices):
        return {}
    norms = matrices.detach().abs().sum(-2).amax(-1).flatten().tolist()
    double = matrices.dtype not in (torch.float32, torch.complex64)
    return {PRODUCTS: exponential_products(norms, double=double)}


def _two_sparse(first: str, second: str) -> Callable[[Operands], dict[str, int]]:
    def read(operands: Operands) -> dict[str, int]:
        a, b = operands[first], operands[second]
        if a.layout not in SPARSE or b.layout not in SPARSE or not _readable(a):
            return {}
        (_, inner_a), (inner_b, _) = stored_indices(a), stored_indices(b)
        met = torch.bincount(inner_a, minlength=a.shape[-1]) * torch.bincount(inner_b, minlength=b.shape[-2])
        return {MULTIPLIED: int(met.sum())}

    return read


def _readable(tensor: Tensor) -> bool:
    return not tensor.is_meta and not (tensor.is_cuda and torch.cuda.is_current_stream_capturing())


READERS: dict[str, Callable[[Operands], dict[str, int]]] = {
    "aten::linalg_matrix_exp": _exponential,
    "aten::mm": _two_sparse("self", "mat2"),
    "aten::_sparse_mm": _two_sparse("sparse", "dense"),
    "aten::_sparse_sparse_matmul": _two_sparse("self", "other"),
    **dict.fromkeys(("aten::addmm", "aten::_sparse_addmm"), _two_sparse("mat1", "mat2")),
}
