"""FLOPs of a user's own model, of single operators and of kernels nobody knows: equal to counts by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # torch's own documentation calls it so
from layerprof.hooks.shapes import ShapesHook
from torch import nn
from work_sums import parts

from layerprof.layers.find import find_layers
from layerprof.layers.selector import select
from layerprof.readings import WorkReading
from layerprof.records import Phase

# --- own models ----------------------------------------------------------------------------------------------------


class Toy(nn.Module):
    """A model of a user: two blocks, one of them called twice, work between them, a kernel nobody knows."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8)) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Call the first block twice, the third never, and multiply outside of any."""
        first: nn.Module = self.blocks[0]
        x = self.blocks[1](first(first(x)))
        return x @ x.transpose(-1, -2)


def run_toy(model: nn.Module, *, selector: str = "all", times: int = 1) -> WorkReading:
    """Count calls of a model on (2, 5, 8) inputs."""
    hook = ShapesHook(model, select(find_layers(model), selector, model))
    with hook, torch.no_grad():
        for index in range(times):
            with hook.batch(index):
                model(torch.ones(2, 5, 8))
    return hook.reading()  # type: ignore[no-any-return]  # mypy knows hooks/ by another name


def test_calls_are_counted_and_uncalled_layers_are_absent() -> None:
    """The block that runs twice has two calls and twice the work; the one that never runs has no row."""
    reading = run_toy(Toy())
    work = {name: (w.calls, w.flops) for (name, _), w in reading.layers.items()}
    assert work == {"blocks.0": (2, 2 * 2 * 10 * 2 * 128), "blocks.1": (1, 2 * 10 * 2 * 128)}


def test_packed_matrices_of_equal_input_and_other_output_are_told_apart() -> None:
    """A quantised layer's matrix is no tensor: only what it gives tells its width."""
    kind: Any = torch.ao.nn.quantized.dynamic.Linear
    model = nn.Sequential(*(nn.Sequential(kind(8, wide), kind(wide, 8)) for wide in (8, 24)))
    work = {name: w.flops for (name, _), w in run_toy(model).layers.items()}
    assert work == {"0": 2 * 10 * (64 + 64), "1": 2 * 10 * (192 + 192)}


def test_work_between_layers_has_the_name_of_its_module() -> None:
    """The product in the model's own forward is the rest, and the books balance."""
    reading = run_toy(Toy())
    assert {path: w.flops for (path, _), w in reading.outside.items()} == {"Toy": 2 * 2 * 5 * 8 * 5}
    assert parts(reading) == reading.total_flops


def test_batches_add_up() -> None:
    """Three batches are three times the work of one."""
    one, three = run_toy(Toy()), run_toy(Toy(), times=3)
    assert three.total_flops == 3 * one.total_flops
    assert three.layers["blocks.0", Phase.PREFILL].calls == 6


def test_a_selected_submodule_sees_its_work_and_leaves_it_to_its_block() -> None:
    """One of a block's two matrices is asked for: its own figure is there, and the block's is as without it."""
    reading, without = run_toy(Toy(), selector="all,blocks.1.0"), run_toy(Toy())
    assert reading.whole["blocks.1.0", Phase.PREFILL].flops == 2 * 10 * 128
    assert reading.whole["blocks.1", Phase.PREFILL].flops == 2 * 10 * 2 * 128
    assert reading.layers == without.layers
    assert (reading.outside, reading.total_flops) == (without.outside, without.total_flops)
    assert parts(reading) == reading.total_flops


def test_a_layer_that_raises_does_not_shift_the_account() -> None:
    """After an error inside a layer, work is again given to the right ones."""
    model = Toy()
    hook = ShapesHook(model, find_layers(model))
    with hook, torch.no_grad(), hook.batch(0):
        with pytest.raises(RuntimeError):
            model(torch.ones(2, 5, 9))
        model.blocks[1](torch.ones(2, 5, 8))
    assert hook.reading().layers["blocks.1", Phase.PREFILL].flops == 2 * 10 * 2 * 128
    assert parts(hook.reading()) == hook.reading().total_flops


# --- operators and kernels -----------------------------------------------------------------------------------------


@pytest.fixture
def custom() -> Iterator[Any]:
    """Open a namespace of operators like that of a kernel package."""
    library: Any = torch.library.Library("lp_test_flash_attn", "DEF")  # type: ignore[no-untyped-call]  # untyped there
    yield library
    library._destroy()


