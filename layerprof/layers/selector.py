"""The `--layers` selector: which of the found layers, or which submodules of them.

A selector is a comma-separated union of terms::

    all                          every found layer
    vision, language             a tower
    lm_head, merger, norm        a kind
    language[3], vision[-1]      blocks of a tower by position (from the end when negative)
    language[0:4], [0:8:2]       a range of them, as Python slices
    language[*].mlp              a submodule of each; the rest may be a glob: language[0].*_proj
    *.layers.[0-3], *mlp*        a glob over names; over the names of submodules where no layer's name matches
    model.visual.blocks.0.attn   any module by its full name, or by another of its names where it has several

A selector decides what is shown: what belongs to which layer, and so each row's figures, are the same whatever it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NoReturn

from layerprof.errors import SelectorError, did_you_mean, nearest
from layerprof.layers.tree import ancestors
from layerprof.machine.modules import first_names, is_called
from layerprof.readings import Layer
from layerprof.records import BLOCK_KINDS

if TYPE_CHECKING:
    from torch import nn

GRAMMAR = "Write all, vision, language, language[3], language[0:4], language[*].mlp, a kind such as lm_head, or a glob."
SHOW = "Run `layerprof layers` to list the layers and their selectors."


@dataclass(frozen=True, slots=True)
class Term:
    """One part of a selector: `base[indices].sub`, or a glob over whole names when `base` is no tower or kind."""

    text: str
    base: str
    bracketed: bool = False
    indices: tuple[int | slice, ...] | None = None
    sub: str | None = None


@dataclass(frozen=True, slots=True)
class Selector:
    """A parsed selector; `text` is as the user wrote it."""

    text: str
    terms: tuple[Term, ...]


def parse_selector(text: str) -> Selector:
    """Read a selector; no model is needed.

    Raises SelectorError when it is empty, its brackets do not balance, or an index is no integer, range or `*`.
    """
    if text.count("[") != text.count("]"):
        _bad(text, "its brackets do not balance")
    parts = [part.strip() for part in re.split(r",(?![^\[]*\])", text)]
    if not all(parts):
        _bad(text, "it is empty" if not text.strip() else "there is nothing between two commas")
    return Selector(text, tuple(_term(part, text) for part in parts))


def _term(part: str, text: str) -> Term:
    if re.search(r"\s", part):
        _bad(text, f"{part!r} contains a space; join selectors with commas")
    match = re.fullmatch(r"([A-Za-z_]\w*)\[([^\]]*)\](?:\.(.+))?", part)
    if match:
        base, inside, sub = match.groups()
        return Term(part, base, True, _indices(inside, part), sub)
    match = re.fullmatch(r"(all|vision|language)(?:\.(.+))?", part)
    if match:
        return Term(part, match[1], sub=match[2])
    return Term(part, part)


def _indices(inside: str, part: str) -> tuple[int | slice, ...] | None:
    if inside.strip() == "*":
        return None
    found: list[int | slice] = []
    for piece in inside.split(","):
        numbers = piece.strip().split(":")
        if not all(re.fullmatch(r"-?\d+", n) or (not n and len(numbers) > 1) for n in numbers) or len(numbers) > 3:
            _bad(part, f"[{inside}] is no index, range or *")
        values = [int(n) if n else None for n in numbers]
        if len(values) == 1 and values[0] is not None:
            found.append(values[0])
        elif values[2:] == [0]:
            _bad(part, "the step of a range cannot be 0")
        else:
            found.append(slice(*values))
    return tuple(found)


def _bad(text: str, why: str) -> NoReturn:
    raise SelectorError(f"The layer selector {text!r} cannot be read: {why}.", GRAMMAR)


class _Names:
    """The names of a model's modules, all of them; without a model, those of its layers alone."""

    def __init__(self, layers: Sequence[Layer], model: nn.Module | None) -> None:
        self.has_model = model is not None
        self._model = model
        self.first = first_names(model) if model is not None else {layer.name: layer.name for layer in layers}
        self.layers = {layer.name: layer for layer in layers}
        self._listed = layers

    def layer(self, name: str) -> Layer:
        """Return the unit of that name: a found layer, or a submodule; under that name where it has others."""
        first = self.first[name]
        unit = self.layers.get(first) or _submodule(first, self._listed)
        return unit if name == first else replace(unit, alias=name)

    def matching(self, pattern: str) -> list[Layer]:
        """Return the found layers with a name that a glob matches; without any, the submodules."""
        names = [name for name in self.first if fnmatchcase(name, pattern)]
        found = [self.layer(name) for name in names if self.first[name] in self.layers]
        return found or [self.layer(name) for name in names if name]

    def inside(self, layer: Layer, pattern: str) -> list[Layer]:
        """Return the submodules of a layer that a glob matches, as seen from any of the layer's names."""
        holders = [name for name, first in self.first.items() if first == layer.name]
        return [self.layer(n) for holder in holders for n in self.first if _is_sub(n, holder, pattern)]

    def called(self, layers: Iterable[Layer]) -> Iterator[Layer]:
        """Yield layers; in the place of a module that is never called (a list) the parts of it that are."""
        for layer in layers:
            parts = () if layer.found or not self._model else _called_parts(self._model.get_submodule(layer.name))
            if not parts:
                yield layer
            for part in parts:
                yield self.layer(f"{layer.shown}.{part}")


