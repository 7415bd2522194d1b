"""Convolutional and hierarchical backbones: stages of blocks that nobody named, told by what repeats in them.

A *block* of such a backbone is an element of a list (`nn.Sequential`, `nn.ModuleList`, or modules of one class beside
each other) that convolves in two or three dimensions and holds at least two matrices: a bottleneck, an inverted
residual, a ConvNeXt block. A *stage* is an element that is itself made of such lists, to more than half of its
matrices; stages are entered, blocks are not. One convolution with its norm and activation is neither.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from layerprof.layers.tree import CONNECTS_TOWERS, Tree, own_name

NO_TRUNK = re.compile(
    r"(^|_)heads?(_|\d|$)|classifier|(^|_)stem(_|\d|$)|patch_?embed|^embeddings?$|downsampl|(^|_)fus(e|ion)(_|$)"
)
NUMBERED = re.compile(r"(\D*)\d+")


@dataclass(frozen=True, slots=True)
class Group:
    """Blocks beside each other under `parent`.

    `listed` where the parent is a list, not a module with attributes; `alone` where it is one block in a list of its
    own, which counts inside a stage only.
    """

    parent: str
    members: tuple[str, ...]
    listed: bool
    alone: bool = False


class Stages:
    """Finds the blocks of convolutional backbones in a module tree."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._found: dict[str, tuple[Group, ...]] = {}
        self._asked: set[str] = set()

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The groups of the whole tree; a block that is alone in its list only where its like is elsewhere."""
        found = self.below("")
        kinds = Counter(self.tree.kind_of(m) for group in found for m in group.members)
        return tuple(g for g in found if not g.alone or kinds[self.tree.kind_of(g.members[0])] > 1)

    @cached_property
    def plain(self) -> tuple[Group, ...]:
        """Sequences of bare convolutions (VGG): for models in which no block has parts."""
        lists = {name: self._convolutions(name) for name in self.tree.modules if self.tree.is_sequence(name)}
        return tuple(Group(name, kids, listed=True) for name, kids in lists.items() if len(kids) > 1)

    def _convolutions(self, name: str) -> tuple[str, ...]:
        kids = self.tree.children[name]
        return tuple(k for k in kids if not self.tree.children[k] and self.tree.convolves(k))

    def below(self, name: str) -> tuple[Group, ...]:
        """Return the groups at and below a module."""
        if name not in self._found:
            self._asked.add(name)
            self._found[name] = tuple(self._groups(name))
        return self._found[name]

    def _groups(self, name: str) -> Iterable[Group]:
        tree = self.tree
        kids = [kid for kid in tree.children[name] if tree.convolves(kid) and not self._is_beside_trunk(kid)]
        inside = [group for kid in kids for group in self.below(kid)]
        whole = [kid for kid in kids if self._is_whole(kid)]
        stages = [kid for kid in whole if self._is_stage(kid)]
        if stages:
            return self._entered(name, kids, stages)
        members, listed = [kid for kid in whole if not tree.is_container(kid)], self._is_listing(name)
        if not listed:  # beside modules of a class of their own, a plain sequence is no block
            members = [kid for kid in members if not tree.is_listing(kid)] or members
        if self._repeats(members, listed):
            return [Group(name, tuple(members), listed and not self._normalised_between(name, members))]
        if listed and len(members) == 1 and tree.matrices(name) == tree.matrices(members[0]):
            return [Group(name, tuple(members), listed, alone=True)]
        return inside

    def _is_listing(self, name: str) -> bool:
        """Tell whether a module is a list, or all in it that holds matrices is of one class, with numbers for names."""
        tree = self.tree
        if tree.is_listing(name):
            return True
        kids = [kid for kid in tree.children[name] if tree.matrices(kid)]
        words = {NUMBERED.fullmatch(own_name(kid)) for kid in kids}
        alike = len({(word[1] if word else None) for word in words}) == 1 and None not in words
        return alike and len({tree.kind_of(kid) for kid in kids}) == 1 and not any(map(tree.is_listing, kids))

    def _repeats(self, members: list[str], listed: bool) -> bool:
        """Tell whether a class is there twice, or, of several members of a list, elsewhere in the model."""
        kinds = Counter(self.tree.kind_of(member) for member in members)
        if any(count > 1 for count in kinds.values()):
            return True
        own = [member for member in members if not self.tree.is_listing(member)]
        return listed and len(own) > 1 and any(len(self._by_kind[self.tree.kind_of(m)]) > 1 for m in own)

    def _normalised_between(self, name: str, members: list[str]) -> bool:
        """Tell whether norms stand between the members: those are the steps of a block, as Xception's are."""
        kids = self.tree.children[name]
        first, last = kids.index(members[0]), kids.index(members[-1])
        return any(self.tree.is_norm(kid) and self.tree.parameters(kid) for kid in kids[first:last])

    def _is_beside_trunk(self, name: str) -> bool:
        return bool(CONNECTS_TOWERS.search(name) or NO_TRUNK.search(own_name(name)))

    def _entered(self, name: str, kids: list[str], stages: list[str]) -> Iterable[Group]:
        """Yield the blocks of a list of stages: those in the stages, and those that stand beside stages as they are."""
        tree = self.tree
        kinds = {tree.kind_of(stage) for stage in stages}
        several, listing = len(stages) > 1, tree.is_listing(name)
        for kid in kids:
            if kid in stages:
                for group in self.below(kid):
                    yield Group(group.parent, group.members, group.listed, group.alone and not (several and listing))
            elif listing and tree.kind_of(kid) in kinds:
                # A stage of single convolutions is one by its like: each convolution comes with its norm.
                parts = tuple(part for part in tree.children[kid] if tree.children[part] and tree.matrices(part))
                if parts:
                    yield Group(kid, parts, listed=True)
            elif listing and self._is_whole(kid) and not tree.is_listing(kid):
                yield Group(name, (kid,), listed=True)
            else:
                yield from self.below(kid)

    def _is_whole(self, name: str) -> bool:
        """Tell whether a module has parts, and it or its like at least two matrices."""
        tree = self.tree
        if not tree.children[name] or tree.is_norm(name):
            return False
        return tree.matrices(name) > 1 or (not tree.is_listing(name) and tree.kind_of(name) in self._whole_kinds)

    @cached_property
    def _whole_kinds(self) -> frozenset[str]:
        tree = self.tree
        return frozenset(tree.kind_of(n) for n in tree.modules if tree.children[n] and tree.matrices(n) > 1)

    def _is_stage(self, name: str) -> bool:
        """Tell whether a module is made of lists of blocks, and all of its class are."""
        if self.tree.is_listing(name):
            return self.is_made_of_blocks(name)
        alike = [n for n in self._by_kind[self.tree.kind_of(name)] if self._is_whole(n)]
        # One whose parts are being looked at is around this one, and says nothing yet.
        return all(n in self._asked - self._found.keys() or self.is_made_of_blocks(n) for n in alike)

    def is_made_of_blocks(self, name: str) -> bool:
        """Whether lists of blocks hold more than half of a module's matrices."""
        groups = [group for group in self.below(name) if group.listed]
        alone = sum(group.alone for group in groups)
        if alone > 1 and not self.tree.is_listing(name):  # parts of a block that are sequences, not stages of one
            return False
        members = [m for group in groups for m in group.members]
        return sum(map(self.tree.matrices, members)) * 2 > self.tree.matrices(name)

    @cached_property
    def _by_kind(self) -> dict[str, list[str]]:
        kinds: dict[str, list[str]] = {}
        for name in self.tree.modules:
            kinds.setdefault(self.tree.kind_of(name), []).append(name)
        return kinds
