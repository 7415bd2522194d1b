"""The module tree of a model, and the repeated blocks in it, told by structure alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

from layerprof.machine import internals
from layerprof.machine.modules import is_called, is_uninitialised
from layerprof.machine.stored import of_module, size

if TYPE_CHECKING:
    from torch import Tensor, nn

MIXES_POSITIONS = re.compile(r"att(entio)?n|mixer|mamba|ssm|rwkv|retention|hyena|recurrent|lstm|gru|fourier", re.I)
CONNECTS_TOWERS = re.compile(
    r"merger|projector|connector|connection|resampler|perceiver|q_?former|adapter|aligner|abstractor|(^|_)mm_|multi_?modal"
    r"|vision_proj|visual_proj|image_proj|language_proj|enc_to_dec",
    re.I,
)


class Tree:
    """The module tree of a model, with what its parts contain."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.modules: dict[str, nn.Module] = dict(model.named_modules())
        self.children: dict[str, list[str]] = {name: [] for name in self.modules}
        for name in self.modules:
            if name:
                self.children[name.rpartition(".")[0]].append(name)

    @cached_property
    def blocks(self) -> tuple[str, ...]:
        """Names of the repeated blocks, in module order."""
        lists = list(self._block_lists("", strong=True))
        size = self.parameters("")
        covered = {parent for parent, _ in lists}
        for parent, members in self._block_lists("", strong=False):
            large = sum(self.parameters(m) for m in members) >= 0.2 * size
            apart = not any(is_under(c, parent) or is_under(parent, c) for c in covered)
            if not lists or (large and apart):
                lists.append((parent, members))
        found = {m for _, members in lists for m in members}
        return tuple(name for name in self.modules if name in found)

    def _block_lists(self, name: str, strong: bool) -> Iterator[tuple[str, list[str]]]:
        """Yield (parent, members) of the outermost lists of blocks below `name`; stages are entered."""
        kids = self.children[name]
        members = [k for k in kids if self._may_be_block(k, strong)]
        listed = self._is_list(name) or self._is_sequence(name)
        repeated = len({self.kind_of(m) for m in members}) < len(members)
        enough = (repeated or (listed and strong)) and not CONNECTS_TOWERS.search(name)
        if members and enough and not (strong and all(self._is_stage(m) for m in members)):
            members = [k for k in kids if k in members or self._belongs_to(name, k, members)]
            yield name, members
            kids = [k for k in kids if k not in members]
        for kid in kids:
            if not CONNECTS_TOWERS.search(kid):
                yield from self._block_lists(kid, strong)

    def _belongs_to(self, parent: str, name: str, members: list[str]) -> bool:
        """Tell whether a module beside blocks is one of them, although it does not look like one.

        Hybrid decoders mix kinds of layers in one list: attention beside convolutions (LFM) or state spaces (Zamba).
        """
        if self.is_container(name) or not self.children[name] or self.is_norm(name):
            return False
        alike = self.kind_of(name) in {self.kind_of(member) for member in members}
        return alike or (type(self.modules[parent]).__name__ == "ModuleList" and self.parameters(name) > 0)

    def _may_be_block(self, name: str, strong: bool) -> bool:
        if self.is_container(name) or not self.children[name] or not self.parameters(name):
            return False
        if not strong:
            return not CONNECTS_TOWERS.search(name) and not self.is_norm(name)
        # An attention with its own output projection is a part of a block; BERT's decoder has two side by side.
        part = MIXES_POSITIONS.search(own_name(name))
        return not part and self._mixes(name) and self._has_matrix_beside_mixer(name)

    def _mixes(self, name: str) -> bool:
        return any(self._is_mixer(kid) or self._mixes(kid) for kid in self.children[name])

    def _is_mixer(self, name: str) -> bool:
        named = MIXES_POSITIONS.search(own_name(name)) or MIXES_POSITIONS.search(self.kind_of(name))
        return bool(named) and not self.is_norm(name)

    def _has_matrix_beside_mixer(self, name: str) -> bool:
        module = self.modules[name]
        if any(map(_is_matrix, module.parameters(recurse=False))) or _hidden_matrix(module):
            return True
        # Only the innermost part that mixes is left out: GPT-2's `attn`, but not a block inside a block.
        return any(
            self._has_matrix_beside_mixer(kid)
            for kid in self.children[name]
            if not self._is_mixer(kid) or self._contains_block(kid)
        )

    def _contains_block(self, name: str) -> bool:
        return any(
            self._may_be_block(kid, strong=True) or self._contains_block(kid)
            for kid in self.children[name]
            if not self._is_mixer(kid)
        )

    def _is_stage(self, name: str) -> bool:
        """Tell whether a list's element is itself made of lists of blocks (Swin's stages)."""
        return next(self._block_lists(name, strong=True), None) is not None

    @cached_property
    def rest(self) -> tuple[str, ...]:
        """Names of the largest modules that hold no block and are no part of one."""
        return tuple(self._outermost_rest("", frozenset(self.blocks)))

    def _outermost_rest(self, name: str, blocks: frozenset[str]) -> Iterator[str]:
        for kid in self.children[name]:
            if kid in blocks:
                continue
            if self.is_container(kid) or self.is_wrapper(kid) or any(is_under(b, kid) for b in blocks):
                # A connector's own blocks are part of the connector, not of a tower: see `_block_lists`.
                yield from self._outermost_rest(kid, blocks)
            else:
                yield kid

    def is_container(self, name: str) -> bool:
        """Whether a module only holds others and is never called itself: lists, and modules without a `forward`."""
        return not is_called(self.modules[name])

    def _is_list(self, name: str) -> bool:
        return type(self.modules[name]).__name__ in ("ModuleList", "ModuleDict")

    def is_wrapper(self, name: str) -> bool:
        """Whether a module only passes on to the one module inside it."""
        kids = self.children[name]
        return len(kids) == 1 and own_name(kids[0]) in (internals.INNER, "module", "base_model")

    def _is_sequence(self, name: str) -> bool:
        kids = [own_name(kid) for kid in self.children[name]]
        return bool(kids) and kids == [str(i) for i in range(len(kids))]

    def is_norm(self, name: str) -> bool:
        """Tell whether a module normalises, and holds no matrix."""
        own, kind = own_name(name), self.kind_of(name)
        module = self.modules[name]
        named = bool(re.search(r"norm|(^|_)ln(_|\d|$)|layrnorm", own, re.I) or "Norm" in kind)
        flat = not any(map(_is_matrix, module.parameters())) and not any(map(_hidden_matrix, module.modules()))
        return flat and named

    def kind_of(self, name: str) -> str:
        """Class name of a module, seen through `torch.compile`'s wrapper."""
        return type(internals.uncompiled(self.modules[name])).__name__

    def parameters(self, name: str) -> int:
        """Count the parameters at and below a module, those that a quantised matrix holds elsewhere included.

        One that is not initialised counts as one.
        """
        if name not in self._counts:
            module = self.modules[name]
            self._counts[name] = size(module) + sum(map(is_uninitialised, module.parameters()))
        return self._counts[name]

    @cached_property
    def _counts(self) -> dict[str, int]:
        return {}


def _hidden_matrix(module: nn.Module) -> bool:
    """Tell whether a module holds a matrix that is no parameter with its sides.

    Quantised layers keep theirs packed, in buffers (GPTQ, AWQ) or in an object of their own (torch's dynamic ones).
    """
    return any(weight.quantised for weight in of_module(module))


def _is_matrix(parameter: Tensor) -> bool:
    """Tell whether a parameter has two dimensions or more; one without a shape yet is taken for a matrix."""
    return is_uninitialised(parameter) or parameter.ndim >= 2


def own_name(name: str) -> str:
    """Return the last part of a module's name."""
    return name.rpartition(".")[2]


def is_under(name: str, place: str) -> bool:
    """Tell whether a module is another one or lies inside it."""
    return not place or name == place or name.startswith(place + ".")


def ancestors(name: str) -> Iterator[str]:
    """Yield a name and those of the modules around it, innermost first; the root's is empty."""
    while name:
        yield name
        name = name.rpartition(".")[0]
    yield ""
