"""Stands around the `forward` of every module of a model: of the located layers, and of what lies around them.

Copies of a module have nothing of it (`models.patch`), compilers see through it, and what goes wrong in it is kept,
never raised into the call.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import get_ident
from typing import Any, Self

import torch
from layerprof.hooks.base import LayerHook
from layerprof.hooks.phases import PhaseReader
from torch import nn

from layerprof.machine.internals import unseen
from layerprof.machine.modules import is_called
from layerprof.models.patch import Forward, Laid, Replaced, steady
from layerprof.readings import Layer
from layerprof.records import Phase


@dataclass(frozen=True, slots=True)
class Around:
    """What is done around a module's call: the phase is read, and, where it is watched, a frame opened and closed.

    A call on another thread than the watched one is only noted, `elsewhere`.
    """

    reader: PhaseReader | None
    opening: Callable[[tuple[Any, ...], dict[str, Any]], None]
    leaving: Callable[[Any], None]
    ended: Callable[[], None]
    elsewhere: Callable[[], None]


class Following(LayerHook, ABC):
    """Follows the calls of all modules while it is `_watched`, on the thread that watches."""

    def __init__(self, model: nn.Module, layers: Sequence[Layer]) -> None:
        super().__init__(model, layers)
        self._watched: bool = False
        self._thread = 0
        self._failure: Exception | None = None

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            self._attach_outside()
        except BaseException:
            self.detach()
            raise
        return self

    def _attach(self, slot: int, layer: Layer, module: nn.Module) -> None:
        self._handles.append(Replaced(module, self._standing(self._layer(slot, layer, module))))

    def _attach_outside(self) -> None:
        """Follow the modules around the layers, so that work between layers has a name."""
        located = {layer.name: layer.tower for layer in self.layers if layer.found}
        for name, module in self.model.named_modules():
            if not is_called(module) or any(name == x or name.startswith(x + ".") or not x for x in located):
                continue
            vision = _towers_around(name, located) == {"vision"}
            frame = (name or type(module).__name__, Phase.VISION if vision else None)
            self._handles.append(Replaced(module, self._standing(self._path(*frame))))

    @contextmanager
    def _attending(self, *, to: bool = True) -> Iterator[None]:
        """Follow what this thread calls inside the context; `to=False` follows nothing there."""
        before, self._watched, self._thread = self._watched, to, get_ident()
        try:
            yield
        finally:
            self._watched = before

    @abstractmethod
    def _layer(self, slot: int, layer: Layer, module: nn.Module) -> Around:
        """Return what is done around a layer's calls."""

    @abstractmethod
    def _path(self, path: str, phase: Phase | None) -> Around:
        """Return what is done around the calls of a module outside the layers."""

    def _standing(self, around: Around) -> Callable[[Forward], Forward]:
        """Return what makes a followed `forward` out of a module's own; the observer's errors are kept, not raised."""
        reader, guarded, compiling = around.reader, self._guarded, torch.compiler.is_dynamo_compiling

        def make(forward: Forward) -> Forward:
            def followed(_laid: Laid, *args: Any, **kwargs: Any) -> Any:
                if compiling():  # another thing than the module's own in a graph would break it
                    return forward(*args, **kwargs)
                if reader is not None:  # the phase is to be known when watching begins within a batch
                    reader(args, kwargs)
                if not self._watched:
                    return forward(*args, **kwargs)
                if get_ident() != self._thread:
                    guarded(around.elsewhere)
                    return forward(*args, **kwargs)
                guarded(around.opening, args, kwargs)
                try:
                    output = forward(*args, **kwargs)
                    guarded(around.leaving, output)
                    return output
                finally:
                    guarded(around.ended)

            return followed

        return make

    def _guarded(self, work: Callable[..., None], *args: Any) -> None:
        try:
            with unseen():
                work(*args)
        except Exception as failure:  # the call is the user's, and goes on
            self._failure = failure


def positional(module: nn.Module) -> tuple[str, ...]:
    """Return the names of a module's positional inputs; none where its `forward` does not tell."""
    if not steady(module, "forward"):
        return ()
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (AttributeError, TypeError, ValueError):
        return ()
    named = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(parameter.name for parameter in parameters if parameter.kind in named)


def _towers_around(name: str, located: dict[str, str]) -> set[str]:
    """Towers of the layers in the nearest surroundings of a module that hold any."""
    while True:
        prefix = name + "." if name else ""
        towers = {tower for layer, tower in located.items() if layer.startswith(prefix)}
        if towers or not name:
            return towers
        name = name.rpartition(".")[0]
