"""Sees every operator that torch executes, and hands each to its reader with operands under their schema's names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import torch

from layerprof.flops.counted import Formula
from layerprof.flops.operators import Role, formula, role
from layerprof.machine.internals import answering, schema

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


class Dispatch:
    """Calls `reader(operator, args, kwargs, output)` after each operator that does any work, while it is entered."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._known: dict[Any, Operator] = {}
        self._mode = answering(self._run, higher_order=True)

    def __enter__(self) -> Self:
        self._mode.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._mode.__exit__(kind, error, trace)

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the operator, then let it be read. Composites that reach here (inference mode) are taken apart first."""
        operator = self._known.get(func)
        if operator is None:
            operator = self._known[func] = describe(func)
        if operator.composite and operator.formula is None:
            with self._mode:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        output = func(*args, **kwargs)
        if not operator.view:
            self._reader(operator, args, kwargs, output)
        return output


def describe(func: Any) -> Operator:
    """Look up what an operator is."""
    told = schema(func)
    if told is None:
        name = str(func.name())
        arguments = FLEX_ARGUMENTS if name == "flex_attention" else ()
        kind: Role = "formula" if name == "flex_attention" else "unknown"
        return Operator(name, kind, arguments, formula(name, arguments), view=False, composite=False)
    return Operator(
        name=told.name,
        role=role(told.name, told.arguments),
        arguments=told.arguments,
        formula=formula(told.name, told.arguments),
        view=told.view,
        composite=told.composite,
    )


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
