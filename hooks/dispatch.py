"""Sees every operator that torch executes, and hands each to its reader with operands under their schema's names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from time import perf_counter
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from layerprof.flops.counted import Formula
from layerprof.flops.operators import Role, formula, formula_of_nested, role
from layerprof.machine.internals import answering, innermost_mode, modes_aside, schema, unseen

FLEX_ARGUMENTS = ("query", "key", "value", "score_mod", "block_mask", "scale", "kernel_options")


@dataclass(frozen=True, slots=True)
class Operator:
    """What is known of an operator before it runs. `view` operators only look at their operand's memory.

    `written` are the arguments whose memory it changes.
    """

    name: str
    role: Role
    arguments: tuple[str, ...]
    formula: Formula | None
    view: bool
    composite: bool
    written: tuple[str, ...] = ()

    def operands(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Name the operands by the schema."""
        return dict(zip(self.arguments, args, strict=False)) | kwargs


Reader = Callable[[Operator, tuple[Any, ...], dict[str, Any], Any, float], None]
"""Called with (operator, args, kwargs, output, host seconds inside the operator)."""

Guard = Callable[[Operator, tuple[Any, ...], dict[str, Any]], None]
"""Called with (operator, args, kwargs) before an operator runs; what it raises keeps it from running."""


class Dispatch:
    """Calls `reader` after each operator that does any work, while it is entered, on the thread that entered it.

    Operators run as they would without it: what they give, and what they raise, is theirs. The reader's own errors are
    kept in `failure` (the last one), and never raised. `spent_s` is what all this took beside the operators. A `guard`
    is asked before an operator that writes. With `views`, the reader is called after those that only look, too.
    """

    def __init__(self, reader: Reader, *, views: bool = False) -> None:
        self._reader = reader
        self._views = views
        self.guard: Guard | None = None
        self._reading: Callable[[], AbstractContextManager[Any]] = unseen
        # By identity, since an operator's hash is Python's own; each stands beside what is known of it, to stay.
        self._known: dict[int, tuple[Operator, Any]] = {}
        self._mode = answering(self._run, higher_order=True)
        self.spent_s = 0.0
        self.failure: Exception | None = None

    def __enter__(self) -> Self:
        outer = innermost_mode()
        # Reading a mask runs operators of its own: for the user's modes they are none. Ghosts need theirs (`estimate`).
        self._reading = unseen if outer is None or getattr(outer, "ours", False) else modes_aside
        self._mode.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._mode.__exit__(kind, error, trace)

    def _describe(self, func: Any) -> Operator:
        operator = describe(func)
        self._known[id(func)] = operator, func
        return operator

    def on_top(self) -> bool:
        """Tell whether no other mode was entered since."""
        return innermost_mode() is self._mode

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the operator, then let it be read.

        Composites that reach here (inference mode) are taken apart first, but for nested operands of strided layout,
        for which torch has kernels of its own. Subclasses of tensors take their operators apart themselves, into ones
        that come here again; only what has a formula as a whole (a quantised product) is left whole. Sizes of nested
        ones are no numbers, so that nothing of them is counted as a whole.
        """
        came = perf_counter()
        subclass = _subclass_in(args, kwargs)
        if subclass is not None and subclass.is_nested:
            return NotImplemented
        known = self._known.get(id(func))
        operator = known[0] if known is not None else self._describe(func)
        if self.guard is not None and operator.written:
            self.guard(operator, args, kwargs)
        if subclass is not None and operator.formula is None:
            return NotImplemented
        if operator.composite and operator.formula is None:
            if _nested_in(args, kwargs):
                operator = _whole(operator)
            else:
                with self._mode:
                    result = func.decompose(*args, **kwargs)
                if result is not NotImplemented:
                    return result
        began = perf_counter()
        output = func(*args, **kwargs)
        ended = perf_counter()
        if self._views or not operator.view:
            try:
                with self._reading():
                    self._reader(operator, args, kwargs, output, ended - began)
            except Exception as failure:  # the user's call goes on, whatever befalls its observer
                self.failure = failure
        self.spent_s += began - came + perf_counter() - ended
        return output


PLAIN = (Tensor, nn.Parameter)
"""Types of tensors that take nothing apart; a type that is neither is asked."""


def _subclass_in(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """Return an operand that answers operators itself, None where there is none."""
    for value in (*args, *kwargs.values()) if kwargs else args:
        if type(value) in PLAIN:
            continue
        for part in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(part, Tensor) and type(part) not in PLAIN and _answers(type(part)):
                return part
    return None


def _answers(kind: Any) -> bool:
    """Tell whether a type of tensors answers operators itself; torch's own without inner tensors only follow them."""
    own = kind.__torch_dispatch__ is not Tensor.__torch_dispatch__
    return hasattr(kind, "__tensor_flatten__") or (own and not kind.__module__.startswith("torch."))


def _nested_in(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Tell whether an operand is nested."""
    return any(isinstance(value, Tensor) and value.is_nested for value in (*args, *kwargs.values()))


def _whole(operator: Operator) -> Operator:
    """Return what is known of a composite that is not taken apart, since its operands are nested."""
    known = formula_of_nested(operator.name)
    return operator if known is None else replace(operator, role="formula", formula=known)


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
        written=told.written,
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
