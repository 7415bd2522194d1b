"""FLOPs and bytes of what really ran: every operator's shapes, given to the innermost located layer.

FLOPs come from the formulas of `layerprof.flops.operators` on the shapes that the operators saw, so every attention
kernel gives the same figures. Where a kernel skips padding that others compute (packed flash attention in a padded
batch), the padded shape is counted, and `flops_useful` shows what was real.

Bytes are the least traffic of one call of a layer: each distinct weight it read once (only the rows an embedding
gathered, only the experts that ran), the tensors that cross the layer's boundary once, and the KV cache that existed
before the call read plus the new positions written. What stays inside a layer is not counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any, Self

from layerprof.hooks import kv
from layerprof.hooks.counting import FlopCount
from layerprof.hooks.dispatch import Dispatch, Guard, Operator, operators_visible
from layerprof.hooks.following import Around, Following, positional
from layerprof.hooks.frames import Frame, Frames
from layerprof.hooks.positions import Positions, Size
from layerprof.hooks.unwritten import Unwritten
from layerprof.hooks.weights import Weights, boundary_bytes, packed_in, tensors_in
from torch import Tensor, nn

from layerprof.flops.operators import GROUPED
from layerprof.readings import ELSEWHERE, UNSEEN_KERNEL, Layer, Uncounted, WorkReading
from layerprof.records import BLOCK_KINDS, Phase

OF_PAGES = "flash_attn_with_kvcache"
"""Attention that reads the pages of continuous batching by itself (`block_table`); in some builds no operator."""


class ShapesHook(Following):
    """Counts the work of located layers; `reading()` gives a `WorkReading` whose parts add up to its total."""

    def __init__(self, model: nn.Module, layers: Sequence[Layer]) -> None:
        super().__init__(model, layers)
        self._uncounted: dict[tuple[str, Phase, str], Uncounted] = {}
        self._frames = Frames(self.tracker)
        self._flops = FlopCount(self._frames, self.tracker)
        self._dispatch = Dispatch(self._saw)
        self._unwritten = Unwritten()
        self._noting = Lock()
        self._embedded = 0

    # --- attaching --------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._weights = Weights(self.model)
        return super().__enter__()

    def _layer(self, slot: int, layer: Layer, module: nn.Module) -> Around:
        index, names = kv.layer_index(module), positional(module)
        reader, positions = self._phase_reader(slot, layer, module), Positions(layer, module)
        vision, tracker = layer.tower == "vision", self.tracker

        def opening(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.started(slot, Phase.VISION if vision else tracker.phase)
            inputs = dict(zip((*names, *range(len(names), len(args))), args, strict=False)) | kwargs
            self._enter(slot, index, inputs, tracker.length(args, kwargs) or 0)
            self._given(slot, positions.given(args, kwargs, self._around(layer)))

        def leaving(output: Any) -> None:
            self._leave(slot, output)
            if positions.made:
                self._given(slot, positions.given_back(output))

        def elsewhere() -> None:
            if layer.found:
                self._missed(ELSEWHERE, Frame(layer.name, slot, Phase.VISION if vision else None), None)

        return Around(reader, opening, leaving, lambda: self.ended(slot), elsewhere)

    def _path(self, path: str, phase: Phase | None) -> Around:
        whole = path == type(self.model).__name__

        def opening(_args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
            if whole:  # what comes before a model's own `forward` may have unpacked its weights
                self._weights.renew()
            self._frames.open(Frame(path, None, phase))

        return Around(
            None,
            opening,
            lambda _output: None,
            lambda: self._frames.close(None, path),
            lambda: self._missed(ELSEWHERE, Frame(path, None, phase), None),
        )

    # --- one batch --------------------------------------------------------------------------------------------

    @contextmanager
    def batch(self, index: int, prompt: int | None = None, *, attention_mask: Tensor | None = None) -> Iterator[None]:
        """Count one `generate()`; `attention_mask` (rows, positions) tells the real tokens of the prompt."""
        with self.followed(index, prompt, attention_mask=attention_mask), operators_visible(), self.watching():
            yield

    @contextmanager
    def followed(
        self, index: int, prompt: int | None = None, *, attention_mask: Tensor | None = None
    ) -> Iterator[None]:
        """Follow the phases of one `generate()`; what it does is counted while it is `watching()`."""
        self._flops.begin(attention_mask)
        self._embedded = 0
        with super().batch(index, prompt):
            try:
                yield
            finally:
                self._flops.forget_masks()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count what this thread runs. Nothing of what runs changes by it."""
        if self._watched:
            yield
            return
        self._frames.begin()
        self._unwritten.forget()
        try:
            with self._attending(), self._dispatch:
                yield
        finally:
            self._frames.end()

    @contextmanager
    def looking_away(self) -> Iterator[bool]:
        """Count nothing inside `watching()`; gives False where another mode was entered since: then that cannot be."""
        if not self._watched or not self._dispatch.on_top():
            yield not self._watched
            return
        self._dispatch.__exit__(None, None, None)
        try:
            with self._attending(to=False):
                yield True
        finally:
            self._dispatch.__enter__()

    @property
    def guard(self) -> Guard | None:
        """What is asked before an operator that writes, and may raise to keep it from running."""
        return self._dispatch.guard

    @guard.setter
    def guard(self, guard: Guard | None) -> None:
        self._dispatch.guard = guard

    @property
    def failure(self) -> Exception | None:
        """What went wrong in counting last; the calls went on."""
        return self._failure or self._dispatch.failure

    @property
    def spent_s(self) -> float:
        """Seconds that counting took beside the operators themselves, so far."""
        return self._dispatch.spent_s

    def take(self) -> WorkReading:
        """Return what was counted since this was last asked, or since the beginning."""
        reading = self.reading()
        self._frames.clear()
        self._flops.total = 0
        self._uncounted = {}
        return reading

    def attention(self) -> dict[tuple[str, Phase], int]:
        """Return the attention part of each layer's FLOPs, eager or fused."""
        return {key: tally.attention for key, tally in self._frames.inside.items()}

    def reading(self) -> WorkReading:
        """Return the work so far; `outside` holds only what did any."""
        frozen = {key: tally.frozen() for key, tally in self._frames.outside.items()}
        outside = {key: work for key, work in frozen.items() if work.flops or work.bytes}
        inside = {key: tally.frozen() for key, tally in self._frames.inside.items()}
        return WorkReading(
            layers=inside,
            outside=outside,
            total_flops=self._flops.total,
            uncounted=dict(self._uncounted),
            nested=dict(self._frames.nested),
            uncounted_inside=dict(self._frames.uncounted_inside),
        )

    # --- calls of layers --------------------------------------------------------------------------------------

    def started(self, slot: int, phase: Phase) -> None:
        """Open a frame for the call."""
        layer = self.layers[slot]
        if slot == self._stepper:
            self._flops.forget_masks()
        if layer.kind in BLOCK_KINDS and layer.tower == "language":
            self._frames.tell(phase)
        frame = Frame(layer.name, slot, phase, owns=layer.found)
        self._frames.open(frame)
        if frame.owns:
            self._frames.tally(frame).calls += 1

    def ended(self, slot: int) -> None:
        """Close the call's frame, and those that an exception left open inside it."""
        self._frames.close(slot, self.layers[slot].name)
        self._flops.queries = self._frames.queries() or self._flops.queries

    def _enter(self, slot: int, index: int | None, inputs: dict[Any, Any], queries: int) -> None:
        frame = self._frames.of_layer(slot)
        if frame is None:
            return
        if self.layers[slot].tower == "language":
            frame.queries = self._flops.queries = queries
        frame.cached = kv.before_call(index, inputs)
        self._frames.cross(frame, boundary_bytes(inputs), kv.paged(index, inputs, self.tracker.packed))
        if frame.owns and inputs.get("block_table") is not None:
            frame.seen = self._seen(frame)

    def _around(self, layer: Layer) -> int:
        """Return the positions of the call that a layer's call is part of, else those that were embedded last."""
        tokens, _ = self._frames.given_around()
        return tokens or (self._embedded if layer.tower == "language" else 0)

    def _given(self, slot: int, size: Size) -> None:
        frame = self._frames.of_layer(slot)
        if frame is None or not size.positions:
            return
        if self.layers[slot].kind == "embed_tokens":
            self._embedded = size.positions
        self._frames.given(frame, *size)

    def _leave(self, slot: int, output: Any) -> None:
        frame = self._frames.of_layer(slot)
        if frame is None:
            return
        self._frames.cross(frame, boundary_bytes(output), kv.after_call(frame.cached, frame.queries))
        if frame.seen is not None and frame.seen == self._seen(frame):
            self._missed(OF_PAGES, frame, None)

    def _seen(self, frame: Frame) -> tuple[int, int]:
        """Return what grows where attention is seen: its FLOPs in the call's layer, and operators without a formula."""
        return self._frames.tally(frame).attention, sum(missed.calls for missed in self._uncounted.values())

    # --- operators --------------------------------------------------------------------------------------------

    def _saw(
        self,
        operator: Operator,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        output: Any,
        seconds: float,
    ) -> None:
        frame = self._frames.innermost
        if operator.role == "unknown" or (
            operator.role == "formula" and not self._counted(operator, args, kwargs, output, frame)
        ):
            self._missed(operator.name, frame, seconds if _on_cpu((*args, *kwargs.values(), output)) else None)
        elif operator.role == "softmax":
            self._flops.softmax(args[0])
        for _ in range(self._unwritten.saw(operator, args, kwargs, output)):
            self._missed(UNSEEN_KERNEL, frame, None)
        self._read_weights(operator, args, kwargs, output, self._frames.running)

    def _counted(
        self, operator: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any, frame: Frame
    ) -> bool:
        """Add an operator by its formula; False where it fails, since operands are of any kind, or counts the least."""
        before = self._flops.total
        try:
            return self._flops.add(operator, operator.operands(args, kwargs), output, frame)
        except Exception:  # whatever it meets, the operator did its work, and is named
            self._flops.total = before
            return False

    def _missed(self, operator: str, frame: Frame, seconds: float | None) -> None:
        """Note an operator of a call that is not counted, and of what runs around it."""
        phase, call = self._frames.phase(frame), Uncounted(1, seconds)
        with self._noting:  # several threads may have something to note
            key = (frame.path, phase, operator)
            self._uncounted[key] = self._uncounted.get(key, Uncounted()) + call
            self._frames.missed(operator, call, frame)

    def _read_weights(
        self, operator: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any, frame: Frame
    ) -> None:
        tensors = tensors_in((*args, *kwargs.values()))
        if operator.role == "gather" and self._weights.gather(tensors[0], output, frame.read):
            del tensors[0]
        elif operator.name in GROUPED and len(tensors) > 2:
            self._weights.read_groups(tensors[1], operator.operands(args, kwargs).get("offs"), frame.read)
            del tensors[1]
        self._weights.read(tensors, frame.read)
        for value in packed_in((*args, *kwargs.values())):
            self._weights.read_packed(value, frame.read)


def _on_cpu(values: tuple[Any, ...]) -> bool:
    """Tell whether an operator ran on the host, whose clock then says how long it took."""
    return all(tensor.device.type == "cpu" for tensor in tensors_in(values))
