"""What all hooks share: finding the live modules, telling the phase, and removing themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from layerprof.hooks.phases import PhaseReader, PhaseTracker, puts_positions_first

from layerprof.errors import RequestError, did_you_mean
from layerprof.machine.internals import compiled_itself
from layerprof.machine.modules import named
from layerprof.models.patch import Forward, Laid, Replaced
from layerprof.readings import Layer
from layerprof.records import Phase

if TYPE_CHECKING:
    from torch import nn


class Handle(Protocol):
    """What takes one hook off a module again."""

    def remove(self) -> None:
        """Take it off."""


class LayerHook:
    """Attaches `started` and `ended` to located layers and removes itself, on an exception too.

    Subclasses override `started(slot, phase)` and `ended(slot)`; `slot` is the layer's position in `layers`. Both
    are called on every call of the layer, `ended` also when the layer raised. Within a batch, `tracker.phase` and
    `tracker.step` are current. A module that stands in the model under two names is one layer with two calls.

    Entering raises RequestError for a layer that the model does not have; nothing is attached then.
    """

    def __init__(self, model: nn.Module, layers: Sequence[Layer]) -> None:
        self.model = model
        self.layers = tuple(layers)
        self.tracker = PhaseTracker()
        self.tracker.reading = False
        self._handles: list[Handle] = []
        self._stepper = _stepper(self.layers)

    def __enter__(self) -> Self:
        modules = self._modules()
        try:
            for slot, (layer, module) in enumerate(zip(self.layers, modules, strict=True)):
                self._attach(slot, layer, module)
            if not compiled_itself(self.model):  # another `forward` would make torch compile it anew
                self._handles.append(Replaced(self.model, self._passing))
        except BaseException:
            self.detach()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()

    def _passing(self, forward: Forward) -> Forward:
        """Return what stands around a pass through the model: it is given what its layers may not be."""
        import torch

        tracker, compiling = self.tracker, torch.compiler.is_dynamo_compiling

        def passing(_laid: Laid, *args: Any, **kwargs: Any) -> Any:
            if compiling() or not tracker.reading:
                return forward(*args, **kwargs)
            with tracker.model(args, kwargs):
                return forward(*args, **kwargs)

        return passing

    def refresh(self) -> None:
        """Follow what the modules' classes have become since: somebody may have given them another `forward`."""
        for handle in self._handles:
            if isinstance(handle, Replaced):
                handle.refresh()

    def detach(self) -> None:
        """Remove every hook; the model is as before."""
        stop: BaseException | None = None
        while self._handles:
            try:
                self._handles[-1].remove()
                self._handles.pop()
            except KeyboardInterrupt as pressed:  # first all of it off, then the user's Ctrl-C
                stop = pressed
        if stop is not None:
            raise stop

    def _modules(self) -> list[nn.Module]:
        """Return each layer's live module. Raises RequestError for a layer that the model does not have."""
        found = named(self.model)
        for layer in self.layers:
            if layer.name not in found:
                raise RequestError(
                    f"{type(self.model).__name__} has no layer '{layer.name}' to attach to.",
                    f"{did_you_mean(layer.name, found)}Pass layers of this model, as find_layers(model) gives them.",
                )
        return [found[layer.name] for layer in self.layers]

    def _attach(self, slot: int, layer: Layer, module: nn.Module) -> None:
        # One closure per kind of layer, and nothing looked up twice: each runs on every call of the layer.
        started, ended, tracker = self.started, self.ended, self.tracker
        reader = self._phase_reader(slot, layer, module)
        if reader is not None:

            def before_reading(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                started(slot, reader(args, kwargs))

            self._handles.append(module.register_forward_pre_hook(before_reading, with_kwargs=True))
        elif layer.tower == "vision":

            def before_vision(_module: nn.Module, _args: tuple[Any, ...]) -> None:
                started(slot, Phase.VISION)

            self._handles.append(module.register_forward_pre_hook(before_vision))
        else:

            def before(_module: nn.Module, _args: tuple[Any, ...]) -> None:
                started(slot, tracker.phase)

            self._handles.append(module.register_forward_pre_hook(before))

        def after(_module: nn.Module, _args: tuple[Any, ...], _output: Any) -> None:
            ended(slot)

        # always_call: a layer that raises must not leave an open entry behind.
        self._handles.append(module.register_forward_hook(after, always_call=True))

    def _phase_reader(self, slot: int, layer: Layer, module: nn.Module) -> PhaseReader | None:
        """Return what reads the phase from a call's inputs; None for layers that take it from others."""
        if slot == self._stepper:
            self.tracker.positions_first = puts_positions_first(module)
            return self.tracker.step_begins
        # A table that writes tokens, too, can stand as the head: FSMT's decoder reads with it.
        reads = layer.kind == "embed_tokens" or type(module).__name__ == "Embedding"
        return self.tracker.embedding if reads and layer.tower == "language" and layer.kind != "pos_embed" else None

    @contextmanager
    def batch(self, index: int, prompt: int | None = None) -> Iterator[None]:
        """Wrap one batch's `generate()`; phases start afresh, with a prompt of `prompt` positions where known."""
        self.tracker.reset(prompt)
        self.tracker.reading = True
        try:
            yield
        finally:
            self.tracker.reading = False

    @contextmanager
    def captured(self) -> Iterator[Any]:
        """Wrap the capture of a decode step into a CUDA graph: layers are called, and nothing that they launch runs."""
        step = self.tracker.step
        try:
            yield None
        finally:
            self.tracker.step = step

    @contextmanager
    def replayed(self, captured: Any) -> Iterator[None]:
        """Wrap one replay of a captured step; `captured` is what the context of its capture gave."""
        self.tracker.replayed()
        yield

    def started(self, slot: int, phase: Phase) -> None:
        """Handle the start of a call of `layers[slot]`."""

    def ended(self, slot: int) -> None:
        """Handle the end of a call of `layers[slot]`."""


def _stepper(layers: Sequence[Layer]) -> int | None:
    """Slot of the first block of the language tower: the decoder's where it has one, else the encoder's."""
    for kind in ("decoder_layer", "encoder_layer"):
        for slot, layer in enumerate(layers):
            if layer.kind == kind and layer.tower == "language":
                return slot
    return None
