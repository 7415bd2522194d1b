"""What a call was given: rows, ids and the prompt, read without asking anything of the caller's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache

from layerprof.models.arguments import rows_of, token_ids
from layerprof.models.prompt import prompt_of

IDS = torch.ones(3, 7, dtype=torch.long)
ONE = IDS[:, :1]


class Configured(nn.Module):
    """A model that says whether its decoder is given ids of its own."""

    def __init__(self, apart: bool = False) -> None:
        super().__init__()
        self.config = SimpleNamespace(is_encoder_decoder=apart)


def filled(positions: int) -> DynamicCache:
    """Make a cache of so many positions."""
    cache = DynamicCache()
    if positions:
        cache.update(torch.ones(3, 2, positions, 4), torch.ones(3, 2, positions, 4), 0)
    return cache


@pytest.mark.parametrize(
    ("entrance", "args", "kwargs", "expected"),
    [
        ("generate", (), {"input_ids": IDS}, 7),
        ("generate", (IDS,), {}, 7),
        ("generate", (), {"inputs": IDS}, 7),
        ("generate", (), {"inputs_embeds": torch.ones(3, 9, 4), "input_ids": IDS}, 9),
        ("generate", (), {"input_ids": IDS, "past_key_values": filled(0)}, 7),
        ("generate", (), {"input_ids": IDS, "past_key_values": filled(4)}, 3),
        ("generate", (), {"input_ids": IDS, "past_key_values": filled(9)}, 7),
        ("generate", (), {"pixel_values": torch.ones(3, 3, 8, 8)}, None),
        ("generate", (torch.ones(3, 80, 90),), {}, None),
        ("generate", (["a prompt"],), {}, None),
        ("generate", (), {}, None),
        ("forward", (IDS,), {}, 7),
        ("forward", (ONE,), {}, 1),
        ("forward", (ONE,), {"past_key_values": filled(0)}, 1),
        ("forward", (ONE,), {"past_key_values": filled(4)}, 0),
        ("forward", (ONE, filled(4)), {}, 0),
        ("forward", (ONE,), {"past_key_values": ((torch.ones(3, 2, 4, 8),) * 2,)}, 0),
        ("forward", (ONE,), {"past_key_values": ((torch.ones(3, 2, 0, 8),) * 2,)}, 1),
        ("forward", (ONE,), {"state": [torch.ones(3, 8, 2)] * 5}, 0),
        ("forward", (IDS,), {"past_key_values": filled(4)}, 7),
        ("forward", (torch.ones(3, 7, 8),), {}, None),
        ("forward", (), {"input_ids": IDS.to_sparse()}, 7),
    ],
)
def test_the_prompt_is_what_a_call_adds_before_decoding(
    entrance: str, args: tuple[Any, ...], kwargs: dict[str, Any], expected: int | None
) -> None:
    """3 rows of 7 ids, of which a cache may hold the first; one token with a filled cache is no prompt."""
    assert prompt_of(Configured(), entrance, args, kwargs) == expected


@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        ({"input_ids": IDS}, None),
        ({"input_ids": IDS, "decoder_input_ids": IDS[:, :2]}, 2),
        ({"decoder_input_ids": ONE, "past_key_values": EncoderDecoderCache(filled(4), filled(7))}, 0),
    ],
)
def test_an_encoder_s_ids_are_no_prompt_of_its_decoder(kwargs: dict[str, Any], expected: int | None) -> None:
    """The decoder's own ids are."""
    assert prompt_of(Configured(apart=True), "forward", (), kwargs) == expected


def test_a_configuration_or_cache_that_raises_leaves_the_prompt_untold() -> None:
    """Nothing comes out of reading what is the caller's."""

    class Broken(nn.Module):
        @property
        def config(self) -> Any:
            raise RuntimeError

    class Cache:
        def get_seq_length(self) -> int:
            raise RuntimeError

    assert prompt_of(Broken(), "generate", (IDS,), {}) is None
    assert prompt_of(Configured(), "forward", (ONE,), {"past_key_values": Cache()}) == 1


@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [
        ((torch.ones(4, 2),), {}, 4),
        ((torch.ones(4, 2),), {"input_ids": IDS}, 3),
        ((torch.tensor(1.0), (torch.ones(5, 2),)), {}, 5),
        ((torch.nested.nested_tensor([torch.ones(3, 8), torch.ones(5, 8)], layout=torch.jagged),), {}, 2),
        ((SimpleNamespace(shape=3),), {}, 1),
        ((), {}, 1),
    ],
)
def test_rows_are_the_first_size_of_the_first_tensor(
    args: tuple[Any, ...], kwargs: dict[str, Any], expected: int
) -> None:
    """Ids are asked first; what has no such size is passed over; without any there is one row."""
    assert rows_of(args, kwargs) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(IDS, (3, 7)), (IDS[0], (1, 7)), (IDS[0, 0], None), (torch.ones(3, 7), None), (torch.ones(3, 7, 2).long(), None)],
)
def test_token_ids_are_rows_of_positions(value: Tensor, expected: tuple[int, int] | None) -> None:
    """A vector is one row; floats, numbers and books of ids are none that tell."""
    assert token_ids((value,), {}) == expected
    assert token_ids((), {"input_ids": value}) == expected
