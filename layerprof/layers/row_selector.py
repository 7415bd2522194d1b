"""The `--layers` selector on the rows of a stored run: no model is there, so rows are all that it can name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from layerprof.errors import SelectorError
from layerprof.layers.selector import Term, parse_selector, select
from layerprof.readings import Layer
from layerprof.records import LayerRow


def select_rows(rows: Sequence[LayerRow], selector: str) -> tuple[LayerRow, ...]:
    """Return the rows that a selector takes, in their order.

    All of the grammar works on layers. Submodules (`language[*].mlp`) are found where the run has rows of them. Raises
    SelectorError for a term that cannot be read, that matches no row, or that asks for submodules the run has no rows
    of.
    """
    layers = list({row.name: Layer(row.name, row.tower, row.kind, row.index) for row in rows}.values())
    taken: set[str] = set()
    for term in parse_selector(selector).terms:
        if term.sub is None:
            taken |= {layer.name for layer in select(layers, term.text)}
        else:
            taken |= _submodules(layers, term, term.sub)
    return tuple(row for row in rows if row.name in taken)


def _submodules(layers: Sequence[Layer], term: Term, sub: str) -> set[str]:
    """Return the names of submodules' rows that `tower[indices].sub` takes."""
    blocks: dict[str, list[str]] = {}
    for layer in layers:
        block = None if layer.found or term.base not in ("all", layer.tower) else _block_around(layer.name, sub)
        if block is not None:
            blocks.setdefault(block, []).append(layer.name)
    chosen = list(blocks) if term.indices is None else list(_at(list(blocks), term.indices))
    if not chosen:
        raise SelectorError(
            f"{term.text!r} asks for submodules, and the run has no rows of them.",
            f"Name layers of the run, or profile again with --layers {term.text!r}.",
        )
    return {name for block in chosen for name in blocks[block]}


def _block_around(name: str, sub: str) -> str | None:
    """Return the numbered module that a submodule's name lies in by the path `sub`, None where it does not."""
    for number in re.finditer(r"\.\d+(?=\.)", name):
        if fnmatchcase(name[number.end() + 1 :], sub):
            return name[: number.end()]
    return None


def _at(blocks: Sequence[str], indices: Iterable[int | slice]) -> Iterable[str]:
    for index in indices:
        if isinstance(index, slice):
            yield from blocks[index]
        elif -len(blocks) <= index < len(blocks):
            yield blocks[index]
