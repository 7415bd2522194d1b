"""Any value as a flat dict of texts, path by path: two runs are the same where two dicts are.

Tensors stand with their bits, dtype, layout, strides, gradient and what they share memory with; objects that were met
before stand as the path of the first meeting, so that aliasing is compared, too.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import re
from collections.abc import Mapping
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch.nn.parameter import is_lazy

Facts = dict[str, str]

PLAIN = (int, float, complex, str, bytes, bool, type(None), torch.dtype, torch.device, torch.layout, torch.Size, range)
NUMBERED = ("_hooks", "_hooks_with_kwargs", "_hooks_always_called", "_pre_hooks")
"""Ends of names of dicts whose keys are torch's running numbers."""


def freeze(**roots: Any) -> Facts:
    """Return the facts of some values, under their names; they share one memory of what was met."""
    walk = _Walk()
    for name, value in roots.items():
        walk.value(name, value)
    return walk.facts


def bits(value: Any) -> str:
    """Return a digest of an array's or tensor's values, bit for bit."""
    if isinstance(value, Tensor):
        plain = value.detach().as_subclass(Tensor).cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
        value = plain.view(torch.uint8).numpy()
    return hashlib.md5(np.ascontiguousarray(value).tobytes()).hexdigest()[:12]


def code_of(function: Any) -> str:
    """Return where a function was written: wrappers take over names, not this."""
    code = getattr(function, "__code__", None)
    if isinstance(code, CodeType):
        return re.sub(r"<eval_with_key>\.\d+", "<made by torch.fx>", f"{code.co_filename}:{code.co_firstlineno}")
    return str(getattr(function, "__qualname__", type(function).__name__))


class _Walk:
    def __init__(self) -> None:
        self.facts: Facts = {}
        self._met: dict[int, str] = {}
        self._memory: dict[int, str] = {}
        self._kept: list[Any] = []

    def value(self, path: str, value: Any) -> None:
        """Note one value and all inside it."""
        if isinstance(value, PLAIN):
            self.facts[path] = f"{type(value).__name__} {value!r}"
            return
        if id(value) in self._met:
            self.facts[path] = f"is {self._met[id(value)]}"
            return
        self._met[id(value)] = path
        self._kept.append(value)
        self.facts[path] = f"{type(value).__module__}.{type(value).__qualname__}"
        self._inside(path, value)

    def _inside(self, path: str, value: Any) -> None:
        if isinstance(value, Tensor):
            self._tensor(path, value)
        elif isinstance(value, nn.Module):
            self._module(path, value)
        elif isinstance(value, np.ndarray):
            self.facts[path] += f" {value.dtype} {value.shape} {bits(value)}"
        elif isinstance(value, BaseException):
            self._error(path, value)
        elif isinstance(value, (FunctionType, BuiltinFunctionType, type)):
            self.facts[path] += f" {code_of(value)}"
        elif isinstance(value, (MethodType, functools.partial)):
            parts = ("__func__", "__self__", "func", "args", "keywords")
            self._items(path, {part: getattr(value, part) for part in parts if hasattr(value, part)})
        elif isinstance(value, (Mapping, list, tuple)):
            self._items(path, value if isinstance(value, Mapping) else dict(enumerate(value)))
        elif isinstance(value, (set, frozenset)):
            self.facts[path] += f" {sorted(map(repr, value))}"
        elif isinstance(value, torch.Generator):
            self.facts[path] += f" {bits(value.get_state())}"
        elif dataclasses.is_dataclass(value):
            self._items(path, {field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
        elif not type(value).__module__.startswith(("torch", "_io")) and hasattr(value, "__dict__"):
            self._items(path, vars(value))

    def _items(self, path: str, items: Mapping[Any, Any]) -> None:
        self.facts[path] += f" keys {[*items]!r}"
        for key, value in items.items():
            self.value(f"{path}.{key}", value)

    def _error(self, path: str, error: BaseException) -> None:
        self.facts[path] += f" {error!s} {getattr(error, '__notes__', [])}"
        for name, other in (("cause", error.__cause__), ("context", error.__context__)):
            self.value(f"{path}.{name}", other)

    # --- tensors ----------------------------------------------------------------------------------------------

    def _tensor(self, path: str, x: Tensor) -> None:
        if is_lazy(x):
            return
        told = [str(x.dtype), str(x.layout), str(x.device), "" if x.is_nested else str(tuple(x.shape))]
        told += ["grad"] * x.requires_grad + ["inference"] * x.is_inference()
        if x.grad_fn is not None:
            told.append(x.grad_fn.name())
        self.facts[path] += " " + " ".join(told)
        if x.is_leaf and x.grad is not None:
            self.value(f"{path}.grad", x.grad)
        self._values(path, x)

    def _values(self, path: str, x: Tensor) -> None:
        """Note bits and memory, of the parts where a tensor has parts."""
        if isinstance(x, FakeTensor) or x.device.type == "meta":
            return
        parts: dict[str, Any] = {}
        if x.is_nested:
            parts = dict(enumerate(x.detach().unbind()))  # type: ignore[arg-type]  # numbers are as good as names
        elif x.layout is torch.sparse_coo:
            parts = {"indices": x.detach()._indices(), "values": x.detach()._values()}
        elif x.layout is torch.sparse_csr:
            parts = {"rows": x.crow_indices(), "columns": x.col_indices(), "values": x.detach().values()}
        elif x.is_quantized:
            parts = {"ints": x.int_repr(), "scale": x.q_scale(), "zero": x.q_zero_point()}
        if parts:
            self._items(path, parts)
            return
        memory = self._memory.setdefault(x.untyped_storage()._cdata, path)
        where = f"memory of {memory}" if memory != path else ""
        self.facts[path] += f" strides {x.stride()} from {x.storage_offset()} {where} bits {bits(x)}"
        if x.numel() <= 8:
            self.facts[path] += f" {x.detach().as_subclass(Tensor).tolist()}"

    # --- modules ----------------------------------------------------------------------------------------------

    def _module(self, path: str, module: nn.Module) -> None:
        own = vars(module)
        self.facts[path] += f" forward {code_of(type(module).__dict__.get('forward'))}"
        if isinstance(module, torch.jit.ScriptModule):
            own = dict(module.named_parameters()) | dict(module.named_buffers())
        for name, value in own.items():
            if name == "_torchdynamo_wrapper_id":  # an id, another one each time
                continue
            if name.endswith(NUMBERED) and isinstance(value, Mapping):
                self.value(f"{path}.{name}", list(value.values()))
            else:
                self.value(f"{path}.{name}", value)
