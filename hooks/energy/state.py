"""A layer call's inputs, kept so that the call can be made again and again: tensors cloned, caches put back each time.

A decoder layer grows its KV cache on every call. A growing cache (`DynamicCache`) makes new tensors, so putting it back
is a matter of references and costs no joules. A cache written in place (`StaticCache`) writes the same slot again once
its position is put back. Only where the values themselves are changed for good (a sliding static cache, the state of a
linear attention) are they copied back, which costs joules and is said.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

SMALL = 4096
"""Elements up to which putting a tensor back by copying is free beside any layer."""

Clone = Callable[[Tensor], Tensor]


def is_cache(value: Any) -> bool:
    """Whether a value is a KV cache (or one layer of it): an object with state and a sequence length."""
    return hasattr(value, "get_seq_length") and hasattr(value, "__dict__") and not isinstance(value, nn.Module)


def cache_indices(module: nn.Module) -> frozenset[int] | None:
    """Return the cache layers a module writes, by transformers' `layer_idx`; None where it does not say."""
    found = {index for part in module.modules() if isinstance(index := getattr(part, "layer_idx", None), int)}
    return frozenset(found) or None


class CallInputs:
    """Arguments of one call as they were before it; `fresh()` gives them again in that state.

    Tensors and caches are cloned when made (`clone` may share clones among layers). Of a cache only the layers in
    `indices` are kept.
    """

    def __init__(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], indices: frozenset[int] | None, clone: Clone
    ) -> None:
        self.caches: list[CacheState] = []
        self._indices = indices
        self._clone = clone
        self.args: tuple[Any, ...] = self._keep(args)
        self.kwargs: dict[str, Any] = self._keep(kwargs)

    def fresh(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments, their caches put back."""
        for cache in self.caches:
            cache.restore()
        return self.args, self.kwargs

    @property
    def copies_state(self) -> bool:
        """Whether each call copies cache contents back, joules that the model itself does not use."""
        return any(cache.copies for cache in self.caches)

    def copy_everything(self) -> None:
        """Put back all that was changed in place by copying, whatever its size."""
        for cache in self.caches:
            cache.limit = None

    def _keep(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._clone(value)
        if is_cache(value):
            state = CacheState(value, self._indices)
            self.caches.append(state)
            return state.working
        if isinstance(value, dict):
            kept = {key: self._keep(x) for key, x in value.items()}
            return type(value)(**kept) if hasattr(value, "to_tuple") else kept
        if isinstance(value, list):
            return [self._keep(x) for x in value]
        if isinstance(value, tuple):
            items = [self._keep(x) for x in value]
            return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
        return value


class CacheState:
    """A cache, a working copy of it, and how to put the working copy back.

    `limit` is the size (elements) above which tensors changed in place are left as they are, None for no limit.
    """

    def __init__(self, cache: Any, indices: frozenset[int] | None) -> None:
        self.limit: int | None = SMALL
        self._indices = indices
        self._parts: list[_Part] = []
        self.working = self._shadow(cache)

    @property
    def copies(self) -> bool:
        """Whether putting back copies more than trifles."""
        return any(part.copies(self.limit) for part in self._parts)

    def restore(self) -> None:
        """Bring the working copy to the state before the call."""
        for part in self._parts:
            part.restore(self.limit)

    def _shadow(self, cache: Any) -> Any:
        """Copy the objects of a cache (not the tensors of layers that the call does not touch)."""
        shadow = copy.copy(cache)
        layers = getattr(cache, "layers", None)
        if isinstance(layers, list):
            kept = range(len(layers)) if self._indices is None else self._indices
            shadow.layers = [self._part(x) if k in kept else x for k, x in enumerate(layers)]
            # A cache whose layers come with their first call must not get them twice.
            return self._held(shadow)
        inner = {name: self._shadow(value) for name, value in vars(cache).items() if is_cache(value)}
        if inner:
            vars(shadow).update(inner)
            return self._held(shadow)
        return self._part(cache)

    def _held(self, shadow: Any) -> Any:
        """Keep what an object that holds caches says of them (which of them are filled, say)."""
        self._parts.append(_Part(shadow, {name: _containers(value) for name, value in vars(shadow).items()}))
        return shadow

    def _part(self, layer: Any) -> Any:
        shadow = copy.copy(layer)
        self._parts.append(_Part(shadow, {name: _cloned(value) for name, value in vars(layer).items()}))
        return shadow


class _Part:
    """One object with its attributes as they were. Tensors changed in place are found after the first call."""

    def __init__(self, shadow: Any, kept: dict[str, Any]) -> None:
        self.shadow = shadow
        self.kept = kept
        self.pristine: dict[int, tuple[Tensor, Tensor]] | None = None
        self._calls = 0

    def restore(self, limit: int | None) -> None:
        self._calls += 1
        if self._calls == 1:
            self._backup = {id(t): (t, t.clone()) for t in _tensors(self.kept)}
        elif self.pristine is None:
            self.pristine = {key: pair for key, pair in self._backup.items() if not _same(*pair)}
            del self._backup
        for tensor, before in (self.pristine or {}).values():
            if limit is None or tensor.numel() <= limit:
                tensor.copy_(before)
        state = vars(self.shadow)
        for name in state.keys() - self.kept.keys():
            del state[name]
        state.update({name: _containers(value) for name, value in self.kept.items()})

    def copies(self, limit: int | None) -> bool:
        return limit is None and any(t.numel() > SMALL for t, _ in (self.pristine or {}).values())


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(torch.equal(a, b))


def _cloned(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, list):
        return [_cloned(x) for x in value]
    if isinstance(value, dict):
        return {key: _cloned(x) for key, x in value.items()}
    return value


def _containers(value: Any) -> Any:
    """Copy lists and dicts, not what is in them: a call may append to them."""
    if isinstance(value, list):
        return [_containers(x) for x in value]
    if isinstance(value, dict):
        return {key: _containers(x) for key, x in value.items()}
    return value


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for x in value:
            yield from _tensors(x)
    elif isinstance(value, dict):
        for x in value.values():
            yield from _tensors(x)


def outputs(value: Any) -> list[Tensor]:
    """Return the tensors of a call's output, in order; those inside caches left out."""
    if hasattr(value, "to_tuple"):
        value = value.to_tuple()
    return list(_tensors(value))


def difference(found: list[Tensor], wanted: list[Tensor]) -> float:
    """Return the largest absolute difference over the largest absolute value wanted; infinite for other shapes."""
    if [t.shape for t in found] != [t.shape for t in wanted]:
        return float("inf")
    worst = 0.0
    for a, b in zip(found, wanted, strict=True):
        if b.numel():
            x, y = a.float(), b.float()
            # Rows of padding may be NaN in both; NaN in one of them is no agreement.
            apart = torch.where(x.isnan() & y.isnan() | (x == y), 0.0, (x - y).abs()).nan_to_num(nan=float("inf"))
            scale = float(y[y.isfinite()].abs().max()) if bool(y.isfinite().any()) else 0.0
            worst = max(worst, float(apart.max()) / (scale or 1.0))
    return worst
