"""Layers are found by structure, in order of execution, under the right tower, whatever the model."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any, cast

import families
import pytest
import torch
from torch import nn

from layerprof.errors import RequestError
from layerprof.layers.find import find_layers
from layerprof.readings import Layer
from layerprof.records import BLOCK_KINDS

FAMILY_NAMES = sorted(families.FAMILIES)


def blocks(layers: tuple[Layer, ...], tower: str) -> list[Layer]:
    """Return the blocks of a tower."""
    return [x for x in layers if x.tower == tower and x.kind in BLOCK_KINDS]


class Block(nn.Module):
    """A user's own block: nothing in its names says what it does."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add what two matrices make of the input."""
        out: torch.Tensor = x + self.second(torch.relu(self.first(x)))
        return out


class AttentionBlock(nn.Module):
    """Attention and an MLP under the usual names."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(8, 2, batch_first=True)
        self.mlp = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Mix positions, then widths."""
        out: torch.Tensor = self.mlp(self.attn(x, x, x)[0])
        return out


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


def test_a_block_used_several_times_is_one_layer() -> None:
    """ALBERT-like sharing: the list shows one module under several names, of which the first counts."""
    shared = AttentionBlock()
    found = find_layers(nn.ModuleDict({"layers": nn.ModuleList([shared, AttentionBlock(), shared, shared])}))
    assert [x.name for x in found] == ["layers.0", "layers.1"]


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


class Autoencoder(nn.Module):
    """Pictures to words and back, as Chameleon's: without a `forward`, its levels held by bare modules."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = PictureDecoder()
        self.decoder = PictureDecoder()

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Use one of the two."""
        encoded: torch.Tensor = self.encoder(pixels)
        return encoded


class PictureDecoder(nn.Module):
    """Convolutions in levels; each level is only a place for them."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        for _ in range(2):
            level = nn.Module()
            level.blocks = nn.ModuleList([AttentionBlock()])
            level.attention = nn.ModuleList([nn.MultiheadAttention(8, 2, batch_first=True)])
            level.scale = nn.Conv2d(8, 8, 1)
            self.levels.append(level)
        self.norm_out = nn.LayerNorm(8)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Call what the levels hold, never the levels."""
        for level in self.levels:
            level = cast("Any", level)
            width = level.scale(pixels).flatten(2).transpose(1, 2)
            pixels = level.blocks[0](width).transpose(1, 2).unflatten(2, pixels.shape[2:])
        return pixels


def test_modules_that_are_never_called_are_no_layers() -> None:
    """A module without a `forward` only holds others: every layer of what ran was called, down to the last level."""
    model = nn.ModuleDict({"vqmodel": Autoencoder(), "embed_tokens": nn.Embedding(9, 8)})
    called: set[str] = set()
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: called.add(name))
    cast("Autoencoder", model["vqmodel"]).encode(torch.randn(1, 8, 4, 4))
    found = [x.name for x in find_layers(model) if x.name.startswith("vqmodel.encoder.levels")]
    assert len(found) >= 4
    assert {name for name in found if "attention" not in name} <= called


def test_a_picture_s_decoder_sees_pixels() -> None:
    """All of an autoencoder is vision, the norm in its decoder included, whatever its class calls it."""
    found = find_layers(nn.ModuleDict({"vqmodel": Autoencoder(), "embed_tokens": nn.Embedding(9, 8)}))
    assert {x.tower for x in found if x.name.startswith("vqmodel")} == {"vision"}


def test_letters_inside_a_class_name_are_no_word() -> None:
    """`SolarOpenRMSNorm` has "rope" in it, and is a norm."""
    norm = type("SolarOpenRMSNorm", (nn.LayerNorm,), {})(8)
    found = find_layers(nn.ModuleDict({"layers": nn.ModuleList([AttentionBlock(), AttentionBlock()]), "norm": norm}))
    assert [x.kind for x in found if x.name == "norm"] == ["norm"]


def test_own_blocks_without_any_telling_name_are_found() -> None:
    """Repetition is enough: a user's list of modules of one class."""
    model = nn.Module()
    model.body = nn.ModuleList(Block() for _ in range(3))
    model.out = nn.Linear(8, 2)
    found = find_layers(model)
    assert [x.name for x in found if x.kind in BLOCK_KINDS] == ["body.0", "body.1", "body.2"]
    assert "out" in {x.name for x in found}


def test_blocks_as_attributes_are_found() -> None:
    """Blocks need no list: attributes of one class beside each other repeat as well."""
    model = nn.Module()
    model.block1, model.block2 = Block(), Block()
    assert [x.name for x in find_layers(model) if x.kind in BLOCK_KINDS] == ["block1", "block2"]


def test_a_sequential_of_blocks_is_found() -> None:
    """`nn.Sequential` is a list of blocks too."""
    assert [x.name for x in find_layers(nn.Sequential(*(AttentionBlock() for _ in range(2))))] == ["0", "1"]


