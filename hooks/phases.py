"""The phase of a call: vision, prefill or decode, told by what the call is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from layerprof.records import Phase

if TYPE_CHECKING:
    from torch import nn

PhaseReader = Callable[[tuple[Any, ...], dict[str, Any]], Phase]
"""Tells the phase of a call from its arguments."""

CACHES = ("past_key_values", "past_key_value", "layer_past", "cache")


class PhaseTracker:
    """Tells vision, prefill and decode apart by module and query length, never by call count.

    A language layer with more than one query position is prefill, with one it is decode; one position with an empty
    KV cache is the prefill of a one-token prompt. Modules that cannot tell from their own input (norm, lm_head)
    take the phase of the decoder layer that ran last. `step` is 0 in prefill and counts decode steps from 1.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin a new batch."""
        self.phase = Phase.PREFILL
        self.step = 0
        self.started = False

    def language(self, args: tuple[Any, ...], kwargs: dict[str, Any], axis: int = 1) -> Phase:
        """Phase of a decoder layer's (or token embedding's) call, from the query length along `axis` of its input."""
        query = _query_length(args, kwargs, axis)
        if query is None:
            return self.phase
        if query > 1 or _cache_is_empty(args, kwargs, self.started):
            self.phase, self.step = Phase.PREFILL, 0
        else:
            self.phase = Phase.DECODE
        return self.phase

    def step_begins(self, args: tuple[Any, ...], kwargs: dict[str, Any], axis: int = 1) -> Phase:
        """Phase of the first block's call, which is the one that counts the decode steps."""
        phase = self.language(args, kwargs, axis)
        self.step = self.step + 1 if phase is Phase.DECODE else 0
        self.started = True
        return phase


def _query_length(args: tuple[Any, ...], kwargs: dict[str, Any], axis: int) -> int | None:
    """Positions of the first tensor given, (rows, positions[, features]); None when there is no tensor."""
    for value in (*args, *kwargs.values()):
        shape = getattr(value, "shape", None)
        if shape is None or len(shape) < 2:
            continue
        # (positions, features): packed sequences, as against (rows, positions) of token ids.
        packed = len(shape) == 2 and value.is_floating_point()
        return int(shape[0] if packed else shape[axis])
    return None


def _cache_is_empty(args: tuple[Any, ...], kwargs: dict[str, Any], started: bool) -> bool:
    caches = [kwargs[name] for name in CACHES if kwargs.get(name) is not None] or list(args[1:])
    length = next((c.get_seq_length for c in caches if hasattr(c, "get_seq_length")), None)
    if started or length is None:
        return not started
    return int(length()) == 0


def reader_of_steps(tracker: PhaseTracker, module: nn.Module) -> PhaseReader:
    """Return what reads the phase of the first block's calls, which count the decode steps."""
    # torch's own transformer layers put positions first unless told otherwise.
    axis = 0 if getattr(getattr(module, "self_attn", None), "batch_first", True) is False else 1
    return lambda args, kwargs: tracker.step_begins(args, kwargs, axis)
