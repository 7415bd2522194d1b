"""FLOPs and bytes of what really ran: every operator's shapes, given to the innermost located layer.

FLOPs come from the formulas of `layerprof.flops.operators` on the shapes that the operators saw, so every attention
kernel gives the same figures. Where a kernel skips padding that others compute (packed flash attention in a padded
batch), the padded shape is counted, and `flops_useful` shows what was real.

Bytes are the least traffic of one call of a layer: each distinct weight it read once (only the rows an embedding
gathered, only the experts that ran), the tensors that cross the layer's boundary once, and the KV cache that existed
before the call read plus the new positions written. What stays inside a layer is not counted.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from math import prod
from typing import Any

from layerprof.hooks import kv
from layerprof.hooks.base import LayerHook
from layerprof.hooks.dispatch import Dispatch, Operator, operators_visible, output_shape, shapes, signature
from layerprof.hooks.tokens import ALL, Padding, Share, Visibility, by_flags
from layerprof.hooks.weights import Read, Weights, boundary_bytes, tensors_in
from torch import Tensor, nn

from layerprof.flops import formulas
from layerprof.flops.operators import CUMULATIVE_K, CUMULATIVE_Q, GROUPED, LONGEST_K, MASKS, Attention, Product
from layerprof.readings import Layer, Work, WorkReading
from layerprof.records import Phase

OUTSIDE = "outside the model"


@dataclass(slots=True)
class Tally:
    """A `Work` that grows. `attention` is the part of its FLOPs that is attention: scores and weighted values."""

    calls: int = 0
    flops: int = 0
    flops_useful: int = 0
    flops_causal: int = 0
    bytes_weights: int = 0
    bytes_activations: int = 0
    bytes_kv: int = 0
    attention: int = 0

    def add(self, executed: int, useful: Share = ALL, causal: Share = ALL) -> None:
        """Add the FLOPs of one operator."""
        self.flops += executed
        self.flops_useful += executed * useful[0] // useful[1]
        self.flops_causal += executed * causal[0] // causal[1]

    def add_attention(self, executed: int, useful: Share = ALL, causal: Share = ALL) -> None:
        """Add the FLOPs of one operator of attention."""
        self.add(executed, useful, causal)
        self.attention += executed

    def frozen(self) -> Work:
        """Return the sums so far."""
        return Work(*(getattr(self, f.name) for f in fields(Work)))


@dataclass(slots=True)
class Frame:
    """One running call: of a located layer (`slot`), or of a module outside them (`path`)."""

    path: str
    slot: int | None
    phase: Phase | None
    read: Read = field(default_factory=dict)
    cached: tuple[kv.Before, ...] = ()


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


@dataclass(frozen=True, slots=True)
class Weighting:
    """Shares that attention's second product takes: those of its scores."""

    places: int
    columns: int
    useful: Share
    causal: Share


