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
from typing import Any

from layerprof.hooks import kv
from layerprof.hooks.base import LayerHook
from layerprof.hooks.counting import FlopCount
from layerprof.hooks.dispatch import Dispatch, Operator, operators_visible
from layerprof.hooks.frames import Frame, Frames
from layerprof.hooks.weights import Weights, boundary_bytes, tensors_in
from torch import Tensor, nn

from layerprof.flops.operators import GROUPED
from layerprof.readings import Layer, WorkReading
from layerprof.records import Phase


class ShapesHook(LayerHook):
    """Counts the work of located layers; `reading()` gives a `WorkReading` whose parts add up to its total."""

    def __init__(self, model: nn.Module, layers: Sequence[Layer]) -> None:
        super().__init__(model, layers)
        self._uncounted: dict[str, int] = {}
        self._frames = Frames(self.tracker)
        self._flops = FlopCount(self._frames, self.tracker)

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
            self._handles.append(module.register_forward_hook(self._closer(frame[0]), always_call=True))

    def _opener(self, path: str, phase: Phase | None) -> Any:
        def before(_module: nn.Module, _args: tuple[Any, ...]) -> None:
            self._frames.open(Frame(path, None, phase))

        return before

    def _closer(self, path: str) -> Any:
        def after(_module: nn.Module, _args: tuple[Any, ...], _output: Any) -> None:
            self._frames.close(None, path)

        return after

    # --- one batch --------------------------------------------------------------------------------------------

    @contextmanager
    def batch(self, index: int, attention_mask: Tensor | None = None) -> Iterator[None]:
        """Count one `generate()`; `attention_mask` (rows, positions) tells the real tokens of the prompt."""
        self._flops.begin(attention_mask)
        self._frames.begin()
        with super().batch(index), operators_visible(), Dispatch(self._saw):
            yield
        self._frames.end()
        self._flops.forget_masks()

    def attention(self) -> dict[tuple[str, Phase], int]:
        """Return the attention part of each layer's FLOPs, eager or fused."""
        return {key: tally.attention for key, tally in self._frames.inside.items()}

    def reading(self) -> WorkReading:
        """Return the work so far; `outside` holds only what did any."""
        frozen = {key: tally.frozen() for key, tally in self._frames.outside.items()}
        outside = {key: work for key, work in frozen.items() if work.flops or work.bytes}
        inside = {key: tally.frozen() for key, tally in self._frames.inside.items()}
        return WorkReading(inside, outside, self._flops.total, dict(self._uncounted))

    # --- calls of layers --------------------------------------------------------------------------------------

    def started(self, slot: int, phase: Phase) -> None:
        """Open a frame for the call."""
        layer = self.layers[slot]
        if slot == self._stepper:
            self._flops.forget_masks()
        frame = Frame(layer.name, slot, phase)
        self._frames.open(frame)
        self._frames.tally(frame).calls += 1

    def ended(self, slot: int) -> None:
        """Close the call's frame, and those that an exception left open inside it."""
        self._frames.close(slot, self.layers[slot].name)

    def _enter(self, slot: int, index: int | None, inputs: dict[Any, Any]) -> None:
        frame = self._frames.innermost
        frame.cached = kv.before_call(index, inputs)
        self._frames.tally(frame).bytes_activations += boundary_bytes(inputs)
        if self.layers[slot].tower == "language":
            first = next((v for v in inputs.values() if isinstance(v, Tensor) and v.ndim >= 2), None)
            self._flops.queries = int(first.shape[1]) if first is not None else 0

    def _leave(self, slot: int, output: Any) -> None:
        frame = self._frames.of_layer(slot)
        if frame is None:
            return
        tally = self._frames.tally(frame)
        tally.bytes_activations += boundary_bytes(output)
        tally.bytes_kv += kv.after_call(frame.cached, self._flops.queries)

    # --- operators --------------------------------------------------------------------------------------------

    def _saw(self, operator: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        frame = self._frames.innermost
        tensors = tensors_in((*args, *kwargs.values()))
        if operator.role == "gather" and self._weights.gather(tensors[0], output, frame.read):
            del tensors[0]
        elif operator.name in GROUPED and len(tensors) > 2:
            self._weights.read_groups(tensors[1], operator.operands(args, kwargs).get("offs"), frame.read)
            del tensors[1]
        self._weights.read(tensors, frame.read)
        whole = operator.role != "unknown"
        if operator.role == "formula":
            whole = self._flops.add(operator, operator.operands(args, kwargs), output, frame)
        elif operator.role == "softmax":
            self._flops.softmax(args[0])
        if not whole:
            self._uncounted[operator.name] = self._uncounted.get(operator.name, 0) + 1


def _positional(module: nn.Module) -> tuple[str, ...]:
    """Names of a module's positional inputs; none where its `forward` does not tell."""
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return ()
    named = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(parameter.name for parameter in parameters if parameter.kind in named)


def _towers_around(name: str, located: dict[str, str]) -> set[str]:
    """Towers of the layers in the nearest surroundings of a module that hold any."""
    while True:
        prefix = name + "." if name else ""
        towers = {tower for layer, tower in located.items() if layer.startswith(prefix)}
        if towers or not name:
            return towers
        name = name.rpartition(".")[0]
