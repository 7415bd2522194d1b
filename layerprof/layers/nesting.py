"""Located layers inside each other: who encloses whom, and to which account of the ledger each belongs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import accumulate

from layerprof.readings import Layer
from layerprof.records import BLOCK_KINDS

LAYERS = ""
"""The account of vision blocks and decoder layers; every other account is named."""


def enclosing(layers: Sequence[Layer]) -> dict[str, tuple[str, ...]]:
    """Located layers around each located layer, outermost first, by module path."""
    names = {layer.name for layer in layers}
    around: dict[str, tuple[str, ...]] = {}
    for name in names:
        paths = accumulate(name.split("."), lambda path, part: f"{path}.{part}")
        # The empty path is the model itself, which encloses all.
        around[name] = tuple(path for path in ("", *paths) if path in names and path != name)
    return around


def innermost(path: str, located: Collection[str]) -> str:
    """Return the located layer with the longest name around a module path; '' where there is none."""
    while path and path not in located:
        path = path.rpartition(".")[0]
    return path


def accounts(layers: Sequence[Layer]) -> dict[str, str]:
    """Return the account of each layer name: `LAYERS` for blocks and all inside them, else the rest's name.

    The rest is named by its kind (`merger`), with the tower in front where both towers have that kind (`vision norm`);
    a submodule outside every layer by its module path.
    """
    named = {layer.name: layer for layer in layers}
    inside = enclosing(layers)
    towers: dict[str, set[str]] = {}
    for layer in layers:
        towers.setdefault(layer.kind, set()).add(layer.tower)
    result: dict[str, str] = {}
    for name in named:
        chain = [named[holder] for holder in (*inside[name], name)]
        owner = next((layer for layer in chain if layer.kind in BLOCK_KINDS), None)
        owner = owner or next((layer for layer in chain if layer.found), chain[-1])
        if owner.kind in BLOCK_KINDS:
            result[name] = LAYERS
        elif owner.kind == "module":
            result[name] = owner.name or "the model itself"
        else:
            result[name] = owner.kind if len(towers[owner.kind]) == 1 else f"{owner.tower} {owner.kind}"
    return result


def whole_layers(layers: Sequence[Layer]) -> set[str]:
    """Names whose inclusive figures add up without counting anything twice: no one of them is inside another.

    A submodule around whole layers gives way to them; one inside a layer is part of it.
    """
    named = {layer.name: layer for layer in layers}
    inside = enclosing(layers)
    proper = {name for name, layer in named.items() if layer.found}
    holders = {holder for name in proper for holder in inside[name]}
    candidates = {name for name in named if name in proper or name not in holders}
    return {name for name in candidates if not any(holder in candidates for holder in inside[name])}


def short_names(paths: Iterable[str]) -> dict[str, str]:
    """Shortest endings that still tell module paths apart; numbered repeats share one name with `*`."""
    starred = {path: [("*" if part.isdigit() else part) for part in path.split(".")] for path in paths}
    distinct = {tuple(parts) for parts in starred.values()}
    short: dict[str, str] = {}
    for path, parts in starred.items():
        length = 1
        while length < len(parts) and (
            parts[-length] == "*" or sum(other[-length:] == tuple(parts[-length:]) for other in distinct) > 1
        ):
            length += 1
        short[path] = ".".join(parts[-length:]) or "the model itself"
    return short