def test_layers_of_another_kind_in_a_list_of_blocks_are_blocks() -> None:
    """Hybrid decoders: short convolutions or state spaces stand in one list with attention; a norm in it does not."""
    convolution = Block()
    convolution.first = nn.Conv1d(8, 8, 3)  # type: ignore[assignment]  # a block of another kind
    found = find_layers(nn.ModuleDict({"layers": nn.ModuleList([convolution, AttentionBlock(), nn.LayerNorm(8)])}))
    assert [x.name for x in found if x.kind in BLOCK_KINDS] == ["layers.0", "layers.1"]


def test_what_stands_around_blocks_in_a_sequence_is_no_block() -> None:
    """An `nn.Sequential` holds the embedding and the head as well."""
    head = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
    found = find_layers(nn.Sequential(nn.Embedding(9, 8), AttentionBlock(), AttentionBlock(), head))
    assert [x.name for x in found if x.kind in BLOCK_KINDS] == ["1", "2"]


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


def test_sound_is_no_picture() -> None:
    """An audio tower convolves in two dimensions and has an adapter, and is not part of the vision tower."""
    model = nn.Module()
    model.audio_tower = nn.Module()
    model.audio_tower.conv_stem, model.audio_tower.adapter = nn.Conv2d(1, 8, 3), nn.Linear(8, 8)
    model.audio_tower.layers = nn.ModuleList(AttentionBlock() for _ in range(2))
    model.visual = nn.Module()
    model.visual.patch_embed, model.visual.blocks = nn.Conv2d(3, 8, 4, 4), nn.ModuleList([AttentionBlock()])
    model.embed_tokens = nn.Embedding(99, 8)
    vision = [x.name for x in find_layers(model) if x.tower == "vision"]
    assert vision == ["visual.patch_embed", "visual.blocks.0"]


def test_a_decoder_of_pictures_is_vision() -> None:
    """The decoder of an autoencoder beside the towers is made of convolutions and reads no tokens."""
    model = nn.Module()
    model.vqmodel, model.language_model = nn.Module(), nn.Module()
    model.vqmodel.decoder = nn.Module()
    model.vqmodel.decoder.conv_in, model.vqmodel.decoder.norm_out = nn.Conv2d(4, 8, 3), nn.GroupNorm(2, 8)
    model.vqmodel.decoder.up = nn.ModuleList(AttentionBlock() for _ in range(2))
    model.language_model.embed_tokens = nn.Embedding(99, 8)
    model.language_model.layers = nn.ModuleList(AttentionBlock() for _ in range(2))
    towers = {x.name: x.tower for x in find_layers(model)}
    assert towers["vqmodel.decoder.norm_out"] == "vision"
    assert towers["language_model.layers.0"] == "language"


def test_torch_transformer_encoder_layers_are_blocks() -> None:
    """The encoder that torch ships, with an embedding and a head around it."""
    model = nn.Module()
    model.embedding = nn.Embedding(50, 8)
    model.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 3)
    model.head = nn.Linear(8, 50)
    found = find_layers(model)
    assert [x.name for x in found if x.kind == "encoder_layer"] == [f"encoder.layers.{i}" for i in range(3)]
    assert [x.name for x in found if x.kind == "embed_tokens"] == ["embedding"]


def test_towers_that_cannot_be_told_apart_are_one_language_tower() -> None:
    """Two lists of blocks and nothing that sees pixels: all layers are under `language`."""
    model = nn.Module()
    model.left = nn.ModuleList(AttentionBlock() for _ in range(2))
    model.right = nn.ModuleList(AttentionBlock() for _ in range(2))
    assert {x.tower for x in find_layers(model)} == {"language"}


def test_a_tower_without_any_name_is_told_by_its_convolution() -> None:
    """Patches come from a 2-D convolution; tokens from an embedding."""
    eye, mouth = nn.Module(), nn.Module()
    eye.stem, eye.blocks = nn.Conv2d(3, 8, 4, 4), nn.ModuleList(AttentionBlock() for _ in range(2))
    mouth.words, mouth.blocks = nn.Embedding(100, 8), nn.ModuleList(AttentionBlock() for _ in range(3))
    model = nn.Module()
    model.a, model.b = eye, mouth
    layers = find_layers(model)
    assert [x.name for x in blocks(layers, "vision")] == ["a.blocks.0", "a.blocks.1"]
    assert [x.name for x in blocks(layers, "language")] == [f"b.blocks.{i}" for i in range(3)]


def test_a_model_without_blocks_still_has_rows() -> None:
    """Where nothing repeats, the modules that hold parameters are the rows."""
    model = nn.Module()
    model.encoder, model.decoder = nn.Linear(4, 2), nn.Conv1d(2, 4, 1)
    assert {x.name for x in find_layers(model)} == {"encoder", "decoder"}


def test_a_module_without_parts_is_refused() -> None:
    """A bare function of a module has no layers, and the message says what to pass."""
    with pytest.raises(RequestError, match="no layers to profile"):
        find_layers(nn.ReLU())


def test_the_finder_can_be_imported_without_torch() -> None:
    """The command line reads selectors before it loads torch."""
    modules = "layerprof.layers.find, layerprof.flops.operators, layerprof.machine.gpus"
    code = f"import sys, {modules}; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
