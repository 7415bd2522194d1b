"""Speculative decoding: how many tokens a row kept of the decode steps that checked drafts.

The pass over the prompt checks drafts, too, and what was kept of it is told by the cache that the first decode step
finds: every token of the sequence but the last one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from layerprof.machine.modules import told
from layerprof.models.prompt import cached

if TYPE_CHECKING:
    from torch import nn

ASKED = ("prompt_lookup_num_tokens", "assistant_model", "use_mtp")
"""Arguments of `generate`, or of its configuration, that let it draft; a model that drafts for itself is not told."""


class Drafts:
    """Follows the calls of `generate` that draft: `tokens` were kept of `steps`, of all rows and of each."""

    def __init__(self) -> None:
        self.tokens = 0
        self.steps = 0
        self._drafts = False
        self._cached: int | None = None
        self._prompt: int | None = None

    @property
    def per_step(self) -> float | None:
        """Tokens that a row kept of a decode step on average; None where nothing was drafted."""
        return self.tokens / self.steps if self.steps else None

    def begin(self, model: nn.Module, entrance: str, kwargs: Mapping[str, Any], prompt: int | None) -> None:
        """Begin an outermost call, with a prompt of so many positions where that is known."""
        self._prompt = prompt
        self._drafts, self._cached = entrance == "generate" and _drafts(model, kwargs), None

    @contextmanager
    def step(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], number: Callable[[], int]) -> Iterator[None]:
        """Stand around a pass through the model; `number()` is that of the decode step once it is over."""
        found = cached(args, kwargs) if self._drafts and self._cached is None else None
        yield
        if found is not None and number() == 1:
            self._cached = found.length

    def answered(self, kwargs: Mapping[str, Any], output: Any, steps: int) -> None:
        """Take what a call gave, of so many decode steps."""
        sequences = told(output, "sequences", output)
        if not self._drafts or self._cached is None or not steps:
            return
        length = int(sequences.shape[-1])
        if kwargs.get("inputs_embeds") is not None and kwargs.get("input_ids") is None:
            length += self._prompt or 0  # sequences hold new tokens alone then
        self.tokens += length - self._cached - 1
        self.steps += steps


def _drafts(model: nn.Module, kwargs: Mapping[str, Any]) -> bool:
    """Tell whether a call of `generate` drafts, by its arguments and its configuration, else by the model's own."""
    configs = (kwargs.get("generation_config"), told(model, "generation_config"))
    given = (kwargs, *(vars(config) for config in configs if config is not None))
    if any(found.get("assistant_early_exit") is not None for found in given):
        return False
    return any(found.get(name) for found in given for name in ASKED)
