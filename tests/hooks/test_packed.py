"""Packed attention kernels, as flash-attention packages offer them: padded batches and windows count as elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from layerprof.hooks.shapes import ShapesHook
from torch import nn

from layerprof.layers.find import find_layers
from layerprof.readings import Work
from layerprof.records import Phase

HEADS, WIDTH, VALUES = 4, 8, 6
PAIR = 2 * HEADS * (WIDTH + VALUES)
"""FLOPs of one query and one key: a score over 8 numbers and a weighted value of 6, in each head."""
SCHEMA = (
    "varlen(Tensor q, Tensor k, Tensor v, Tensor cu_seqlens_q, Tensor cu_seqlens_k, int max_seqlen_q, "
    "int max_seqlen_k, bool causal, int window_size_left) -> Tensor"
)


@pytest.fixture(autouse=True)
def kernel() -> Iterator[None]:
    """Register a packed kernel in a namespace of its own, with the operands that such packages name."""
    library: Any = torch.library.Library("lp_flash", "DEF")  # type: ignore[no-untyped-call]  # untyped there
    library.define(SCHEMA)
    library.impl("varlen", lambda q, *rest: q.clone(), "CPU")
    yield
    library._destroy()


def starts(lengths: list[int]) -> torch.Tensor:
    """Return where packed sequences start, and where the last one ends."""
    return torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()], dtype=torch.int32)


class Block(nn.Module):
    """A decoder layer that unpads its batch, attends packed, and pads again, as flash attention is used."""

    def __init__(self, window: int = -1) -> None:
        super().__init__()
        self.self_attn = nn.Linear(32, 32, bias=False)
        self.mlp = nn.Linear(32, 32, bias=False)
        self.window = window

    def forward(self, hidden_states: torch.Tensor, queries: list[int], keys: list[int]) -> torch.Tensor:
        """Attend from `queries` real positions of each row to `keys` of them."""
        q = torch.ones(sum(queries), HEADS, WIDTH)
        k, v = torch.ones(sum(keys), 2, WIDTH), torch.ones(sum(keys), 2, VALUES)
        torch.ops.lp_flash.varlen(q, k, v, starts(queries), starts(keys), max(queries), max(keys), True, self.window)
        out: torch.Tensor = self.mlp(self.self_attn(hidden_states))
        return out


class Decoder(nn.Module):
    """Two such layers."""

    def __init__(self, window: int = -1) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(window) for _ in range(2))

    def forward(self, x: torch.Tensor, queries: list[int], keys: list[int]) -> torch.Tensor:
        """Run the layers one after another."""
        for layer in self.layers:
            x = layer(x, queries, keys)
        return x


def attention(model: nn.Module, mask: torch.Tensor, calls: list[tuple[int, list[int], list[int]]]) -> dict[Phase, Work]:
    """Count one layer's attention over calls of (length, real queries, real keys); its two matrices are left out."""
    hook = ShapesHook(model, find_layers(model))
    with hook, torch.no_grad(), hook.batch(0, attention_mask=mask):
        for length, queries, keys in calls:
            model(torch.ones(len(mask), length, 32), queries, keys)
    found = {}
    for phase in (Phase.PREFILL, Phase.DECODE):
        whole = hook.reading().layers.get(("layers.0", phase), Work())
        rows = sum(len(mask) * n for n, q, _ in calls if (n > 1) == (phase is Phase.PREFILL))
        real = sum(sum(q) for n, q, _ in calls if (n > 1) == (phase is Phase.PREFILL))
        matrices = 2 * 2 * 32 * 32
        found[phase] = Work(
            flops=whole.flops - rows * matrices,
            flops_useful=whole.flops_useful - real * matrices,
            flops_causal=whole.flops_causal - rows * matrices,
        )
    return found


def test_a_padded_batch_counts_its_padding() -> None:
    """Rows of 5 and 3 in a batch of 5: the kernel skips the padding, the count is that of every other kernel."""
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])
    work = attention(Decoder(), mask, [(5, [5, 3], [5, 3])])[Phase.PREFILL]
    assert work.flops == PAIR * 2 * 25
    assert work.flops_useful == PAIR * (25 + 9)
    assert work.flops_causal == PAIR * 2 * 15


def test_decode_steps_of_a_padded_batch() -> None:
    """One query a row against 6 padded keys; the short row's two are not useful."""
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])
    work = attention(Decoder(), mask, [(5, [5, 3], [5, 3]), (1, [1, 1], [6, 4])])[Phase.DECODE]
    assert work.flops == work.flops_causal == PAIR * 2 * 6
    assert work.flops_useful == PAIR * (6 + 4)


def test_a_window_of_the_kernel_shows_fewer_pairs() -> None:
    """Each of 5 queries sees itself and the one before: 1 + 4 x 2 pairs of 25."""
    mask = torch.ones(1, 5, dtype=torch.long)
    work = attention(Decoder(window=1), mask, [(5, [5], [5])])[Phase.PREFILL]
    assert work.flops == PAIR * 25
    assert work.flops_causal == PAIR * 9


def test_sequences_packed_into_one_row_attend_within_themselves() -> None:
    """A row that holds three documents of 2, 3 and 4 positions is no padded batch."""
    mask = torch.ones(1, 9, dtype=torch.long)
    work = attention(Decoder(), mask, [(9, [2, 3, 4], [2, 3, 4])])[Phase.PREFILL]
    assert work.flops == PAIR * (4 + 9 + 16)
    assert work.flops_causal == PAIR * (3 + 6 + 10)
