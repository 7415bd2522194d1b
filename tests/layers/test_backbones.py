"""Convolutional and hierarchical backbones have a row for each block, in the dialects in which people load them."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torchvision  # type: ignore[import-untyped]  # it has no stubs
import transformers
from layer_lists import blocks
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from layerprof import LayerProfiler
from layerprof.layers.find import find_layers
from layerprof.records import Phase

timm: Any = pytest.importorskip("timm", reason="timm is not installed")


def _timm(name: str) -> nn.Module:
    model: nn.Module = timm.create_model(name, pretrained=False)
    return model


def _torchvision(name: str) -> nn.Module:
    with torch.device("cpu") if "regnet" in name else nullcontext():  # it computes its widths with tensors
        model: nn.Module = torchvision.models.get_model(name, weights=None)
    return model


def _transformers(name: str, **config: Any) -> nn.Module:
    model: nn.Module = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**config))
    return model


SMALL_CONVNEXT = {"depths": [1, 1, 2, 1], "hidden_sizes": [8, 8, 16, 16]}

BACKBONES: dict[str, tuple[Callable[[], nn.Module], int, str, str]] = {
    "torchvision resnet50": (lambda: _torchvision("resnet50"), 3 + 4 + 6 + 3, "layer1.0", "layer4.2"),
    "torchvision convnext_tiny": (lambda: _torchvision("convnext_tiny"), 3 + 3 + 9 + 3, "features.1.0", "features.7.2"),
    "torchvision efficientnet_b0": (lambda: _torchvision("efficientnet_b0"), 16, "features.1.0", "features.7.0"),
    "torchvision efficientnet_v2_s": (lambda: _torchvision("efficientnet_v2_s"), 40, "features.1.0", "features.6.14"),
    "torchvision mobilenet_v2": (lambda: _torchvision("mobilenet_v2"), 17, "features.1", "features.17"),
    "torchvision mobilenet_v3_small": (lambda: _torchvision("mobilenet_v3_small"), 11, "features.1", "features.11"),
    "torchvision regnet_y_400mf": (
        lambda: _torchvision("regnet_y_400mf"),
        1 + 3 + 6 + 6,
        "trunk_output.block1.block1-0",
        "trunk_output.block4.block4-5",
    ),
    "torchvision densenet121": (
        lambda: _torchvision("densenet121"),
        6 + 12 + 24 + 16,
        "features.denseblock1.denselayer1",
        "features.denseblock4.denselayer16",
    ),
    "torchvision swin_t": (lambda: _torchvision("swin_t"), 2 + 2 + 6 + 2, "features.1.0", "features.7.1"),
    "torchvision r2plus1d_18": (lambda: _torchvision("r2plus1d_18"), 8, "layer1.0", "layer4.1"),
    "torchvision vgg11": (lambda: _torchvision("vgg11"), 8, "features.0", "features.18"),
    "timm resnet50": (lambda: _timm("resnet50"), 16, "layer1.0", "layer4.2"),
    "timm convnext_tiny": (lambda: _timm("convnext_tiny"), 18, "stages.0.blocks.0", "stages.3.blocks.2"),
    "timm efficientnet_b0": (lambda: _timm("efficientnet_b0"), 16, "blocks.0.0", "blocks.6.0"),
    "timm regnetx_002": (lambda: _timm("regnetx_002"), 1 + 1 + 4 + 7, "s1.b1", "s4.b7"),
    "timm mobilenetv3_small_100": (lambda: _timm("mobilenetv3_small_100"), 12, "blocks.0.0", "blocks.5.0"),
    "timm mobilenetv4_hybrid_medium": (lambda: _timm("mobilenetv4_hybrid_medium"), 32, "blocks.0.0", "blocks.4.0"),
    "timm densenet121": (lambda: _timm("densenet121"), 58, "features.denseblock1.denselayer1", ""),
    "timm fastvit_sa12": (lambda: _timm("fastvit_sa12"), 2 + 2 + 6 + 2, "stages.0.blocks.0", "stages.3.blocks.1"),
    "timm edgenext_xx_small": (lambda: _timm("edgenext_xx_small"), 12, "stages.0.blocks.0", "stages.3.blocks.1"),
    "timm coatnet_nano_rw_224": (lambda: _timm("coatnet_nano_rw_224"), 3 + 4 + 6 + 3, "stages.0.blocks.0", ""),
    "timm xception": (lambda: _timm("legacy_xception"), 12 + 2, "block1", ""),
    "transformers ResNet": (
        lambda: _transformers("ResNet"),
        16,
        "encoder.stages.0.layers.0",
        "encoder.stages.3.layers.2",
    ),
    "transformers ConvNext": (
        lambda: _transformers("ConvNext", **SMALL_CONVNEXT),
        5,
        "encoder.stages.0.layers.0",
        "encoder.stages.3.layers.0",
    ),
    "transformers EfficientNet": (lambda: _transformers("EfficientNet"), 55, "encoder.blocks.0", "encoder.blocks.54"),
    "transformers RegNet": (lambda: _transformers("RegNet"), 2 + 6 + 12 + 2, "encoder.stages.0.layers.0", ""),
    "transformers Swin": (lambda: _transformers("Swin"), 12, "encoder.layers.0.blocks.0", "encoder.layers.3.blocks.1"),
    "transformers TimmWrapper": (
        lambda: _transformers("TimmWrapper", architecture="resnet18"),
        8,
        "timm_model.layer1.0",
        "timm_model.layer4.1",
    ),
}


@functools.cache
def _built(name: str) -> nn.Module:
    with torch.device("meta"):
        return BACKBONES[name][0]()


@pytest.mark.parametrize("name", BACKBONES)
def test_every_block_has_a_row(name: str) -> None:
    """As many blocks as the paper's depths, all of the vision tower; stages have none of their own."""
    _, count, first, last = BACKBONES[name]
    found = blocks(find_layers(_built(name)), "vision")
    assert (len(found), found[0].name) == (count, first)
    assert last in ("", found[-1].name)
    assert {layer.kind for layer in found} == {"vision_block"}


