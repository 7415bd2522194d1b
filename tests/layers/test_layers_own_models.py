"""Layers of a user's own model are found by structure, whatever its modules are called."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from layer_lists import blocks
from torch import nn

from layerprof.errors import RequestError
from layerprof.layers.find import find_layers
from layerprof.records import BLOCK_KINDS


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


def test_a_block_used_several_times_is_one_layer() -> None:
    """ALBERT-like sharing: the list shows one module under several names, of which the first counts."""
    shared = AttentionBlock()
    found = find_layers(nn.ModuleDict({"layers": nn.ModuleList([shared, AttentionBlock(), shared, shared])}))
    assert [x.name for x in found] == ["layers.0", "layers.1"]


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


@pytest.mark.parametrize("model", [nn.Module(), nn.ParameterList([torch.ones(2, 2)]), nn.ModuleDict({"a": nn.ReLU()})])
def test_what_can_never_be_called_is_refused(model: nn.Module) -> None:
    """A module without a `forward` and without layers: the message says what to pass."""
    with pytest.raises(RequestError, match="no layers to profile") as refused:
        find_layers(model)
    assert "that can be called" in refused.value.remedy
