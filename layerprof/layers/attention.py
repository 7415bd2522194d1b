"""Which attention each tower of a live model runs, read off the very modules that run it.

What a configuration asks for is not always what runs: modules of some families compute attention themselves, whatever
they are told, and torch's own has its own ways. A module that chooses by its configuration at every call names
transformers' `get_interface` in its code; of any other, its code tells what it calls.
"""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import TYPE_CHECKING

from layerprof.attention import ours
from layerprof.layers.blocks import Blocks
from layerprof.layers.towers import Towers
from layerprof.layers.tree import Tree, ancestors
from layerprof.machine import internals
from layerprof.machine.modules import told
from layerprof.records import Tower

if TYPE_CHECKING:
    from torch import nn

CHOOSES = "get_interface"
ATTENDS = re.compile(r"att(entio)?n", re.I)
FLASH = re.compile(r"flash_attn|_flash_attention_forward")
SOFTMAX = re.compile(r"softmax", re.I)
TORCH = "nn.MultiheadAttention"
"""torch's own module, which fuses or not, by what it is asked at each call."""


class AttentionModules:
    """The modules of a model that compute attention, by tower; found once, asked as often as wanted."""

    def __init__(self, model: nn.Module) -> None:
        self._found: list[tuple[Tower, nn.Module, str]] = []
        tree = Tree(model)
        towers = Towers(tree)
        blocks = Blocks(tree, towers)
        units = {*blocks.names, *blocks.rest}
        for name, module in tree.modules.items():
            if how := _how(module, tree.kind_of(name)):
                # A part has the tower of the layer that it lies in: a connector's attention that of the connector.
                layer = next((place for place in ancestors(name) if place in units), name)
                self._found.append((towers.tower(layer), module, how))

    def now(self) -> dict[Tower, Counter[str]]:
        """Return how many modules of each tower run which implementation, by our names, as they stand now."""
        counted: dict[Tower, Counter[str]] = {}
        for tower, module, how in self._found:
            name = how
            if how == CHOOSES:
                name = ours(internals.attention_of(told(module, "config")) or "eager")
            counted.setdefault(tower, Counter())[name] += 1
        return counted


def attention(model: nn.Module) -> dict[Tower, str]:
    """Return the attention of each tower that has any; where a tower mixes several, all: `sdpa + eager`."""
    return joined(AttentionModules(model).now())


def joined(counted: dict[Tower, Counter[str]]) -> dict[Tower, str]:
    """Return the names of each tower's implementations, vision first, the commonest first."""
    order: tuple[Tower, ...] = ("vision", "language")
    return {tower: " + ".join(name for name, _ in counted[tower].most_common()) for tower in order if tower in counted}


def _how(module: nn.Module, kind: str) -> str:
    """Return `CHOOSES` for a module that goes by its configuration, else what it calls; empty where it does not attend.

    Of two ways in one module, timm's `fused_attn` tells which is taken.
    """
    if kind == "MultiheadAttention":
        return TORCH
    names = set(_names(internals.uncompiled(module)))
    if CHOOSES in names:
        return CHOOSES
    fused = "scaled_dot_product_attention" in names
    softmax = any(map(SOFTMAX.search, names)) and bool(ATTENDS.search(kind))
    if fused and softmax:
        which = told(module, "fused_attn")
        return "sdpa or eager" if which is None else "sdpa" if which else "eager"
    if any(map(FLASH.search, names)):
        return "flash"
    return "sdpa" if fused else "eager" if softmax else ""


def _names(module: nn.Module) -> Iterator[str]:
    """Yield what the code of a module's `forward` names, and that of what it calls of its own class and file."""
    kind = type(module)
    forward = _function(inspect.getattr_static(kind, "forward", None))
    if forward is None:
        return
    for name in _named(forward.__code__):
        yield name
        called = _function(inspect.getattr_static(kind, name, forward.__globals__.get(name)))
        if called is not None and (called.__module__ == forward.__module__ or name in dir(kind)):
            yield from _named(called.__code__)


def _function(thing: object) -> FunctionType | None:
    """Return a function behind its decorators; None for anything else."""
    if isinstance(thing, (staticmethod, classmethod)):
        thing = thing.__func__
    found = inspect.unwrap(thing) if isinstance(thing, FunctionType) else None
    return found if isinstance(found, FunctionType) else None


def _named(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _named(constant)