@pytest.mark.parametrize("name", BACKBONES)
def test_rows_hold_every_matrix_once(name: str) -> None:
    """No row lies in another, and none of the parameters is outside all rows, but for scales of a few numbers."""
    model = _built(name)
    layers = find_layers(model)
    names = [layer.name for layer in layers]
    assert not any(a != b and a.startswith(b + ".") for a in names for b in names)
    inside = [p for layer in layers for p in model.get_submodule(layer.name).parameters()]
    assert len({id(p) for p in inside}) == len(inside)
    assert sum(p.numel() for p in inside) == pytest.approx(sum(p.numel() for p in model.parameters()), rel=0.01)


def test_what_stands_between_stages_and_behind_them_is_named() -> None:
    """A stem embeds patches, what makes the picture smaller between stages downsamples, the last one is other."""
    kinds = {
        layer.name: layer.kind for layer in find_layers(_built("timm convnext_tiny")) if layer.kind != "vision_block"
    }
    assert kinds == {
        "stem": "patch_embed",
        **{f"stages.{i}.downsample": "downsample" for i in (1, 2, 3)},
        "head": "head",
    }
    swin = {
        layer.name: layer.kind for layer in find_layers(_built("torchvision swin_t")) if layer.kind != "vision_block"
    }
    assert [name for name, kind in swin.items() if kind == "downsample"] == ["features.2", "features.4", "features.6"]
    mobile = {x.name: x.kind for x in find_layers(_built("torchvision mobilenet_v2")) if x.kind != "vision_block"}
    assert mobile == {"features.0": "patch_embed", "features.18": "other", "classifier": "head"}


class Experts(nn.Module):
    """A block whose experts hold most of its matrices, as nobody's names say."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8)) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add all experts' answers."""
        x = self.inner(x)
        for expert in self.experts:
            x = x + expert(x)
        return x


def test_experts_are_no_blocks() -> None:
    """What does not convolve is not entered: a list of experts belongs to its block."""
    found = find_layers(nn.Sequential(*(Experts() for _ in range(3))))
    assert [layer.name for layer in found if layer.kind == "decoder_layer"] == ["0", "1", "2"]


@pytest.mark.parametrize(("architecture", "count"), [("fastvit_t8", 10), ("resnet18", 8), ("convnext_atto", 12)])
def test_a_backbone_is_the_vision_tower_of_a_vlm(architecture: str, count: int) -> None:
    """FastVLM takes any of timm's: its blocks are vision, beside the decoder's, however few parameters they hold."""
    text = {"num_hidden_layers": 2, "vocab_size": 152128, "layer_types": ["full_attention"] * 2}
    config = transformers.FastVlmConfig(
        text_config={"model_type": "qwen2", **text},
        vision_config={"model_type": "timm_wrapper", "architecture": architecture, "hidden_size": 512},
    )
    with torch.device("meta"):
        layers = find_layers(transformers.FastVlmForConditionalGeneration(config))
    assert (len(blocks(layers, "vision")), len(blocks(layers, "language"))) == (count, 2)
    assert [layer.kind for layer in layers if layer.name == "model.multi_modal_projector"] == ["merger"]


def _by_torch(model: nn.Module, pixels: torch.Tensor) -> tuple[int, dict[str, int]]:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(pixels)
    counts = {name.partition(".")[2]: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    return counter.get_total_flops(), counts


@pytest.mark.parametrize(
    "name",
    [
        "torchvision mobilenet_v3_small",
        "timm regnetx_002",
        "timm edgenext_xx_small",
        "transformers ConvNext",
        "transformers TimmWrapper",
        "torchvision densenet121",
        "torchvision swin_t",
    ],
)
def test_flops_of_every_row_are_those_of_torch_s_counter(name: str) -> None:
    """Every block's FLOPs by torch's own counter of the block's module; the books balance exactly, and one call ran."""
    model, pixels = BACKBONES[name][0]().eval(), torch.randn(1, 3, 64, 64)
    with torch.no_grad(), LayerProfiler(model, flops="together") as prof:
        model(pixels)
    run = prof.run
    total, counts = _by_torch(model, pixels)
    assert (run.ledger.flops.total, run.ledger.flops.residual) == (total, 0)
    rows = [row for row in run.layers if row.kind in ("vision_block", "downsample")]
    assert {row.name: row.flops for row in rows} == {row.name: counts.get(row.name, 0) for row in rows}
    assert Counter(row.kind for row in rows)["vision_block"] == BACKBONES[name][1]
    assert {(row.phase, row.calls, row.tower) for row in run.layers} == {(Phase.VISION, 1, "vision")}
    assert all(row.span_s is not None and row.span_s.total > 0 for row in rows)


def test_a_block_is_selected_by_its_place() -> None:
    """`vision[3]` is the fourth block, first of the second stage."""
    model = _torchvision("resnet18").eval()
    with torch.no_grad(), LayerProfiler(model, layers="vision[3],vision[-1].conv2") as prof:
        model(torch.randn(1, 3, 32, 32))
    assert [row.name for row in prof.run.layers] == ["layer2.1", "layer4.1.conv2"]
