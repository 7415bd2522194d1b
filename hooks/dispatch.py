"""Sees every operator that torch executes, and hands each to its reader with operands under their schema's names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._ops import HigherOrderOperator, OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from layerprof.flops.operators import Formula, Operands, Role, formula, role

FLEX_ARGUMENTS = ("query", "key", "value", "score_mod", "block_mask", "scale", "kernel_options")


@dataclass(frozen=True, slots=True)
class Operator:
    """What is known of an operator before it runs. `view` operators only look at their operand's memory."""

    name: str
    role: Role
    arguments: tuple[str, ...]
    formula: Formula | None
    view: bool
    composite: bool

    def operands(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Name the operands by the schema."""
        return dict(zip(self.arguments, args, strict=False)) | kwargs


Reader = Callable[[Operator, tuple[Any, ...], dict[str, Any], Any], None]


class Dispatch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's metaclass hook has no types
    """Calls `reader(operator, args, kwargs, output)` after each operator that does any work."""

    supports_higher_order_operators = True

    def __init__(self, reader: Reader) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # untyped there
        self._reader = reader
        self._known: dict[Any, Operator] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operator, then let it be read. Composites that reach here (inference mode) are taken apart first."""
        kwargs = kwargs or {}
        operator = self._known.get(func)
        if operator is None:
            operator = self._known[func] = describe(func)
        if operator.composite and operator.formula is None:
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        output = func(*args, **kwargs)
        if not operator.view:
            self._reader(operator, args, kwargs, output)
        return output


def describe(func: Any) -> Operator:
    """Look up what an operator is."""
    if isinstance(func, HigherOrderOperator):
        name = str(func.name())  # type: ignore[no-untyped-call]  # untyped there
        arguments = FLEX_ARGUMENTS if name == "flex_attention" else ()
        told: Role = "formula" if name == "flex_attention" else "unknown"
        return Operator(name, told, arguments, formula(name, arguments), view=False, composite=False)
    schema = func._schema
    arguments = tuple(argument.name for argument in schema.arguments)
    aliases = [argument.alias_info for argument in schema.arguments if argument.alias_info is not None]
    view = bool(aliases) and not any(alias.is_write for alias in aliases)
    found = formula(schema.name, arguments)
    return Operator(schema.name, role(schema.name, arguments), arguments, found, view, _is_composite(func))


def _is_composite(func: OpOverload) -> bool:
    name = func.name()  # type: ignore[no-untyped-call]  # untyped there
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(name, "CompositeImplicitAutograd"))


def shapes(operands: Operands) -> dict[str, Any]:
    """Replace tensors by their shapes."""
    return {name: tuple(v.shape) if isinstance(v, Tensor) else v for name, v in operands.items()}


def signature(operands: Operands) -> tuple[Any, ...]:
    """Return what a formula's result depends on, hashable: shapes and plain numbers."""
    plain = (int, float, bool, str, type(None))
    return tuple(
        tuple(value.shape) if isinstance(value, Tensor) else value if isinstance(value, plain) else None
        for value in operands.values()
    )


def output_shape(output: Any) -> tuple[int, ...]:
    """Shape of an operator's (first) output."""
    first = output[0] if isinstance(output, (tuple, list)) and output else output
    return tuple(first.shape) if isinstance(first, Tensor) else ()


@contextmanager
def operators_visible() -> Iterator[None]:
    """Make torch execute operator by operator: compiled functions run eagerly, fused encoder layers unfused.

    A dispatch mode sees nothing inside a compiled region; the operators' shapes are the same without compilation.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
