"""Which batch, and which decode step in it, stand for all: those nearest to the mean call.

A replayed row is joules a call times calls. Where batches differ in length that is fair only if the captured call costs
what the mean call costs. Joules of a layer grow about linearly with what it works on: in prefill the prompt's tokens
(padding included), in decode the entries of the cache. So the call at the mean length costs the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from layerprof.energy.amount import TOLERANCE


@dataclass(frozen=True, slots=True)
class Size:
    """A batch: its rows, the tokens of one padded prompt, and its decode steps."""

    rows: int
    length: int
    steps: int

    @property
    def tokens(self) -> int:
        """Tokens that prefill works on."""
        return self.rows * self.length

    @property
    def entries(self) -> int:
        """Cache entries read in all decode steps together: step s reads length + s of each row."""
        return self.rows * (self.steps * self.length + self.steps * (self.steps + 1) // 2)


@dataclass(frozen=True, slots=True)
class Typical:
    """The batch and decode step (1 is the first) to capture; tokens and cache entries beside those of the mean call."""

    batch: int
    step: int
    rows: int
    prompt_tokens: int
    mean_prompt_tokens: float
    cache_entries: int | None
    mean_cache_entries: float | None

    def facts(self) -> dict[str, Any]:
        """Return the choice as plain values."""
        return asdict(self)

    def unfair(self) -> str | None:
        """Say how far the captured calls are from the mean; None where they are near it."""
        shares = {"prefill": self.prompt_tokens / self.mean_prompt_tokens}
        if self.cache_entries and self.mean_cache_entries:
            shares["decode"] = self.cache_entries / self.mean_cache_entries
        far = [f"{share:.2f} of the mean in {phase}" for phase, share in shares.items() if abs(share - 1) > TOLERANCE]
        if not far:
            return None
        return (
            f"Replay captured batch {self.batch}, whose length is {' and '.join(far)}: joules a call times calls are "
            "off by up to that. Batches of like size (--samples a multiple of --batch-size) make it fair."
        )


def typical(sizes: Sequence[Size]) -> Typical:
    """Return the batch nearest to the mean prompt, and its decode step nearest to the mean cache; the first of equals.

    Where some batches decode and others end with their first token, one that decodes is taken.
    """
    mean = sum(size.tokens for size in sizes) / len(sizes)
    decoding = [index for index, size in enumerate(sizes) if size.steps > 0]
    chosen = min(decoding or range(len(sizes)), key=lambda index: abs(sizes[index].tokens - mean))
    size = sizes[chosen]
    if not decoding:
        return Typical(chosen, 1, size.rows, size.tokens, mean, None, None)
    cache = sum(one.entries for one in sizes) / sum(one.steps for one in sizes)
    step = min(range(1, size.steps + 1), key=lambda s: abs(size.rows * (size.length + s) - cache))
    return Typical(chosen, step, size.rows, size.tokens, mean, size.rows * (size.length + step), cache)
