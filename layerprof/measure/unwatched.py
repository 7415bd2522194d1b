"""Where operators cannot be watched: reasons in words, empty where they can.

Compiled code runs compiled while it is watched (`internals.answering`), but fuses operators out of sight: what is seen
of it may be all of its products, or none.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import suppress
from types import AsyncGeneratorType, CoroutineType, FunctionType, GeneratorType, MethodType
from typing import TYPE_CHECKING, Any

from layerprof.machine.internals import attention_of, compiled_function, compiled_itself, innermost_mode
from layerprof.machine.modules import told

if TYPE_CHECKING:
    from torch import nn


def compiled(model: nn.Module) -> str:
    """Return why no call of this model can be watched."""
    if not any(_compiled_parts(model)):
        return ""
    return (
        "parts of the model are compiled, or call what is, and compiled code fuses operators out of sight; "
        "LayerProfiler(model, flops='rerun') counts them in a repeat"
    )


def _compiled_parts(model: nn.Module) -> Iterator[bool]:
    asked: set[int] = set()
    for module in model.modules():
        yield compiled_itself(module) or any(map(compiled_function, vars(module).values()))
        forward = inspect.getattr_static(type(module), "forward", None)
        if id(forward) not in asked:
            asked.add(id(forward))
            yield compiled_function(forward) or any(map(compiled_function, _named_in(forward)))
        yield attention_of(told(module, "config")) == "flex_attention"  # which transformers compiles


def _named_in(function: object) -> Iterator[object]:
    """Yield what a function's code names: of its closure, and of its module."""
    if not isinstance(function, FunctionType):
        return
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # not filled yet
            yield cell.cell_contents
    for name in function.__code__.co_names:
        yield function.__globals__.get(name)


def tracing() -> str:
    """Return why nothing can be watched now: calls are being taken down, not made. Empty where they are made."""
    mode = innermost_mode()
    if mode is not None and mode.is_infra_mode():
        return "torch was tracing the model"
    return "a CUDA graph was being captured" if capturing() else ""


def capturing() -> bool:
    """Tell whether what runs now is being captured into a CUDA graph."""
    import torch

    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def compiles_itself(model: nn.Module, kwargs: Mapping[str, Any]) -> str:
    """Return why `generate` cannot be watched: with a cache of fixed length it may compile the model. Else empty."""
    if kwargs.get("disable_compile"):
        return ""
    configs = (
        kwargs,
        vars(kwargs.get("generation_config") or object),
        vars(told(model, "generation_config", object)),
    )
    kind = next((found for config in configs if (found := config.get("cache_implementation"))), None)
    return (
        f"`generate` compiles the model for a cache of the kind {kind}" if kind and "dynamic" not in str(kind) else ""
    )


def later(output: Any) -> bool:
    """Tell whether an answer is one that does its work after the call: a generator, a coroutine, a function."""
    kinds = (GeneratorType, CoroutineType, AsyncGeneratorType, FunctionType, MethodType)
    return isinstance(output, kinds)
