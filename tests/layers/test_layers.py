"""Layers of every family are found, in order of execution, under the right tower, wrapped, adapted or quantised."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any, cast

import families
import pytest
import torch
from layer_lists import blocks
from torch import nn

from layerprof.layers.find import find_layers
from layerprof.records import BLOCK_KINDS

FAMILY_NAMES = sorted(families.FAMILIES)


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_every_family_has_its_blocks_under_the_right_tower(name: str) -> None:
    """The numbers of vision and language blocks are those that the configuration asks for."""
    family = families.build(name)
    layers = find_layers(family.model)
    assert (len(blocks(layers, "vision")), len(blocks(layers, "language"))) == family.blocks


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_every_layer_is_a_module_of_the_model_once(name: str) -> None:
    """Names are keys of `named_modules()`, no module has two rows, and no layer lies inside another."""
    model = families.build(name).model
    layers = find_layers(model)
    modules = dict(model.named_modules())
    assert len({id(modules[x.name]) for x in layers}) == len(layers)
    for layer in layers:
        assert not any(layer.name.startswith(other.name + ".") for other in layers)


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_nearly_all_parameters_are_inside_layers(name: str) -> None:
    """What no layer holds is at most a stray parameter of a container (a class token, a learned query)."""
    model = families.build(name).model
    modules = dict(model.named_modules())
    inside = {id(p) for x in find_layers(model) for p in modules[x.name].parameters()}
    outside = sum(p.numel() for p in model.parameters() if id(p) not in inside)
    assert outside <= 0.02 * sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_indices_count_within_kind_and_tower(name: str) -> None:
    """Each kind of a tower is numbered from 0 without a gap, in the order of the layers."""
    seen: dict[tuple[str, str], int] = {}
    for layer in find_layers(families.build(name).model):
        assert layer.index == seen.get((layer.tower, layer.kind), 0)
        seen[layer.tower, layer.kind] = layer.index + 1


def test_layers_stand_in_the_order_in_which_qwen_runs_them() -> None:
    """Vision first: patches, blocks, merger; then embedding, decoder layers, norm and head."""
    kinds = [x.kind for x in find_layers(families.build("qwen2_5_vl").model)]
    runs = [kind for i, kind in enumerate(kinds) if i == 0 or kinds[i - 1] != kind]
    assert [kind for kind in runs if kind != "rotary"] == [
        "patch_embed",
        "vision_block",
        "merger",
        "embed_tokens",
        "decoder_layer",
        "norm",
        "lm_head",
    ]


def test_the_named_rest_of_qwen() -> None:
    """Every module beside the blocks that holds parameters has a kind of its own."""
    named = {x.kind: x.name for x in find_layers(families.build("qwen2_5_vl").model) if x.kind not in BLOCK_KINDS}
    assert named["patch_embed"] == "model.visual.patch_embed"
    assert named["merger"] == "model.visual.merger"
    assert named["embed_tokens"] == "model.language_model.embed_tokens"
    assert named["norm"] == "model.language_model.norm"
    assert named["lm_head"] == "lm_head"


def test_deepstack_mergers_are_mergers_not_blocks() -> None:
    """Qwen3-VL's list of mergers is a repeated list too, but mixes no positions."""
    layers = find_layers(families.build("qwen3_vl").model)
    assert sum(x.kind == "merger" for x in layers) == 3


def test_connectors_of_all_families_are_mergers() -> None:
    """Projector, connector and merger are one kind under different names."""
    for name in ("llava", "llava_onevision", "idefics3", "smolvlm", "paligemma", "gemma3", "internvl", "mllama"):
        merger = [x for x in find_layers(families.build(name).model) if x.kind == "merger"]
        assert [x.tower for x in merger] == ["vision"], name


def test_cross_attention_layers_are_decoder_layers_like_the_others() -> None:
    """Mllama's decoder has two classes of layers in one list."""
    layers = [x for x in find_layers(families.build("mllama").model) if x.kind == "decoder_layer"]
    assert [x.name.rpartition(".")[2] for x in layers] == ["0", "1", "2"]


def test_an_encoder_runs_before_the_decoder_that_reads_it() -> None:
    """T5's encoder layers have a kind of their own and come first."""
    kinds = [x.kind for x in find_layers(families.build("t5").model) if x.kind in BLOCK_KINDS]
    assert kinds == ["encoder_layer"] * 2 + ["decoder_layer"] * 2


