"""Which positions of a batch are real, and which pairs attention shows: the useful and the causal share of a count.

Shares are exact fractions of the executed FLOPs of one operator. They need no values but those of masks: of the batch's
padding mask, of the mask a fused kernel is given, or of the scores that an eager softmax sees.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from layerprof.hooks.phases import PhaseTracker
from torch import Tensor

from layerprof.flops import formulas
from layerprof.records import Phase

Share = tuple[int, int]
"""Numerator and denominator."""

ALL: Share = (1, 1)

Columns = tuple[int, int]
"""From where to where in the prompt, in positions."""

HIDDEN = -9e3
"""Additive masks hide with the least finite number, minus infinity or -1e4; no score or position bias gets there."""


class Padding:
    """The real positions of a batch, from its (rows, positions) attention mask; without one, all are real."""

    def __init__(self, mask: Tensor | None = None) -> None:
        rows = [] if mask is None or mask.ndim != 2 else mask.bool().tolist()
        self.rows = len(rows)
        self.length = len(rows[0]) if rows else 0
        self._mask = rows
        self.real = sum(map(sum, rows))
        self._real: dict[Columns, int] = {}
        self.none = self.real == self.rows * self.length

    def columns(self, queries: int, phase: Phase, tracker: PhaseTracker) -> Columns | None:
        """Return where the running layer's input stands in the prompt; None where it is none of it.

        Only a pass over the padded prompt holds padding: over all of it, or over the chunk that the step is.
        """
        if phase is not Phase.PREFILL or not self.length:
            return None
        start, end = tracker.part
        if end - start == queries and end <= self.length == tracker.prompt:
            return start, end
        return (0, self.length) if queries == self.length else None

    def share_of_rows(self, columns: Columns | None) -> Share:
        """Return the useful share of a product over rows of activations, those of some columns of the mask."""
        if columns is None or self.none:
            return ALL
        start, end = columns
        if columns not in self._real:
            self._real[columns] = sum(sum(row[start:end]) for row in self._mask)
        return self._real[columns], self.rows * (end - start)

    def share_of_pairs(
        self, queries: int, keys: int, columns: Columns | None, step: int, *, fixed: bool, sliding: bool
    ) -> Share:
        """Return the useful share of the (query, key) pairs of attention, `queries` x `keys` in every row.

        Real queries against real keys. Keys that are no positions of the prompt (an image's, in cross-attention) are
        all real; those of a cache of fixed length are real as far as it is filled.
        """
        if not self.length or (self.none and not fixed):
            return ALL
        rows = self._mask
        real_queries = [queries] * len(rows)
        if columns is not None:
            start, end = columns
            real_queries = [sum(row[start:end]) for row in rows]
            rows = [row[:end] for row in rows]
        real_keys = [self._keys(row, keys, step, fixed, sliding) for row in rows]
        pairs = formulas.varlen_pairs(real_queries, real_keys)
        return pairs, len(rows) * queries * keys

    def _keys(self, row: list[bool], keys: int, step: int, fixed: bool, sliding: bool) -> int:
        now = len(row) + step
        if keys == now or (fixed and keys > now):
            return sum(row) + step
        if keys == len(row) and step:  # an encoder's positions, seen from its decoder
            return sum(row)
        if sliding and keys < now:
            old = max(keys - step, 0)
            return min(keys, step) + (sum(row[-old:]) if old else 0)
        return keys


class Shown(NamedTuple):
    """What attention shows in at least one row of a batch: (query, key) pairs, and keys to any of the queries."""

    pairs: int
    keys: int


class Visibility:
    """What attention shows in at least one row of the batch: what a causal mask (or window) leaves.

    Padding hides its keys in its own row only, and the longest row has none, so padding does not lower the count. A
    mask is read once per step, however many layers share it.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], tuple[Tensor, Shown]] = {}

    def forget(self) -> None:
        """Begin a new step: masks may be other ones under the same address."""
        self._known.clear()

    def by_mask(self, mask: Tensor, queries: int, keys: int) -> Shown:
        """Count what a boolean or additive mask shows, broadcast to (queries, keys)."""
        key = (mask.data_ptr(), tuple(mask.shape), mask.stride(), queries, keys)
        if key not in self._known:
            shown = mask if mask.dtype == torch.bool else mask > HIDDEN
            grid = shown.reshape(-1, *shown.shape[-2:])[..., :keys].any(0)
            pairs, seen = _shown(grid.expand(queries if len(grid) == 1 else -1, keys))
            if 1 < len(grid) < queries:  # grouped query heads, folded into the positions, share the mask
                pairs = pairs * queries // len(grid)
            self._known[key] = (mask, Shown(pairs, seen))
        return self._known[key][1]

    def by_scores(self, scores: Tensor, keys: int) -> Shown:
        """Count what an eager softmax does not see as hidden; (..., queries, keys[, more])."""
        highest = scores[..., :keys].reshape(-1, scores.shape[-2], keys).amax(0)
        return _shown(highest > HIDDEN)

    def by_function(
        self, function: Callable[..., Tensor], rows: int, queries: int, keys: int, device: torch.device
    ) -> Shown:
        """Count what flex attention's `mask_mod(row, head, query, key)` shows."""
        row = torch.arange(rows, device=device).view(-1, 1, 1)
        query = torch.arange(queries, device=device).view(1, -1, 1)
        key = torch.arange(keys, device=device).view(1, 1, -1)
        shown = function(row, torch.zeros((), dtype=torch.long, device=device), query, key)
        return _shown(shown.expand(rows, queries, keys).any(0))


def _shown(grid: Tensor) -> Shown:
    """Count the true places of (queries, keys), and the keys that have any; asks the device once."""
    pairs, keys = torch.stack((grid.sum(), grid.any(0).sum())).tolist()
    return Shown(int(pairs), int(keys))


def by_flags(operands: Mapping[str, Any], queries: int, keys: int, *, from_start: bool) -> Shown | None:
    """Return what a kernel's own causal flag and window leave; None when it was given neither.

    `from_start` is torch's convention for unequal lengths: the queries are the first positions, not the last.
    """
    custom = operands.get("custom_mask_type") or 0
    causal = bool(operands.get("is_causal") or operands.get("causal") or custom)
    left = next((operands[n] for n in ("window_size_left", "window_size") if operands.get(n) is not None), None)
    left = left[0] if isinstance(left, (tuple, list)) else left
    window = int(left) + 1 if left is not None and int(left) >= 0 else None
    if not causal and window is None:
        return None
    at_end = not from_start and custom != 1
    # The first query's window reaches furthest back; without one it is all that lies before it.
    seen = min(keys, queries + window - 1) if window is not None and (at_end or not causal) else keys
    if not causal:  # a window to the left of each query, and all there is to its right
        hidden = sum(max(keys - queries + i + 1 - (window or 0), 0) for i in range(queries))
        return Shown(queries * keys - hidden, seen)
    pairs = formulas.visible_pairs(queries, keys, window=window, aligned_to_end=at_end)
    return Shown(pairs, seen if at_end else min(queries, keys))
