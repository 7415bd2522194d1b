"""Where operators cannot be watched without changing what is computed: reasons in words, empty where they can."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
        "parts of the model are compiled, and torch would run them another way while their operators are watched; "
        "LayerProfiler(model, flops='rerun') counts them in a repeat"
    )


def _compiled_parts(model: nn.Module) -> Iterator[bool]:
    for module in model.modules():
        yield compiled_itself(module) or any(map(compiled_function, vars(module).values()))
        yield attention_of(told(module, "config")) == "flex_attention"  # which transformers compiles


def tracing() -> str:
    """Return why nothing can be watched now: calls are being taken down, not made. Empty where they are made."""
    import torch

    mode = innermost_mode()
    if mode is not None and mode.is_infra_mode():
        return "torch was tracing the model"
    if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
        return "a CUDA graph was being captured"
    return ""


def compiles_itself(model: nn.Module, kwargs: Mapping[str, Any]) -> str:
    """Return why `generate` cannot be watched: with a cache of fixed length it may compile the model. Else empty."""
    configs = (
        kwargs,
        vars(kwargs.get("generation_config") or object),
        vars(told(model, "generation_config", object)),
    )
    kind = next((found for config in configs if (found := config.get("cache_implementation"))), None)
    return (
        f"`generate` compiles the model for a cache of the kind {kind}" if kind and "dynamic" not in str(kind) else ""
    )