def _called_parts(module: nn.Module) -> tuple[str, ...]:
    """Return the names of the outermost parts that are called, of a module that is not; none for one that is."""
    if is_called(module):
        return ()
    found: list[str] = []
    for own, part in module.named_children():
        inside = _called_parts(part)
        found += [f"{own}.{name}" for name in inside] if inside or not is_called(part) else [own]
    return tuple(found)


def select(layers: Sequence[Layer], selector: Selector | str, model: nn.Module | None = None) -> tuple[Layer, ...]:
    """Pick layers, in their order; submodules (kind `module`) stand after the layer they are in.

    `model` is needed for selectors below the level of layers: its modules are what they match, by any of their names.
    A module is picked once, under the name that was written out for it, else under the first that matched. Raises
    SelectorError for a term that cannot be read or that matches nothing (its message names the nearest matches).
    """
    parsed = parse_selector(selector) if isinstance(selector, str) else selector
    names = _Names(layers, model)
    written: dict[str, Layer] = {}
    picked: dict[str, Layer] = {}
    for term in parsed.terms:
        for layer in names.called(_matches(term, layers, names)):
            (written if layer.shown == term.text else picked).setdefault(layer.name, layer)
    order = {name: i for i, name in enumerate(names.first)}
    place = {layer.name: i for i, layer in enumerate(layers)}

    def position(layer: Layer) -> tuple[int, int]:
        around = _enclosing(layer.name, layers)
        return (place[around.name] if around else -1, order[layer.name])

    return _numbered(sorted((picked | written).values(), key=position))


def _matches(term: Term, layers: Sequence[Layer], names: _Names) -> list[Layer]:
    if term.text in names.layers:
        return [names.layers[term.text]]
    found = _in_tower(term, layers)
    if found is None:
        found = names.matching(term.text)
    elif term.sub is not None:
        if not names.has_model:
            raise SelectorError(f"{term.text!r} asks for submodules, and there is no model to look into.", SHOW)
        found = [part for layer in found for part in names.inside(layer, term.sub)]
    if not found:
        _nothing(term, layers, list(names.first))
    return found


def _in_tower(term: Term, layers: Sequence[Layer]) -> list[Layer] | None:
    """Layers of a tower or kind, None when the term's base is neither."""
    tests: dict[str, Callable[[Layer], bool]] = {
        "all": lambda layer: True,
        "vision": lambda layer: layer.tower == "vision",
        "language": lambda layer: layer.tower == "language",
    }
    if term.base in tests:
        # An index counts blocks; the bare word means the whole tower.
        blocks_only = term.bracketed or term.sub is not None
        group = [x for x in layers if tests[term.base](x) and (not blocks_only or x.kind in BLOCK_KINDS)]
    else:
        group = [x for x in layers if x.kind == term.base]
        if not group and not term.bracketed:
            return None
    if term.indices is None:
        return group
    chosen: list[Layer] = []
    for index in term.indices:
        if isinstance(index, slice):
            chosen += group[index]
        elif -len(group) <= index < len(group):
            chosen.append(group[index])
        else:
            _nothing(term, layers, ())
    return chosen


def _is_sub(name: str, layer: str, pattern: str) -> bool:
    return name.startswith(layer + ".") and fnmatchcase(name[len(layer) + 1 :], pattern)


def _submodule(name: str, layers: Sequence[Layer]) -> Layer:
    around = _enclosing(name, layers)
    if around is not None and around.name == name:
        return around
    inside = next((layer for layer in layers if layer.name.startswith(name + ".")), None)
    tower = (around or inside or Layer(name, "language", "module", 0)).tower
    return Layer(name=name, tower=tower, kind="module", index=0)


def _enclosing(name: str, layers: Sequence[Layer]) -> Layer | None:
    """Find the innermost layer that a name lies in, or is."""
    known = {layer.name: layer for layer in layers}
    return next((known[place] for place in ancestors(name) if place in known), None)


def _numbered(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """Count submodules from 0 within their tower; found layers keep their index."""
    counts = {"vision": 0, "language": 0}
    done = []
    for layer in layers:
        if not layer.found:
            done.append(replace(layer, index=counts[layer.tower]))
            counts[layer.tower] += 1
        else:
            done.append(layer)
    return tuple(done)


def _nothing(term: Term, layers: Sequence[Layer], names: Sequence[str]) -> NoReturn:
    towers = []
    for tower in ("vision", "language"):
        count = sum(layer.tower == tower and layer.kind in BLOCK_KINDS for layer in layers)
        towers += [f"{tower}[0:{count}]"] if count else []
    kinds = dict.fromkeys(layer.kind for layer in layers)
    known = [*towers, *kinds, *(layer.name for layer in layers), *names]
    bare = term.text.replace("*", "")
    near = nearest(bare, dict.fromkeys(known), most=3, cutoff=0.4)
    near += [t for t in towers if t not in near]
    words = ("all", "vision", "language", *kinds)
    meant = "" if "*" in term.text or term.base in words else did_you_mean(term.base, dict.fromkeys((*words, *known)))
    raise SelectorError(
        f"The layer selector {term.text!r} matches nothing; nearest: {', '.join(near) or 'none'}.",
        f"{meant}{SHOW}",
    )
