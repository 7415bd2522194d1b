"""FLOPs of what ran, operator by operator: executed, of them useful, and what a causal mask leaves.

Fused attention tells itself by its operands. Eager attention is a batched product, a softmax over what it gave, and a
product with that: only then is it known what the first product was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from layerprof.hooks import kv
from layerprof.hooks.attended import WITH_HEADS, Heads, place
from layerprof.hooks.dispatch import Operator
from layerprof.hooks.frames import Frame, Frames, Tally
from layerprof.hooks.operands import measured, output_shape, shapes, signature
from layerprof.hooks.phases import PhaseTracker
from layerprof.hooks.tokens import ALL, Padding, Share, Shown, Visibility, by_flags
from torch import Tensor

from layerprof.flops import formulas
from layerprof.flops.attention import CUMULATIVE_K, CUMULATIVE_Q, LONGEST_K, MASKS
from layerprof.flops.counted import Attention, Product
from layerprof.flops.operators import count
from layerprof.records import Phase

KEYS = ("key", "k", "src")
SECOND = ("mat2", "batch2")
"""Under which names operators take keys: fused attention, and the products of eager attention."""


@dataclass(frozen=True, slots=True)
class Scores:
    """A batched product that may turn out to be attention's scores, and where it was added."""

    tally: Tally
    phase: Phase
    executed: int
    useful: Share
    batch: int
    rows: int
    columns: int
    inner: int
    keys: Any


@dataclass(frozen=True, slots=True)
class Weighting:
    """Shares that attention's second product takes: those of its scores."""

    places: int
    columns: int
    useful: Share
    causal: Share


