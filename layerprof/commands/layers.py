"""`layerprof layers`: what can be selected in a model, without loading its weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from layerprof.commands import printing
from layerprof.layers.find import find_layers
from layerprof.layers.selector import parse_selector, select
from layerprof.machine.modules import named
from layerprof.machine.stored import size
from layerprof.readings import Layer
from layerprof.records import BLOCK_KINDS

if TYPE_CHECKING:
    from rich.console import Console

WIDE = 110
"""Columns from which the class of each layer fits beside it."""


def show(model: str, selector: str, console: Console | None = None) -> None:
    """Print the layers that a selector takes: the shortest selector of each, name, class, parameters.

    The model is built without storage, from its configuration alone. Raises RequestError for an unknown model and
    SelectorError for a selector that matches nothing.
    """
    from rich.table import Table

    console = console or printing.console()
    wanted = parse_selector(selector)
    live = build(model)
    found = find_layers(live)
    modules = named(live)
    table = Table(box=None, pad_edge=False, header_style="bold")
    titles = (
        ("--layers", "name", "parameters", "class") if console.width >= WIDE else ("--layers", "name", "parameters")
    )
    for title in titles:
        table.add_column(title, justify="right" if title == "parameters" else "left", overflow="fold")
    for layer in select(found, wanted, live):
        module = modules[layer.name]
        short = shortest(layer, found)
        cells = (short, "" if short == layer.shown else layer.shown, f"{size(module):,}", type(module).__name__)
        table.add_row(*cells[: len(titles)])
    console.print(table)
    console.print(
        "\nAlso: all, vision, language, ranges (language[0:4]), submodules (language[*].mlp), globs on names, "
        "and several joined by commas."
    )


def shortest(layer: Layer, found: Sequence[Layer]) -> str:
    """Return the shortest selector that takes this layer alone."""
    if layer.kind in BLOCK_KINDS:
        return f"{layer.tower}[{layer.index}]"
    if layer.kind != "module":
        return layer.kind if sum(other.kind == layer.kind for other in found) == 1 else layer.name
    block = next((b for b in found if b.kind in BLOCK_KINDS and layer.name.startswith(b.name + ".")), None)
    return f"{shortest(block, found)}{layer.name.removeprefix(block.name)}" if block else layer.name


def build(model: str) -> Any:
    """Return the model without storage; `auto` is the bundled one unless there is a GPU with room."""
    import torch

    from layerprof.estimate import blueprint
    from layerprof.estimate.ghost import Ghosts
    from layerprof.models import configuration

    with Ghosts():
        return blueprint.build(configuration.find(model).config, torch.float16)