def test_attention_kernels_of_packages_are_told_by_their_operands(custom: Any) -> None:
    """A packed kernel counts each of its windows, of 4, 4 and 2 positions, by itself; values are narrower than keys."""
    custom.define("varlen(Tensor q, Tensor k, Tensor v, Tensor cu_seqlens_q, Tensor cu_seqlens_k, int max_q) -> Tensor")
    custom.impl("varlen", lambda q, k, v, *rest: q.clone(), "CPU")
    packed, values = torch.ones(10, 4, 8), torch.ones(10, 4, 6)
    starts = torch.tensor([0, 4, 8, 10])
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    hook = ShapesHook(model, find_layers(model))
    with hook, hook.batch(0):
        torch.ops.lp_test_flash_attn.varlen(packed, packed, values, starts, starts, 4)
    assert hook.reading().total_flops == 2 * 4 * (8 + 6) * (16 + 16 + 4)


def test_unknown_kernels_are_listed(custom: Any) -> None:
    """An operator of an unknown namespace is named with its number of calls; known elementwise ones are not."""
    custom.define("fused_mlp(Tensor x) -> Tensor")
    custom.impl("fused_mlp", lambda x: x.clone(), "CPU")
    model = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.LayerNorm(8))
    hook = ShapesHook(model, find_layers(model))
    with hook, hook.batch(0):
        for _ in range(3):
            torch.ops.lp_test_flash_attn.fused_mlp(model(torch.ones(2, 8)))
        torch.fft.rfft(torch.ones(8))
    assert hook.reading().uncounted_calls() == {"lp_test_flash_attn::fused_mlp": 3, "aten::_fft_r2c": 1}


def test_fused_attention_of_unequal_widths_by_hand() -> None:
    """3 queries and 5 keys in 2 x 4 heads: 15 scores of 12 products and 3 x 6 sums of 5 products each.

    In inference mode the operator reaches the counter whole; else torch cuts it into products on a CPU.
    """
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    hook = ShapesHook(model, find_layers(model))
    with hook, hook.batch(0), torch.inference_mode():
        F.scaled_dot_product_attention(torch.ones(2, 4, 3, 12), torch.ones(2, 4, 5, 12), torch.ones(2, 4, 5, 6))
    assert hook.reading().total_flops == 2 * (2 * 4) * (15 * 12 + 18 * 5)


@pytest.mark.parametrize("kernel", ["flash", "math", "efficient"])
def test_grouped_keys_are_not_multiplied(kernel: str) -> None:
    """SDPA with `enable_gqa` counts query heads, whichever way torch takes."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    backend = {"flash": SDPBackend.FLASH_ATTENTION, "math": SDPBackend.MATH, "efficient": SDPBackend.MATH}[kernel]
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    hook = ShapesHook(model, find_layers(model))
    q, kv = torch.ones(2, 8, 5, 16), torch.ones(2, 2, 9, 16)
    with hook, hook.batch(0), sdpa_kernel(backend):
        F.scaled_dot_product_attention(q, kv, kv, enable_gqa=True)
    assert hook.reading().total_flops == 4 * 2 * 8 * 5 * 9 * 16


def test_torch_s_fused_encoder_layer_is_unfused() -> None:
    """In evaluation mode torch runs an encoder layer as one operator; its work is counted all the same."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    model = nn.Module()
    model.layers = nn.ModuleList([layer])
    hook = ShapesHook(model, find_layers(model))
    with hook, hook.batch(0), torch.no_grad():
        layer(torch.ones(3, 5, 8))
    linear = 2 * 15 * (4 * 8 * 8 + 2 * 8 * 16)
    assert hook.reading().total_flops == linear + 4 * 3 * 5 * 5 * 8
    assert hook.reading().uncounted == {}


def test_convolutions_by_hand() -> None:
    """Strided, grouped and transposed, in one, two and three dimensions."""
    model = nn.Sequential(nn.Conv2d(4, 8, 3, stride=2, groups=2), nn.ConvTranspose2d(8, 6, 2, stride=2))
    hook = ShapesHook(model, find_layers(model))
    with hook, hook.batch(0), torch.no_grad():
        model(torch.ones(2, 4, 9, 9))
        F.conv1d(torch.ones(1, 2, 7), torch.ones(3, 2, 3))
        F.conv3d(torch.ones(1, 2, 4, 4, 4), torch.ones(3, 2, 2, 2, 2), stride=2)
    strided, transposed = 2 * 2 * 16 * 8 * 2 * 9, 2 * 2 * 16 * 8 * 6 * 4
    assert hook.reading().total_flops == strided + transposed + 2 * 5 * 3 * 2 * 3 + 2 * 8 * 3 * 2 * 8