@pytest.mark.parametrize("wrap", [nn.Sequential, lambda m: nn.ModuleDict({"module": m}), torch.compile])
def test_wrapped_models_have_the_same_layers_under_longer_names(wrap: Callable[[nn.Module], nn.Module]) -> None:
    """A wrapper only adds a prefix; `torch.compile` adds `_orig_mod`."""
    model = families.build("qwen2_5_vl").model
    bare = find_layers(model)
    wrapped = find_layers(wrap(model))
    assert [(x.tower, x.kind, x.index) for x in wrapped] == [(x.tower, x.kind, x.index) for x in bare]
    assert all(long.name.endswith("." + short.name) for long, short in zip(wrapped, bare, strict=True))


def test_adapters_around_projections_change_no_layer() -> None:
    """A block whose linear layers are replaced by wrappers (as LoRA does) is still a block of the same name."""
    model = families.build("llama").model
    before = find_layers(model)
    for layer in model.model.layers:
        adapted = nn.Module()
        adapted.base_layer = layer.self_attn.q_proj
        adapted.lora_A = nn.ModuleDict({"default": nn.Linear(32, 4)})
        layer.self_attn.q_proj = adapted
    assert find_layers(model) == before


class Packed(nn.Module):
    """A quantised linear layer as GPTQ and AWQ have it: its matrix packed in a buffer."""

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.register_buffer("qweight", inner.weight.detach().to(torch.int8))
        self.bias = inner.bias
        self.in_features, self.out_features = inner.in_features, inner.out_features

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Unpack, then multiply."""
        return nn.functional.linear(x, cast("torch.Tensor", self.qweight).to(x.dtype), self.bias)


def _dynamic(inner: nn.Linear) -> nn.Module:
    kind: Any = torch.ao.nn.quantized.dynamic.Linear  # untyped there
    return cast("nn.Module", kind(inner.in_features, inner.out_features))


@pytest.mark.parametrize("quantised", [Packed, _dynamic])
@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
def test_quantised_matrices_are_matrices(name: str, quantised: Callable[[nn.Linear], nn.Module]) -> None:
    """A matrix that is no parameter, in a buffer or in an object of torch's, leaves every layer where it was."""
    model = families.build(name).model
    before = find_layers(model)
    for module in list(model.modules()):
        for part, child in list(module.named_children()):
            if type(child) is nn.Linear:
                setattr(module, part, quantised(child))
    assert find_layers(model) == before


def test_blocks_compiled_one_by_one_are_found() -> None:
    """Layers wrapped by `torch.compile` keep their place in the list."""
    model = families.build("llama").model
    names = [x.name for x in find_layers(model)]
    for i, layer in enumerate(model.model.layers):
        model.model.layers[i] = torch.compile(layer)
    assert [x.name for x in find_layers(model)] == names


def test_one_single_block_is_found() -> None:
    """A model cut to one layer still has a list with one block."""
    family = families.qwen2_5_vl(num_hidden_layers=1)
    assert len(blocks(find_layers(family.model), "language")) == 1


def test_stages_of_blocks_give_blocks_not_stages() -> None:
    """Swin nests its blocks in stages; the blocks are the layers."""
    import transformers

    config = transformers.SwinConfig(image_size=32, patch_size=4, embed_dim=8, depths=[1, 2], num_heads=[1, 2])
    found = find_layers(transformers.SwinModel(config))
    assert [x.name for x in found if x.kind == "vision_block"] == [
        "encoder.layers.0.blocks.0",
        "encoder.layers.1.blocks.0",
        "encoder.layers.1.blocks.1",
    ]


@pytest.mark.parametrize("name", ["blip", "vit_bert"])
def test_self_and_cross_attention_of_a_block_are_parts_of_it(name: str) -> None:
    """BERT as a decoder has two attentions side by side, which are not two blocks; its layers decode."""
    found = [x for x in find_layers(families.build(name).model) if x.tower == "language"]
    assert [x.name.rpartition(".bert.")[2] for x in found if x.kind == "decoder_layer"] == [
        "encoder.layer.0",
        "encoder.layer.1",
    ]
    assert [x.kind for x in found if x.kind not in BLOCK_KINDS] == ["embed_tokens", "lm_head"]


def test_the_matrix_between_encoder_and_decoder_connects_the_towers() -> None:
    """VisionEncoderDecoderModel projects where the widths differ."""
    (merger,) = [x for x in find_layers(families.build("vit_bert").model) if x.kind == "merger"]
    assert (merger.name, merger.tower) == ("enc_to_dec_proj", "vision")


def test_a_decoder_that_calls_itself_encoder_decodes() -> None:
    """GIT's only language blocks are `encoder.layer`; a causal model has nothing else to decode with."""
    assert sum(x.kind == "decoder_layer" for x in find_layers(families.build("git").model)) == 2


def test_the_finder_can_be_imported_without_torch() -> None:
    """The command line reads selectors before it loads torch."""
    modules = "layerprof.layers.find, layerprof.flops.operators, layerprof.machine.gpus"
    code = f"import sys, {modules}; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
