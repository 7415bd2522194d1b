"""Model -> layers, by structure: the units that get a row, for any model with repeated blocks.

Nothing here knows a model by name. A *block* is an element of a list of modules that mix positions and hold further
matrices (attention and MLP); a model without such lists falls back to any repeated module (`tree`). A block's *tower*
is told by what lies around it (`towers`). What is left over between the blocks is the *named rest*: every largest
module that holds parameters and no block gets a row of its own, so that little runs under no layer at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from layerprof.errors import RequestError
from layerprof.layers.blocks import Blocks, recurrence
from layerprof.layers.towers import Towers
from layerprof.layers.tree import Tree, own_name
from layerprof.readings import Layer
from layerprof.records import BLOCK_KINDS, Tower

if TYPE_CHECKING:
    from torch import nn


EARLY = re.compile(r"(^|_)pre|pre(_|$)|emb", re.I)
ORDER = (
    "patch_embed",
    "embed_tokens",
    "pos_embed",
    "rotary",
    "blocks",
    "downsample",
    "norm",
    "merger",
    "other",
    "head",
    "lm_head",
)


def find_layers(model: nn.Module) -> tuple[Layer, ...]:
    """Find the layers of a model, in order of execution: vision, then language.

    Works on any module tree: wrapped (DataParallel, PEFT, `torch.compile`), with shared modules (listed once, under the
    first name), text-only, vision-only, mixture-of-experts, cross-attention. A family whose towers cannot be told
    apart gets all its layers under `language`. Where no submodule holds a parameter (a single `nn.Linear`, bare
    parameters, a function of its inputs), the model itself is the only layer, and its name is empty. Raises
    RequestError for a module that is never called: one without a `forward`.
    """
    tree = Tree(model)
    found = sorted(_ranked(tree), key=lambda unit: unit[:3])
    layers = []
    counts: dict[tuple[Tower, str], int] = {}
    for _, _, _, name, tower, kind in found:
        index = counts.get((tower, kind), 0)
        counts[(tower, kind)] = index + 1
        recurs = recurrence(tree, name) if kind in BLOCK_KINDS else ""
        layers.append(Layer(name=name, tower=tower, kind=kind, index=index, recurs=recurs))
    if layers:
        return tuple(layers)
    if tree.is_container(""):
        raise RequestError(
            f"{type(model).__name__} has no layers to profile: it has no forward, and no part of it has parameters.",
            "Pass a model that can be called, such as a transformers model or an nn.Sequential of blocks.",
        )
    return (Layer(name="", tower=Towers(tree).tower(""), kind="other", index=0),)


def _ranked(tree: Tree) -> Iterator[tuple[int, int, int, str, Tower, str]]:
    """Yield (tower, stage, position, name, tower, kind); the first three sort into order of execution."""
    towers = Towers(tree)
    blocks = Blocks(tree, towers)
    position = {name: i for i, name in enumerate(tree.modules)}
    for name in blocks.names:
        tower = towers.tower(name)
        stage = ORDER.index("blocks")
        # An encoder runs before the decoder that reads it, whatever their order in the module.
        block = "vision_block" if tower == "vision" else "decoder_layer" if towers.decodes(name) else "encoder_layer"
        yield (tower == "language", stage * 2 + (block == "decoder_layer"), position[name], name, tower, block)
    for name in blocks.rest:
        tower = towers.tower(name)
        kind = towers.rest_kind(name, tower)
        if kind is None:
            continue
        between = tower == "vision" and blocks.between(name)
        if kind in ("patch_embed", "other"):
            kind = _seen_from_blocks(name, kind, blocks, between)
        early = kind == "norm" and EARLY.search(own_name(name))
        stage = ORDER.index("blocks" if between else "rotary" if early else kind)
        yield (tower == "language", stage * 2, position[name], name, tower, kind)


def _seen_from_blocks(name: str, kind: str, blocks: Blocks, between: bool) -> str:
    """Name what convolves but embeds no patches: it stands between blocks, or behind them all."""
    behind = blocks.behind(name)
    if not between and not behind:
        return kind
    own = f"{own_name(name)} {blocks.tree.kind_of(name)}"
    if (between and blocks.tree.shrinks(name)) or re.search(r"down(?!_?proj)|merging", own, re.I):
        return "downsample"
    return "other" if not re.search(r"patch|embed|stem", name) else kind
