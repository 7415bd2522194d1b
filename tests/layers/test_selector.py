"""The `--layers` grammar: what each selector takes, and what the message says when it takes nothing."""

from __future__ import annotations

import families
import pytest

from layerprof.errors import SelectorError
from layerprof.layers.find import find_layers
from layerprof.layers.selector import parse_selector, select
from layerprof.readings import Layer

LAYERS = (
    Layer("v.patch", "vision", "patch_embed", 0),
    *(Layer(f"v.blocks.{i}", "vision", "vision_block", i) for i in range(4)),
    Layer("l.embed", "language", "embed_tokens", 0),
    *(Layer(f"l.layers.{i}", "language", "decoder_layer", i) for i in range(12)),
    Layer("lm_head", "language", "lm_head", 0),
)


def names(selector: str) -> list[str]:
    """Return the names that a selector takes."""
    return [layer.name for layer in select(LAYERS, selector)]


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("all", [layer.name for layer in LAYERS]),
        ("vision", ["v.patch", "v.blocks.0", "v.blocks.1", "v.blocks.2", "v.blocks.3"]),
        ("language[3]", ["l.layers.3"]),
        ("language[0:4]", ["l.layers.0", "l.layers.1", "l.layers.2", "l.layers.3"]),
        ("language[::5]", ["l.layers.0", "l.layers.5", "l.layers.10"]),
        ("language[-1]", ["l.layers.11"]),
        ("vision[1,-1]", ["v.blocks.1", "v.blocks.3"]),
        ("vision[*]", ["v.blocks.0", "v.blocks.1", "v.blocks.2", "v.blocks.3"]),
        ("vision[:]", ["v.blocks.0", "v.blocks.1", "v.blocks.2", "v.blocks.3"]),
        ("vision[::]", ["v.blocks.0", "v.blocks.1", "v.blocks.2", "v.blocks.3"]),
        ("vision[0:4]", ["v.blocks.0", "v.blocks.1", "v.blocks.2", "v.blocks.3"]),
        ("vision[0:99]", ["v.blocks.0", "v.blocks.1", "v.blocks.2", "v.blocks.3"]),
        ("vision[::-1]", ["v.blocks.0", "v.blocks.1", "v.blocks.2", "v.blocks.3"]),
        ("vision[:-1]", ["v.blocks.0", "v.blocks.1", "v.blocks.2"]),
        ("vision[-2:]", ["v.blocks.2", "v.blocks.3"]),
        ("vision[-4]", ["v.blocks.0"]),
        ("vision[0:1,2:]", ["v.blocks.0", "v.blocks.2", "v.blocks.3"]),
        ("all[0]", ["v.blocks.0"]),
        ("language", ["l.embed", *(f"l.layers.{i}" for i in range(12)), "lm_head"]),
        ("decoder_layer[10:]", ["l.layers.10", "l.layers.11"]),
        ("lm_head", ["lm_head"]),
        ("patch_embed,lm_head", ["v.patch", "lm_head"]),
        ("*.layers.[0-2]", ["l.layers.0", "l.layers.1", "l.layers.2"]),
        ("l.layers.1?", ["l.layers.10", "l.layers.11"]),
        ("v.blocks.2", ["v.blocks.2"]),
        ("language[5], vision[0]", ["v.blocks.0", "l.layers.5"]),
        ("language[1],language[0:3]", ["l.layers.0", "l.layers.1", "l.layers.2"]),
    ],
)
def test_a_selector_takes_its_layers_in_their_order(selector: str, expected: list[str]) -> None:
    """Unions, ranges, kinds and globs; each layer once, in order of execution."""
    assert names(selector) == expected


@pytest.mark.parametrize(
    "selector",
    ["", " ", "a,,b", ",vision", "language[", "language]", "language[x]", "language[]", "language[1:2:3:4]",
     "language[0:4:0]", "vision language", "language[1.5]"],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_before_any_model(selector: str) -> None:
    """Syntax alone is judged, and the message shows how to write it."""
    with pytest.raises(SelectorError, match="cannot be read") as caught:
        parse_selector(selector)
    assert "language[0:4]" in caught.value.remedy
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("selector", "nearest"),
    [
        ("language[12]", "language[0:12]"),
        ("language[-13]", "language[0:12]"),
        ("vision[4]", "vision[0:4]"),
        ("vision[-5]", "vision[0:4]"),
        ("langage", "language"),
        ("lm_haed", "lm_head"),
        ("v.block.0", "v.blocks.0"),
        ("*.leyers.*", "l.layers"),
        ("language[5:3]", "language[0:12]"),
        ("nonsense", "language[0:12]"),
    ],
)
def test_what_matches_nothing_is_answered_with_the_nearest(selector: str, nearest: str) -> None:
    """The message names what was probably meant, and the command that lists everything."""
    with pytest.raises(SelectorError) as caught:
        select(LAYERS, selector)
    assert nearest in caught.value.problem
    assert "layerprof layers" in caught.value.remedy


