"""Which sequences of a packed pass bring a prompt, and which write an answer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from layerprof.models.packed import Packed, packed_of, paged
from layerprof.records import Phase


def given(*sequences: tuple[int, int], positions: bool = True, keys: Any = None) -> dict[str, Any]:
    """Make what a pass over (new positions, positions before) is given."""
    lengths = torch.tensor([0, *(new for new, _ in sequences)])
    read = torch.tensor([0, *(new + before for new, before in sequences)])
    told: dict[str, Any] = {
        "cu_seq_lens_q": lengths.cumsum(0),
        "cu_seq_lens_k": read.cumsum(0) if keys is None else keys,
    }
    if positions:
        told["position_ids"] = torch.tensor([[n for new, old in sequences for n in range(old, old + new)]])
    return told


@pytest.mark.parametrize("positions", [True, False])
@pytest.mark.parametrize(
    ("sequences", "prompt", "answer", "phase"),
    [
        (((5, 0), (3, 0)), 8, 0, Phase.PREFILL),
        (((1, 0), (3, 0)), 4, 0, Phase.PREFILL),
        (((4, 8), (3, 0)), 7, 0, Phase.PREFILL),
        (((1, 7), (1, 3), (1, 1)), 0, 3, Phase.DECODE),
        (((1, 12), (1, 3), (6, 1)), 6, 2, Phase.MIXED),
        (((1, 12), (1, 0)), 1, 1, Phase.MIXED),
    ],
    ids=["prompts", "a prompt of one", "a second chunk", "answers", "both", "an answer and a prompt of one"],
)
def test_one_position_after_others_is_an_answer(
    sequences: tuple[tuple[int, int], ...], prompt: int, answer: int, phase: Phase, positions: bool
) -> None:
    """Told by where the new positions begin, or by the keys beyond them."""
    found = packed_of(given(*sequences, positions=positions))
    assert found == Packed(prompt, answer, sequences)
    assert found.phase is phase


def test_a_prompt_s_last_chunk_of_one_is_known_by_the_shortest_prompt() -> None:
    """Prompts have 9 positions or more: one after 8 is the last of a prompt, one after 9 an answer's first."""
    found = packed_of(given((1, 8), (1, 9)), shortest=9)
    assert found is not None
    assert (found.prompt, found.answer) == (1, 1)


def test_of_several_kinds_of_attention_the_one_without_a_window_counts() -> None:
    """A window of 4 reads 3 positions before the new one, full attention all 20."""
    keys = {"sliding_attention": torch.tensor([0, 4]), "full_attention": torch.tensor([0, 21])}
    assert packed_of(given((1, 20), positions=False, keys=keys)) == Packed(0, 1, ((1, 20),))


def test_sequences_of_padding_are_none() -> None:
    """Starts that stay where they are add no sequence."""
    told = {"cu_seq_lens_q": torch.tensor([0, 4, 4, 4]), "cu_seq_lens_k": torch.tensor([0, 4, 4, 4])}
    assert packed_of(told) == Packed(4, 0, ((4, 0),))


@pytest.mark.parametrize(
    "told",
    [{}, {"cu_seq_lens_q": None}, {"cu_seq_lens_q": "none"}, {"cu_seq_lens_q": Tensor([1.0, 2.0]), "cu_seq_lens_k": 3}],
)
def test_what_is_not_packed_or_not_told_is_none(told: dict[str, Any]) -> None:
    """Arguments of any kind; nothing raises."""
    assert packed_of(told) is None


@pytest.mark.parametrize(
    ("queries", "keys", "pairs"),
    [(8, 24, 1 * 13 + 1 * 4 + 6 * 7), (8, 16, 1 * 5 + 1 * 4 + 6 * 7), (16, 40, 59), (4, 24, None)],
    ids=["all", "a window of 5", "padded", "another attention"],
)
def test_pairs_within_sequences(queries: int, keys: int, pairs: int | None) -> None:
    """Of (1, 12), (1, 3), (6, 1), whose keys are 13 + 4 + 7 = 24; a window of 5 leaves 4 before: 5 + 4 + 7 = 16."""
    found = Packed(6, 2, ((1, 12), (1, 3), (6, 1)))
    assert found.pairs(queries, keys) == pairs


def test_the_cache_of_continuous_batching_is_known_by_its_class() -> None:
    """Its class's name, since a model may be given a `cache` of any kind."""
    assert paged({"cache": type("PagedAttentionCache", (), {})()})
    assert not paged({"cache": object()})
    assert not paged({})