class FlopCount:
    """Adds the FLOPs of operators to the running calls, and to a `total` that knows nothing of layers.

    `queries` is the length of the running language layer's input.
    """

    def __init__(self, frames: Frames, tracker: PhaseTracker) -> None:
        self.total = 0
        self.queries = 0
        self._frames = frames
        self._tracker = tracker
        self._counted: dict[tuple[Any, ...], Product | Attention | None] = {}
        self._padding = Padding()
        self._visible = Visibility()
        self._scores: Scores | None = None
        self._weighting: Weighting | None = None

    def begin(self, attention_mask: Tensor | None) -> None:
        """Begin a batch; its mask (rows, positions) tells the real tokens of the prompt."""
        self._padding = Padding(attention_mask)
        self.queries, self._scores, self._weighting = 0, None, None

    def forget_masks(self) -> None:
        """Begin a step: masks may be other ones under the same address."""
        self._visible.forget()

    def add(self, operator: Operator, operands: dict[str, Any], output: Any, frame: Frame) -> bool:
        """Add what an operator with a formula has done in the running call; tell whether that is known to be all.

        It is not where the formula does not know such operands (sparse, nested), or counts the least.
        """
        try:
            made = output_shape(output)
            values = measured(operands, operator.name)
            key = (operator.name, signature(operands, values), made)
        except Exception:  # a tensor that does not tell its shape
            return False
        if key not in self._counted:  # a packed weight has no shape to be read: its output has
            assert operator.formula is not None, operator.name
            shaped = shapes(operands, values)
            self._counted[key] = count(operator.name, operator.formula, shaped, made)
        counted = self._counted[key]
        if counted is None:
            return False
        if isinstance(counted, Product):
            self._product(counted, operands, frame)
            return not counted.least
        if counted.packed:
            self._packed(counted, operands, frame)
        else:
            self._attention(counted, operands, frame, from_start="scaled_dot_product" in operator.name)
        return True

    def _product(self, product: Product, operands: dict[str, Any], frame: Frame) -> None:
        if product.attended:
            self._frames.attend(keys := _first(operands, KEYS), place(keys), product.attended)
        tally, phase = self._frames.tally(frame), self._frames.phase(frame)
        self.total += product.flops
        if product.batched is not None and self._weighting is not None:
            batch, rows, inner, _ = product.batched
            weighting = self._weighting
            if batch * rows == weighting.places and inner == weighting.columns:
                tally.add_attention(product.flops, weighting.useful, weighting.causal)
                self._weighting = None
                return
        useful = self._padding.share_of_rows(self._padding.columns(self.queries, phase, self._tracker))
        tally.add(product.flops, useful)
        if product.batched is not None:
            batch, rows, inner, columns = product.batched
            keys = _first(operands, SECOND)
            self._scores = Scores(tally, phase, product.flops, useful, batch, rows, columns, inner, keys)

    def softmax(self, scores: Tensor) -> None:
        """Tell eager attention: a batched product, a softmax over what it gave, and a product with that."""
        found, self._scores = self._scores, None
        if found is None or scores.is_nested or scores.ndim < 3 or scores.shape[-1] < found.columns:
            return
        if prod(scores.shape[:-1]) != found.batch * found.rows:
            return
        queries, keys = int(scores.shape[-2]), found.columns
        useful, causal, seen = ALL, ALL, keys
        if found.phase is not Phase.VISION:
            useful = self._useful_pairs(queries, keys)
            pairs, seen = self._visible.by_scores(scores, keys)
            causal = (pairs, queries * keys)
        apart = int(scores.shape[0]) if scores.ndim == WITH_HEADS else 0
        self._attended(found.keys, Heads(found.batch, apart, queries, keys, found.inner), seen)
        found.tally.add(-found.executed, found.useful)
        found.tally.add_attention(found.executed, useful, causal)
        self._weighting = Weighting(found.batch * found.rows, keys, useful, causal)

    def _attention(self, it: Attention, operands: dict[str, Any], frame: Frame, *, from_start: bool) -> None:
        tally, phase = self._frames.tally(frame), self._frames.phase(frame)
        self.total += it.flops
        if phase is Phase.VISION:
            tally.add_attention(it.flops)
            seen = it.keys
        else:
            shown = by_flags(operands, it.queries, it.keys, from_start=from_start) or self._masked(it, operands)
            useful, seen = self._useful_pairs(it.queries, it.keys), shown.keys
            tally.add_attention(it.flops, useful, (shown.pairs, it.queries * it.keys))
        if not it.backward:
            keys = _first(operands, KEYS)
            apart = it.rows if keys is None or keys.ndim >= WITH_HEADS or it.packed else 0
            self._attended(keys, Heads(it.rows * it.heads, apart, it.queries, it.keys, it.width_qk), seen)

    def _masked(self, it: Attention, operands: dict[str, Any]) -> Shown:
        mask = next((operands[name] for name in MASKS if isinstance(operands.get(name), Tensor)), None)
        if mask is not None:
            return self._visible.by_mask(mask, it.queries, it.keys)
        block = operands.get("block_mask")
        if block is not None:
            return self._visible.by_function(block[-1], it.rows, it.queries, it.keys, operands["query"].device)
        return Shown(it.queries * it.keys, it.keys)

    def _packed(self, it: Attention, operands: dict[str, Any], frame: Frame) -> None:
        """Count packed sequences: a padded batch as padded, anything else by the sequences' own lengths."""
        starts_q, starts_k = (_first(operands, names) for names in (CUMULATIVE_Q, CUMULATIVE_K))
        queries = _lengths(starts_q) if starts_q is not None else [it.queries]
        keys = _lengths(starts_k) if starts_k is not None else queries
        tally, phase = self._frames.tally(frame), self._frames.phase(frame)
        if phase is not Phase.VISION and len(queries) == self._padding.rows and max(queries) <= self.queries:
            longest = _first(operands, LONGEST_K)
            padded = replace(it, rows=len(queries), queries=self.queries, keys=int(longest or max(keys)), packed=False)
            self._attention(padded, operands, frame, from_start=False)
            return
        pairs = formulas.varlen_pairs(queries, keys)
        executed = it.of_pairs(1, pairs)
        self.total += executed
        each = zip(queries, keys, strict=True)
        shown = [by_flags(operands, q, k, from_start=False) or Shown(q * k, k) for q, k in each]
        visible = sum(s.pairs for s in shown)
        tally.add_attention(executed, ALL, ALL if phase is Phase.VISION else (visible, pairs))
        if not it.backward:
            read = sum(keys if phase is Phase.VISION else (s.keys for s in shown))
            self._frames.attend(given := _first(operands, KEYS), place(given), read)

    def _attended(self, keys: Any, heads: Heads, seen: int) -> None:
        """Note that the running call reads `seen` of these keys in every row."""
        tokens, features = self._frames.given_around()
        positions = heads.positions(seen, tokens, features)
        if positions:
            self._frames.attend(keys, place(keys), positions)

    def _useful_pairs(self, queries: int, keys: int) -> Share:
        packed = self._tracker.packed if queries == self.queries else None
        within = packed.pairs(queries, keys) if packed is not None else None
        if within is not None:
            return within, queries * keys
        cached = self._frames.cache()
        layer = cached[0].layer if cached else None
        return self._padding.share_of_pairs(
            queries,
            keys,
            self._padding.columns(queries, self._tracker.phase, self._tracker),
            self._tracker.step,
            fixed=layer is not None and kv.is_static(layer),
            sliding=bool(getattr(layer, "is_sliding", False)),
        )


def _first(operands: dict[str, Any], names: Sequence[str]) -> Any:
    """Return the first operand that is given, of several names for one thing."""
    return next((operands[name] for name in names if operands.get(name) is not None), None)


def _lengths(starts: Tensor) -> list[int]:
    return [int(n) for n in (starts[1:] - starts[:-1]).tolist()]