class ShapesHook(LayerHook):
    """Counts the work of located layers; `reading()` gives a `WorkReading` whose parts add up to its total."""

    def __init__(self, model: nn.Module, layers: Sequence[Layer]) -> None:
        super().__init__(model, layers)
        self._inside: dict[tuple[str, Phase], Tally] = {}
        self._outside: dict[tuple[str, Phase], Tally] = {}
        self._total = 0
        self._uncounted: dict[str, int] = {}
        self._frames: list[Frame] = []
        self._counted: dict[tuple[Any, ...], Product | Attention] = {}
        self._padding = Padding()
        self._visible = Visibility()
        self._queries = 0
        self._scores: Scores | None = None
        self._weighting: Weighting | None = None

    # --- attaching --------------------------------------------------------------------------------------------

    def __enter__(self) -> ShapesHook:
        self._weights = Weights(self.model)
        super().__enter__()
        try:
            self._attach_outside()
        except BaseException:
            self.detach()
            raise
        return self

    def _attach(self, slot: int, layer: Layer, module: nn.Module) -> None:
        index = kv.layer_index(module)
        names = _positional(module)

        def entering(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._enter(slot, index, dict(zip((*names, *range(len(names), len(args))), args, strict=False)) | kwargs)

        def leaving(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
            self._leave(slot, output)

        # Around the base's hooks, so that the frame is open in both.
        self._handles.append(module.register_forward_hook(leaving))
        super()._attach(slot, layer, module)
        self._handles.append(module.register_forward_pre_hook(entering, with_kwargs=True))

    def _attach_outside(self) -> None:
        """Follow the modules around the layers, so that work between layers has a name."""
        located = {layer.name: layer.tower for layer in self.layers}
        for name, module in self.model.named_modules():
            if any(name == x or name.startswith(x + ".") or not x for x in located):
                continue
            vision = _towers_around(name, located) == {"vision"}
            frame = (name or type(module).__name__, Phase.VISION if vision else None)
            self._handles.append(module.register_forward_pre_hook(self._opener(*frame)))
            self._handles.append(module.register_forward_hook(self._closer(*frame), always_call=True))

    def _opener(self, path: str, phase: Phase | None) -> Any:
        def before(_module: nn.Module, _args: tuple[Any, ...]) -> None:
            self._frames.append(Frame(path, None, phase))

        return before

    def _closer(self, path: str, phase: Phase | None) -> Any:
        def after(_module: nn.Module, _args: tuple[Any, ...], _output: Any) -> None:
            if any(frame.path == path and frame.slot is None for frame in self._frames):
                while (frame := self._frames.pop()).path != path or frame.slot is not None:
                    pass
                self._tally(frame).bytes_weights += sum(frame.read.values())

        return after

    # --- one batch --------------------------------------------------------------------------------------------

    @contextmanager
    def batch(self, index: int, attention_mask: Tensor | None = None) -> Iterator[None]:
        """Count one `generate()`; `attention_mask` (rows, positions) tells the real tokens of the prompt."""
        self._padding = Padding(attention_mask)
        self._queries, self._scores, self._weighting = 0, None, None
        self._frames = [Frame(OUTSIDE, None, None)]
        with super().batch(index), operators_visible(), Dispatch(self._saw):
            yield
        self._frames = []
        self._visible.forget()

    def attention(self) -> dict[tuple[str, Phase], int]:
        """Return the attention part of each layer's FLOPs, eager or fused."""
        return {key: tally.attention for key, tally in self._inside.items()}

    def reading(self) -> WorkReading:
        """Return the work so far; `outside` holds only what did any."""
        outside = {key: work for key, tally in self._outside.items() if (work := tally.frozen()).flops or work.bytes}
        inside = {key: tally.frozen() for key, tally in self._inside.items()}
        return WorkReading(inside, outside, self._total, dict(self._uncounted))

    # --- calls of layers --------------------------------------------------------------------------------------

    def started(self, slot: int, phase: Phase) -> None:
        """Open a frame for the call."""
        layer = self.layers[slot]
        if slot == self._stepper:
            self._visible.forget()
        frame = Frame(layer.name, slot, phase)
        self._frames.append(frame)
        self._tally(frame).calls += 1

    def ended(self, slot: int) -> None:
        """Close the call's frame, and those that an exception left open inside it."""
        if not any(frame.slot == slot for frame in self._frames):
            return
        while (frame := self._frames.pop()).slot != slot:
            pass
        self._tally(frame).bytes_weights += sum(frame.read.values())

    def _enter(self, slot: int, index: int | None, inputs: dict[Any, Any]) -> None:
        frame = self._frames[-1]
        frame.cached = kv.before_call(index, inputs)
        self._tally(frame).bytes_activations += boundary_bytes(inputs)
        if self.layers[slot].tower == "language":
            first = next((v for v in inputs.values() if isinstance(v, Tensor) and v.ndim >= 2), None)
            self._queries = int(first.shape[1]) if first is not None else 0

    def _leave(self, slot: int, output: Any) -> None:
        frame = next((f for f in reversed(self._frames) if f.slot == slot), None)
        if frame is None:
            return
        tally = self._tally(frame)
        tally.bytes_activations += boundary_bytes(output)
        tally.bytes_kv += kv.after_call(frame.cached, self._queries)

    def _tally(self, frame: Frame) -> Tally:
        books = self._outside if frame.slot is None else self._inside
        return books.setdefault((frame.path, frame.phase or self.tracker.phase), Tally())

    # --- operators --------------------------------------------------------------------------------------------

    def _saw(self, operator: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        frame = self._frames[-1] if self._frames else Frame(OUTSIDE, None, None)
        tensors = tensors_in((*args, *kwargs.values()))
        if operator.role == "gather" and self._weights.gather(tensors[0], output, frame.read):
            del tensors[0]
        elif operator.name in GROUPED and len(tensors) > 2:
            self._weights.read_groups(tensors[1], _first(operator.operands(args, kwargs), ("offs",)), frame.read)
            del tensors[1]
        self._weights.read(tensors, frame.read)
        if operator.role == "formula":
            self._count(operator, operator.operands(args, kwargs), output, frame)
        elif operator.role == "softmax":
            self._softmax(args[0])
        elif operator.role == "unknown":
            self._uncounted[operator.name] = self._uncounted.get(operator.name, 0) + 1

    def _count(self, operator: Operator, operands: dict[str, Any], output: Any, frame: Frame) -> None:
        made = output_shape(output)
        key = (operator.name, signature(operands), made)  # a packed weight has no shape to be read: its output has
        counted = self._counted.get(key)
        if counted is None:
            assert operator.formula is not None, operator.name
            counted = self._counted[key] = operator.formula(shapes(operands), made)
        if isinstance(counted, Product):
            self._product(counted, frame)
        elif counted.packed:
            self._packed(counted, operands, frame)
        else:
            self._attention(counted, operands, frame, from_start="scaled_dot_product" in operator.name)

    def _product(self, product: Product, frame: Frame) -> None:
        tally, phase = self._tally(frame), frame.phase or self.tracker.phase
        self._total += product.flops
        if product.batched is not None and self._weighting is not None:
            batch, rows, inner, _ = product.batched
            weighting = self._weighting
            if batch * rows == weighting.places and inner == weighting.columns:
                tally.add_attention(product.flops, weighting.useful, weighting.causal)
                self._weighting = None
                return
        useful = self._padding.share_of_rows(phase, self._queries)
        tally.add(product.flops, useful)
        if product.batched is not None:
            batch, rows, _, columns = product.batched
            self._scores = Scores(tally, phase, product.flops, useful, batch, rows, columns)

    def _softmax(self, scores: Tensor) -> None:
        """Tell eager attention: a batched product, a softmax over what it gave, and a product with that."""
        found, self._scores = self._scores, None
        if found is None or scores.ndim < 3 or scores.shape[-1] < found.columns:
            return
        if prod(scores.shape[:-1]) != found.batch * found.rows:
            return
        queries, keys = int(scores.shape[-2]), found.columns
        useful, causal = ALL, ALL
        if found.phase is not Phase.VISION:
            useful = self._useful_pairs(queries, keys)
            causal = (self._visible.by_scores(scores, keys), queries * keys)
        found.tally.add(-found.executed, found.useful)
        found.tally.add_attention(found.executed, useful, causal)
        self._weighting = Weighting(found.batch * found.rows, keys, useful, causal)

    def _attention(self, it: Attention, operands: dict[str, Any], frame: Frame, *, from_start: bool) -> None:
        tally, phase = self._tally(frame), frame.phase or self.tracker.phase
        self._total += it.flops
        if phase is Phase.VISION:
            tally.add_attention(it.flops)
            return
        pairs = it.queries * it.keys
        visible = by_flags(operands, it.queries, it.keys, from_start=from_start)
        if visible is None:
            visible = self._masked(it, operands)
        tally.add_attention(it.flops, self._useful_pairs(it.queries, it.keys), (visible, pairs))

    def _masked(self, it: Attention, operands: dict[str, Any]) -> int:
        mask = next((operands[name] for name in MASKS if isinstance(operands.get(name), Tensor)), None)
        if mask is not None:
            return self._visible.by_mask(mask, it.queries, it.keys)
        block = operands.get("block_mask")
        if block is not None:
            return self._visible.by_function(block[-1], it.rows, it.queries, it.keys, operands["query"].device)
        return it.queries * it.keys

    def _packed(self, it: Attention, operands: dict[str, Any], frame: Frame) -> None:
        """Count packed sequences: a padded batch as padded, anything else by the sequences' own lengths."""
        starts_q, starts_k = (_first(operands, names) for names in (CUMULATIVE_Q, CUMULATIVE_K))
        queries = _lengths(starts_q) if starts_q is not None else [it.queries]
        keys = _lengths(starts_k) if starts_k is not None else queries
        tally, phase = self._tally(frame), frame.phase or self.tracker.phase
        if phase is not Phase.VISION and len(queries) == self._padding.rows and max(queries) <= self._queries:
            longest = _first(operands, LONGEST_K)
            padded = Attention(
                len(queries), it.heads, self._queries, int(longest or max(keys)), it.width_qk, it.width_v
            )
            self._attention(padded, operands, frame, from_start=False)
            return
        pairs = formulas.varlen_pairs(queries, keys)
        executed = formulas.attention(1, it.heads, pairs, it.width_qk, it.width_v)
        self._total += executed
        shown = [by_flags(operands, q, k, from_start=False) for q, k in zip(queries, keys, strict=True)]
        visible = sum(q * k if s is None else s for q, k, s in zip(queries, keys, shown, strict=True))
        tally.add_attention(executed, ALL, ALL if phase is Phase.VISION else (visible, pairs))

    def _useful_pairs(self, queries: int, keys: int) -> Share:
        cached = next((f.cached for f in reversed(self._frames) if f.cached), ())
        layer = cached[0].layer if cached else None
        return self._padding.share_of_pairs(
            queries,
            keys,
            self.tracker.phase,
            self.tracker.step,
            fixed=layer is not None and kv.is_static(layer),
            sliding=bool(getattr(layer, "is_sliding", False)),
        )


def _positional(module: nn.Module) -> tuple[str, ...]:
    """Names of a module's positional inputs; none where its `forward` does not tell."""
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return ()
    named = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(parameter.name for parameter in parameters if parameter.kind in named)


def _first(operands: dict[str, Any], names: Sequence[str]) -> Any:
    return next((operands[name] for name in names if operands.get(name) is not None), None)


def _lengths(starts: Tensor) -> list[int]:
    return [int(n) for n in (starts[1:] - starts[:-1]).tolist()]


def _towers_around(name: str, located: dict[str, str]) -> set[str]:
    """Towers of the layers in the nearest surroundings of a module that hold any."""
    while True:
        prefix = name + "." if name else ""
        towers = {tower for layer, tower in located.items() if layer.startswith(prefix)}
        if towers or not name:
            return towers
        name = name.rpartition(".")[0]
