"""What a row kept of steps that check drafts is counted from the answer's length and the cache."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from layerprof.measure.drafts import Drafts

LOOKUP = {"prompt_lookup_num_tokens": 3}


class Remembers:
    """A cache that is so long."""

    def __init__(self, length: int) -> None:
        self.length = length

    def get_seq_length(self) -> int:
        """Return its length."""
        return self.length


def followed(given: dict[str, Any], output: Any, *, model: Any = None, entrance: str = "generate") -> Drafts:
    """Follow a call with a prompt of 10 whose first decode step finds 12 positions: two drafts were right at once."""
    drafts = Drafts()
    drafts.begin(model or nn.Module(), entrance, given, 10)
    for number, length in enumerate((0, 12, 15, 17)):
        with drafts.step((), {"past_key_values": Remembers(length)}, partial(int, number)):
            pass
    drafts.answered(given, output, 3)
    return drafts


IDS = torch.zeros(1, 20, dtype=torch.long)


@pytest.mark.parametrize("output", [IDS, SimpleNamespace(sequences=IDS)])
def test_what_is_kept_is_all_beyond_what_the_first_step_found(output: Any) -> None:
    """Of 20 tokens 13 were there when decoding began (12 in the cache): 7 came of three steps."""
    assert followed(LOOKUP, output).per_step == 7 / 3


def test_an_answer_without_its_prompt_is_as_much_longer() -> None:
    """Embeddings as a prompt of 10: the sequence holds 10 new tokens, and stands for 20."""
    given = LOOKUP | {"inputs_embeds": torch.zeros(1, 10, 4)}
    assert followed(given, torch.zeros(1, 10)).per_step == 7 / 3


@pytest.mark.parametrize("asked", [{"generation_config": SimpleNamespace(**LOOKUP)}, {"assistant_model": nn.Module()}])
def test_drafts_are_asked_for_in_any_way(asked: dict[str, Any]) -> None:
    """By an argument, or by the configuration of the call or of the model."""
    assert followed(asked, IDS).per_step is not None
    own = nn.Module()
    own.generation_config = SimpleNamespace(**LOOKUP)  # type: ignore[assignment]  # modules hold anything
    assert followed({}, IDS, model=own).per_step is not None


@pytest.mark.parametrize("asked", [{}, {"prompt_lookup_num_tokens": None}, LOOKUP | {"assistant_early_exit": 1}])
def test_without_drafts_there_is_no_figure(asked: dict[str, Any]) -> None:
    """Nor where the model drafts for itself, whose own steps are among those of the call."""
    assert followed(asked, IDS).per_step is None


def test_only_generate_drafts() -> None:
    """A loop of one's own says nothing of what it keeps."""
    assert followed(LOOKUP, IDS, entrance="forward").per_step is None
