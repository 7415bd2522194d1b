"""The repeated blocks of a model, and what is left over between them, told by structure alone.

First come lists of blocks that mix positions (attention, state spaces) beside further matrices; then the blocks of
convolutional backbones (`stages`); a model without either falls back to any repeated module.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property

from layerprof.layers.stages import Stages
from layerprof.layers.towers import Towers
from layerprof.layers.tree import (
    CONNECTS_TOWERS,
    MIXES_POSITIONS,
    Tree,
    ancestors,
    hidden_matrix,
    is_matrix,
    is_under,
    own_name,
)

RECURS = re.compile(r"mamba|ssm|rwkv|retention|recurrent_?(block|unit)|rg_?lru|delta_?(net|rule)|lstm|gru", re.I)
"""Names of what keeps a state from position to position."""
COUNTED_WHOLE = ("LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell")


class Blocks:
    """Finds the repeated blocks in a module tree."""

    def __init__(self, tree: Tree, towers: Towers) -> None:
        self.tree = tree
        self.towers = towers
        self.stages = Stages(tree)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the repeated blocks, in module order."""
        lists = list(self._block_lists("", strong=True))
        mixing = {m for _, members in lists for m in members}
        found = mixing | self._convolutional(mixing)
        if not found:
            found = self._any_repeated()
        elif lists:
            found |= self._repeated([*(parent for parent, _ in lists), *found])
        return tuple(name for name in self.tree.modules if name in found)

    def _any_repeated(self) -> set[str]:
        """Return any repeated modules, or, of plain sequences some of which convolve (VGG), their convolutions."""
        tree, found = self.tree, self._repeated([])
        plain = {m for group in self.stages.plain for m in group.members}
        unlike = all(map(tree.is_listing, found)) and not all(map(tree.convolves, found))
        return plain if plain and (unlike or not found) else found

    def _repeated(self, covered: list[str]) -> set[str]:
        """Return any repeated modules: a large part of the model that lies apart from the blocks that are `covered`."""
        size = self.tree.parameters("")
        found: set[str] = set()
        for parent, members in self._block_lists("", strong=False):
            large = sum(self.tree.parameters(m) for m in members) >= 0.2 * size
            apart = not any(is_under(c, parent) or is_under(parent, c) for c in covered)
            if not covered or (large and apart):
                found.update(members)
        return found

    def _convolutional(self, mixing: set[str]) -> set[str]:
        """Return the blocks of convolutional backbones, and of convolutional stages around or before attention.

        What convolves behind the last block that mixes positions reads out what the tower gives: a neck, a decoder.
        """
        order = self._order
        seeing = [name for name in mixing if self.towers.tower(name) == "vision"]
        last = max((order[name] for name in seeing), default=-1)
        beside = {place for name in seeing for place in ancestors(name) if self.tree.is_listing(place)} - {""}
        found: set[str] = set()
        for group in self.stages.groups:
            members = {m for m in group.members if not any(is_under(m, b) or is_under(b, m) for b in mixing)}
            leads = (group.listed and order[group.members[0]] < last) or any(
                is_under(group.parent, place) for place in beside
            )
            if not mixing or (self.towers.tower(group.members[0]) == "vision" and (leads or not seeing)):
                found |= members
        return found

    def _block_lists(self, name: str, strong: bool) -> Iterator[tuple[str, list[str]]]:
        """Yield (parent, members) of the outermost lists of blocks below `name`; stages are entered."""
        kids = self.tree.children[name]
        members = [k for k in kids if self._may_be_block(k, strong)]
        listed = self.tree.is_list(name) or self.tree.is_sequence(name)
        repeated = len({self.tree.kind_of(m) for m in members}) < len(members)
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
        if self.tree.is_container(name) or not self.tree.children[name] or self.tree.is_norm(name):
            return False
        alike = self.tree.kind_of(name) in {self.tree.kind_of(member) for member in members}
        return alike or (type(self.tree.modules[parent]).__name__ == "ModuleList" and self.tree.parameters(name) > 0)

    def _may_be_block(self, name: str, strong: bool) -> bool:
        if self.tree.is_container(name) or not self.tree.children[name] or not self.tree.parameters(name):
            return False
        if not strong:
            return not CONNECTS_TOWERS.search(name) and not self.tree.is_norm(name)
        # An attention with its own output projection is a part of a block; BERT's decoder has two side by side.
        part = MIXES_POSITIONS.search(own_name(name))
        return not part and self._mixes(name) and self._has_matrix_beside_mixer(name)

    def _mixes(self, name: str) -> bool:
        return any(self._is_mixer(kid) or self._mixes(kid) for kid in self.tree.children[name])

    def _is_mixer(self, name: str) -> bool:
        named = MIXES_POSITIONS.search(own_name(name)) or MIXES_POSITIONS.search(self.tree.kind_of(name))
        return bool(named) and not self.tree.is_norm(name)

    def _has_matrix_beside_mixer(self, name: str) -> bool:
        module = self.tree.modules[name]
        if any(map(is_matrix, module.parameters(recurse=False))) or hidden_matrix(module):
            return True
        # Only the innermost part that mixes is left out: GPT-2's `attn`, but not a block inside a block.
        return any(
            self._has_matrix_beside_mixer(kid)
            for kid in self.tree.children[name]
            if not self._is_mixer(kid) or self._contains_block(kid)
        )

    def _contains_block(self, name: str) -> bool:
        return any(
            self._may_be_block(kid, strong=True) or self._contains_block(kid)
            for kid in self.tree.children[name]
            if not self._is_mixer(kid)
        )

    def _is_stage(self, name: str) -> bool:
        """Tell whether a list's element is itself made of lists of blocks (Swin's stages)."""
        if next(self._block_lists(name, strong=True), None) is not None:
            return True
        return self.tree.is_listing(name) and self.stages.is_made_of_blocks(name)

    def between(self, name: str) -> bool:
        """Whether a module stands between blocks of one list, as what makes the picture smaller between stages does."""
        lists = [place for place in ancestors(name) if place != name and self.tree.is_listing(place)]
        for place in lists:
            inside = [block for block in self.names if is_under(block, place)]
            if inside and self._order[inside[0]] < self._order[name]:
                element = next(a for a in ancestors(name) if a.rpartition(".")[0] == place)
                return self._order[name] < self._order[inside[-1]] or any(is_under(b, element) for b in inside)
        return False

    def behind(self, name: str) -> bool:
        """Whether a module stands behind every block of the vision tower."""
        seeing = [self._order[block] for block in self.names if self.towers.tower(block) == "vision"]
        return bool(seeing) and self._order[name] > max(seeing)

    @cached_property
    def _order(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.tree.modules)}

    @cached_property
    def rest(self) -> tuple[str, ...]:
        """Names of the largest modules that hold no block and are no part of one."""
        return tuple(self._outermost_rest("", frozenset(self.names)))

    def _outermost_rest(self, name: str, blocks: frozenset[str]) -> Iterator[str]:
        for kid in self.tree.children[name]:
            if kid in blocks:
                continue
            around_all = not name and self.tree.is_wrapper("") and self.tree.children[kid]
            only_holds = self.tree.is_container(kid) or self.tree.is_wrapper(kid) or around_all
            if only_holds or any(is_under(b, kid) for b in blocks):
                # A connector's own blocks are part of the connector, not of a tower: see `_block_lists`.
                yield from self._outermost_rest(kid, blocks)
            else:
                yield kid


def recurrence(tree: Tree, name: str) -> str:
    """Return the class of the part of a block that keeps a state from position to position; empty where it has none.

    torch's own recurrent layers are none here: they have a formula as a whole.
    """
    for kid in tree.children[name]:
        if tree.is_norm(kid) or not tree.parameters(kid):
            continue
        kind = tree.kind_of(kid)
        if kind in COUNTED_WHOLE:
            continue
        if not tree.is_container(kid) and (RECURS.search(kind) or RECURS.search(own_name(kid))):
            deeper = recurrence(tree, kid)
            return deeper if deeper and tree.children[kid] else kind
        if deeper := recurrence(tree, kid):
            return deeper
    return ""
