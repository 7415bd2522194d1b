"""The phase of a call: vision, prefill or decode, told by what the call is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.overrides import has_torch_function

from layerprof.models import arguments
from layerprof.models.prompt import cached
from layerprof.records import Phase

if TYPE_CHECKING:
    from torch import nn

PhaseReader = Callable[[tuple[Any, ...], dict[str, Any]], Phase]
"""Tells the phase of a call from its arguments."""


class PhaseTracker:
    """Tells prefill and decode apart by the positions of each step and of the prompt, never by call count.

    The positions of a step are those of the token ids that the embedding was given for it. Where it was given none
    (embeddings come ready made), they are those of the first block's input: (..., positions, features), or positions
    first in torch's own layers (`positions_first`).

    Prefill is what the prompt's positions enter with, in one step or in chunks; decode is every step after them, with
    several positions too where they are added to a filled cache (drafted tokens are checked). How long the prompt is
    `reset` may say; else the first step is prefill, unless it adds one position to a filled cache, and so is
    every step of several positions.

    Modules that cannot tell from their own input (norm, lm_head) take the phase of the decoder layer that ran last.
    `step` is 0 in prefill and counts decode steps from 1. Nothing here raises, whatever a call is given.
    """

    def __init__(self) -> None:
        self.positions_first = False
        self.reset()

    def reset(self, prompt: int | None = None) -> None:
        """Begin a new batch, whose prompt adds so many positions to the cache: 0 if it only decodes, None if unknown."""
        self.phase = Phase.PREFILL
        self.step = 0
        self.started = False
        self.prompt = prompt
        self._left = prompt or 0
        self._chunk = 0
        self._caching = False
        self._ids: tuple[int, int] = (0, 0)
        self._most_ids = 0
        self._fresh = False

    def embedding(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Phase:
        """Phase of the token embedding's call, which comes before the step's first block."""
        if self.positions_first:
            return self.phase
        found = _fast_ids(args) or arguments.token_ids(args, kwargs)
        if found is None:
            return self.phase
        self._ids, self._fresh = found, True
        if found[1] > self._most_ids:
            self._most_ids = found[1]
        self.phase = self._tell(found[1], None)
        return self.phase

    def step_begins(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Phase:
        """Phase of the first block's call, which is the one that counts the decode steps."""
        new = self._ids[1] if self._fresh else self._fast_length(args) or self.length(args, kwargs)
        self._fresh = False
        if new is None:
            return self.phase
        if new == 1 and self.started and not self._left:
            self.phase = phase = Phase.DECODE
        else:
            self.phase = phase = self._tell(new, (args, kwargs))
            self._enter(phase, new, args, kwargs)
        self.step = self.step + 1 if phase is Phase.DECODE else 0
        return phase

    def _tell(self, new: int, given: tuple[tuple[Any, ...], dict[str, Any]] | None) -> Phase:
        """Tell the phase of a step that adds `new` positions; `given` are the first block's arguments."""
        if not self.started:
            decodes = self.prompt == 0 if self.prompt is not None else new == 1 and _adds(given)
        elif self._left:
            # One position is a chunk of the prompt if it is the last, or if all came one by one.
            decodes = new == 1 and not (self._most_ids == 1 or (self._left == 1 and self._chunk > 1))
        else:
            decodes = new == 1 or (self.prompt is not None and self._caching and (given is None or _adds(given)))
        return Phase.DECODE if decodes else Phase.PREFILL

    def _enter(self, phase: Phase, new: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note what has entered the cache with this step."""
        self.started = True
        self._chunk = new
        if phase is Phase.DECODE:
            self._left = 0
            return
        if self._left > new:
            new = max(new, self.length(args, kwargs) or 0)
        self._left = max(self._left - new, 0)
        if self.prompt is not None:
            self._caching = kwargs.get("past_key_values") is not None or cached(args, kwargs) is not None

    def _fast_length(self, args: tuple[Any, ...]) -> int | None:
        """Return what `length` does in the case that almost all models are; None where that is for `length` to say."""
        if self.positions_first or not args or type(args[0]) is not Tensor or has_torch_function(args[:1]):
            return None
        try:
            shape = args[0].shape
        except RuntimeError:  # nested tensors of the older layout
            return None
        return shape[1] if len(shape) == 3 and type(shape[1]) is int else None

    def length(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int | None:
        """Return the positions of any language layer's input; None where it does not tell."""
        found = arguments.hidden(args, kwargs)
        if found is None:
            return None
        if found.packed is not None:
            return found.packed
        shape = found.shape
        turned = len(shape) == 3 and self._ids == (shape[1], shape[0]) != shape[:2]
        if self.positions_first or turned:
            return shape[0]
        # (rows, positions) of token ids, as against (..., positions, features); packed sequences have no rows.
        return shape[1] if found.integer and len(shape) == 2 else shape[-2]


def _fast_ids(args: tuple[Any, ...]) -> tuple[int, int] | None:
    """Return what `arguments.token_ids` does for plain (rows, positions) given first; None for all else."""
    if not args or type(args[0]) is not Tensor or has_torch_function(args[:1]):
        return None
    try:
        rows, positions = args[0].shape
    except (RuntimeError, ValueError):  # nested, or of another number of sizes
        return None
    plain = type(rows) is int and type(positions) is int and not args[0].dtype.is_floating_point
    return (rows, positions) if plain else None


def _adds(given: tuple[tuple[Any, ...], dict[str, Any]] | None) -> bool:
    """Whether a step adds to a cache that is filled."""
    found = cached(*given) if given is not None else None
    return found is not None and found.filled


def puts_positions_first(module: nn.Module) -> bool:
    """Whether a block is given (positions, rows, features): torch's own are, unless told otherwise."""
    return getattr(getattr(module, "self_attn", None), "batch_first", True) is False
