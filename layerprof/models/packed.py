"""Sequences that stand behind one another in one pass, without rows: which bring a prompt, and which write an answer.

Continuous batching makes such passes, whose token ids are (1, all positions): `cu_seq_lens_q` tells where each sequence
begins, `cu_seq_lens_k` the same of the keys that it may read (one tensor, or one for each kind of attention).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from layerprof.machine import internals
from layerprof.records import Phase

PAGED = "PagedAttentionCache"
"""Class of the cache that continuous batching keeps the keys and values of all its requests in."""


class Packed(NamedTuple):
    """What a pass over packed sequences enters into the cache: positions of prompts, and of answers.

    `sequences` holds (new positions, positions before them) of each; those of padding are left out.
    """

    prompt: int
    answer: int
    sequences: tuple[tuple[int, int], ...]

    @property
    def phase(self) -> Phase:
        """Mixed where prompts and answers both are in it."""
        if self.prompt and self.answer:
            return Phase.MIXED
        return Phase.DECODE if self.answer else Phase.PREFILL

    def pairs(self, queries: int, keys: int) -> int | None:
        """Return the (query, key) pairs within the sequences, of an attention of all by all; None where it is another.

        A window lets each sequence read no more than that: as much as makes up the keys.
        """
        if queries < sum(new for new, _ in self.sequences):
            return None
        widest = max((before for _, before in self.sequences), default=0)
        window = bisect_right(range(widest + 1), keys, key=self._read) - 1
        return sum(new * (new + min(before, window)) for new, before in self.sequences) if window >= 0 else None

    def _read(self, window: int) -> int:
        return sum(new + min(before, window) for new, before in self.sequences)


def packed_of(kwargs: Mapping[str, Any], shortest: int = 0) -> Packed | None:
    """Return what a pass over packed sequences was given; None where it is none, or does not tell. Nothing raises.

    A sequence of one position with others before it writes an answer, all else are chunks of prompts: a prompt's last
    chunk looks like an answer where it is one position, unless fewer than `shortest` are before it, the length of the
    shortest prompt. On a GPU to ask waits for what was launched before; while a graph is captured, nothing is asked.
    """
    starts = kwargs.get("cu_seq_lens_q")
    if starts is None:
        return None
    try:
        if _capturing(starts):
            return None
        with internals.unseen():
            begins = [int(n) for n in starts.tolist()]
            sequences = _sequences(begins, _before(kwargs, begins))
    except Exception:  # arguments of the caller's own making
        return None
    answers = sum(1 for new, before in sequences if new == 1 and before and before >= shortest)
    return Packed(sum(new for new, _ in sequences) - answers, answers, sequences)


def paged(kwargs: Mapping[str, Any]) -> bool:
    """Tell whether a pass was given the cache of continuous batching."""
    return type(kwargs.get("cache")).__name__ == PAGED


def _sequences(begins: Sequence[int], before: Sequence[int]) -> tuple[tuple[int, int], ...]:
    lengths = [end - begin for begin, end in pairwise(begins)]
    return tuple((new, old) for new, old in zip(lengths, before, strict=True) if new)


def _before(kwargs: Mapping[str, Any], begins: Sequence[int]) -> list[int]:
    """Return how many positions stand before each sequence's new ones: where these begin, else the keys beyond them.

    Keys alone do not tell where attention has a window: it reads no more than that.
    """
    positions = kwargs.get("position_ids")
    if positions is not None and positions.ndim == 2 and positions.shape[0] == 1:
        found = positions[0].tolist()
        return [int(found[begin]) if begin < len(found) else 0 for begin in begins[:-1]]
    keys = kwargs.get("cu_seq_lens_k")
    if keys is None:
        return [0] * (len(begins) - 1)
    kinds = [kind.tolist() for kind in (keys.values() if isinstance(keys, Mapping) else (keys,))]
    return [max(kind[n + 1] - kind[n] for kind in kinds) - (begins[n + 1] - begins[n]) for n in range(len(begins) - 1)]


def _capturing(starts: Any) -> bool:
    import torch

    return bool(starts.device.type == "cuda" and torch.cuda.is_current_stream_capturing())