@pytest.mark.parametrize(
    ("selector", "meant"),
    [("langage", "'language'"), ("visoin[0]", "'vision'"), ("lm_haed", "'lm_head'"), ("al", "'all'")],
)
def test_a_word_that_is_nearly_one_of_the_grammar_is_asked_about(selector: str, meant: str) -> None:
    """What may be typed instead stands before the command that lists everything."""
    with pytest.raises(SelectorError) as caught:
        select(LAYERS, selector)
    assert caught.value.remedy.startswith(f"Did you mean {meant}? ")


@pytest.mark.parametrize("selector", ["language[12]", "*.leyers.*", "nonsense"])
def test_nothing_is_suggested_where_no_word_is_wrong_or_near(selector: str) -> None:
    """An index out of range, a glob, a word like none."""
    with pytest.raises(SelectorError) as caught:
        select(LAYERS, selector)
    assert "Did you mean" not in caught.value.remedy


def test_a_submodule_needs_the_model() -> None:
    """Below the level of layers there is nothing to match without the model."""
    with pytest.raises(SelectorError, match="no model to look into"):
        select(LAYERS, "language[*].mlp")


def test_submodules_become_layers_of_kind_module() -> None:
    """`language[*].mlp` takes one module per decoder layer, numbered in order."""
    model = families.build("qwen2_5_vl").model
    found = select(find_layers(model), "language[*].mlp", model)
    expected = [f"model.language_model.layers.{i}.mlp" for i in range(2)]
    assert [(x.name, x.tower, x.kind, x.index) for x in found] == [
        (name, "language", "module", i) for i, name in enumerate(expected)
    ]


def test_a_bare_tower_before_a_submodule_means_each_of_its_blocks() -> None:
    """`language.mlp` is `language[*].mlp`, without the layers of the tower that are no blocks."""
    model = families.build("qwen2_5_vl").model
    layers = find_layers(model)
    bare = [x.name for x in select(layers, "language.mlp", model)]
    assert bare == [f"model.language_model.layers.{i}.mlp" for i in range(2)]
    for short, written_out in (("vision.attn.qkv", "vision[*].attn.qkv"), ("all.mlp", "vision.mlp,language.mlp")):
        assert select(layers, short, model) == select(layers, written_out, model)
    blocks = [f"model.visual.blocks.{i}.mlp" for i in range(3)]
    assert [x.name for x in select(layers, "vision.mlp", model)] == blocks, "the merger's mlp is no block's"


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("language[1].self_attn.q_proj", ["model.language_model.layers.1.self_attn.q_proj"]),
        ("vision[0].mlp.*_proj", [f"model.visual.blocks.0.mlp.{p}_proj" for p in ("gate", "up", "down")]),
        ("vision[0:2].attn.qkv", ["model.visual.blocks.0.attn.qkv", "model.visual.blocks.1.attn.qkv"]),
        ("*.0.self_attn.o_proj", ["model.language_model.layers.0.self_attn.o_proj"]),
        ("model.visual", ["model.visual"]),
        ("language[0],language[0].mlp", ["model.language_model.layers.0", "model.language_model.layers.0.mlp"]),
    ],
)
def test_names_and_globs_reach_every_module(selector: str, expected: list[str]) -> None:
    """A pattern that no layer's name matches is tried on all modules; parents stand before their parts."""
    model = families.build("qwen2_5_vl").model
    assert [x.name for x in select(find_layers(model), selector, model)] == expected


def test_a_submodule_of_a_vision_block_is_in_the_vision_tower() -> None:
    """A module takes its tower from the layer around it, or from the layers inside it."""
    model = families.build("qwen2_5_vl").model
    layers = find_layers(model)
    towers = {x.name: x.tower for x in select(layers, "vision[0].mlp,model.visual,language[0].mlp", model)}
    assert towers == {
        "model.visual.blocks.0.mlp": "vision",
        "model.visual": "vision",
        "model.language_model.layers.0.mlp": "language",
    }


def test_a_missing_submodule_is_refused_with_the_nearest() -> None:
    """A typing error below the level of layers is answered like any other."""
    model = families.build("llama").model
    with pytest.raises(SelectorError, match="matches nothing"):
        select(find_layers(model), "language[*].mpl", model)
