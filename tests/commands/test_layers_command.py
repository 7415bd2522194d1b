"""`layerprof layers`: every selector that is printed takes just the layer beside it."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from layerprof.commands import layers
from layerprof.errors import SelectorError
from layerprof.layers.find import find_layers
from layerprof.layers.selector import select


@pytest.mark.parametrize("wanted", ["all", "language[*].mlp", "vision[1:3].attn.qkv"])
def test_the_selector_printed_for_a_layer_takes_that_layer_alone(wanted: str) -> None:
    """What `layerprof layers` prints can be given back to --layers."""
    live = layers.build("demo")
    found = find_layers(live)
    for layer in select(found, wanted, live):
        again = select(found, layers.shortest(layer, found), live)
        assert [other.name for other in again] == [layer.name]


def test_the_list_names_every_block_and_the_rest() -> None:
    """Four vision blocks, six decoder layers, and the named rest with their parameter counts."""
    out = io.StringIO()
    layers.show("demo", "all", Console(file=out, width=120))
    text = out.getvalue()
    for selector in ("vision[0]", "vision[3]", "language[0]", "language[5]", "lm_head", "merger", "patch_embed"):
        assert f"\n{selector} " in text
    # A decoder layer of the bundled model: two norms, four attention and three MLP matrices, three biases.
    assert "320,192" in text


def test_a_selector_without_match_names_the_nearest() -> None:
    """The list is asked like the profiler."""
    with pytest.raises(SelectorError, match="nearest"):
        layers.show("demo", "languag", Console(file=io.StringIO()))
