"""Catching real calls of located layers, one of each layer and phase, with what they answered."""

from __future__ import annotations

import weakref
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from layerprof.hooks.base import LayerHook
from layerprof.hooks.energy.state import CallInputs, cache_indices, outputs
from torch import Tensor, nn

from layerprof.readings import Key, Layer
from layerprof.records import Phase


@dataclass
class Captured:
    """One call: the layer's module, its inputs before the call, the tensors it gave, and its decode step.

    `signature` is equal for calls that do the same work: kind of layer, shapes of its weights and of its inputs.
    """

    layer: Layer
    phase: Phase
    step: int
    module: nn.Module
    inputs: CallInputs
    output: list[Tensor]
    signature: Hashable

    @property
    def key(self) -> Key:
        """Layer name and phase."""
        return self.layer.name, self.phase


class CaptureHook(LayerHook):
    """Keeps the first call of each layer in vision and prefill, and the one at `decode_step` in decode.

    The energy of a decode call grows linearly with the cache, so that the middle step stands for the mean of all; where
    the answer ends before it, the last step is kept. `one_of_a_kind` keeps a single call of each signature.
    """

    def __init__(
        self, model: nn.Module, layers: Sequence[Layer], decode_step: int = 1, *, one_of_a_kind: bool = False
    ) -> None:
        super().__init__(model, layers)
        self.decode_step = max(1, decode_step)
        self.one_of_a_kind = one_of_a_kind
        self.calls: dict[Key, Captured] = {}
        self.members: dict[Key, Hashable] = {}
        self._open: list[tuple[int, Phase, int, CallInputs | None, Hashable]] = []
        self._clones: dict[int, tuple[Any, Tensor]] = {}

    def _attach(self, slot: int, layer: Layer, module: nn.Module) -> None:
        reader = self._phase_reader(slot, layer, module)
        indices = cache_indices(module)
        decoded = [0]

        def before(called: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if reader is not None:
                phase = reader(args, kwargs)
            else:
                phase = Phase.VISION if layer.tower == "vision" else self.tracker.phase
            signature = (layer.kind, phase, _make(called), _shapes(args), _shapes(kwargs))
            # Each layer counts its own steps: some run before the block that counts for all.
            decoded[0] += phase is Phase.DECODE
            step = decoded[0] if phase is Phase.DECODE else 0
            wanted = self._wanted(layer, phase, step, signature)
            inputs = CallInputs(args, kwargs, indices, self._clone) if wanted else None
            self._open.append((slot, phase, step, inputs, signature))

        def after(called: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
            self._close(slot, called, output)

        self._handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        self._handles.append(module.register_forward_hook(after, always_call=True))

    @contextmanager
    def batch(self, index: int, prompt: int | None = None) -> Iterator[None]:
        """Wrap one batch's `generate()`."""
        with super().batch(index, prompt):
            yield
        self._clones.clear()

    def _wanted(self, layer: Layer, phase: Phase, step: int, signature: Hashable) -> bool:
        key = (layer.name, phase)
        if phase is Phase.DECODE:
            # Every step up to the wanted one replaces the one before: the answer may end at any of them.
            had = self.calls.get(key)
            wanted = had is None or had.step < step <= self.decode_step
        else:
            wanted = key not in self.calls
        if wanted and self.one_of_a_kind:
            others = (c for k, c in self.calls.items() if k != key and k[1] is phase)
            wanted = not any(kind_of(c.signature) == kind_of(signature) for c in others)
        return wanted

    def _close(self, slot: int, module: nn.Module, output: Any) -> None:
        while self._open:
            opened, phase, step, inputs, signature = self._open.pop()
            if opened == slot:
                break
        else:
            return
        layer = self.layers[slot]
        self.members[layer.name, phase] = signature
        found = [] if output is None else outputs(output)
        if inputs is not None and found:
            kept = [t.detach().clone() for t in found]
            self.calls[layer.name, phase] = Captured(layer, phase, step, module, inputs, kept, signature)

    def _clone(self, tensor: Tensor) -> Tensor:
        """Clone a tensor once, however many layers get it (masks and rotary angles go to all of them)."""
        known = self._clones.get(id(tensor))
        if known is not None and known[0]() is tensor and torch.equal(known[1], tensor):
            return known[1]
        clone = tensor.detach().clone()
        self._clones[id(tensor)] = (weakref.ref(tensor), clone)
        return clone


def _make(module: nn.Module) -> Hashable:
    """Shapes of the weights, and the settings that tell, say, a sliding from a full attention."""
    shapes = tuple((tuple(p.shape), str(p.dtype)) for p in module.parameters())
    settings = tuple(
        (name, value)
        for part in module.modules()
        for name, value in sorted(vars(part).items())
        if isinstance(value, bool | int | float | str) and name not in ("layer_idx", "training")
    )
    return shapes, settings


def _shapes(value: Any) -> Hashable:
    """Shapes of all tensors in a call's arguments, and the values that steer it."""
    if isinstance(value, Tensor):
        return tuple(value.shape), str(value.dtype)
    if isinstance(value, dict):
        return tuple((key, _shapes(x)) for key, x in sorted(value.items()))
    if isinstance(value, list | tuple):
        return tuple(_shapes(x) for x in value)
    return value if isinstance(value, bool | int | float | str) else type(value).__name__


def kind_of(signature: Hashable) -> Hashable:
    """Return the signature without the shapes of inputs that grow from step to step."""
    assert isinstance(signature, tuple)
    return signature[:3] if signature[1] is Phase.DECODE else signature
