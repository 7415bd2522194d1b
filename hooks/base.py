"""What all hooks share: finding the live modules, telling the phase, and removing themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from layerprof.errors import RequestError, did_you_mean
from layerprof.readings import Layer
from layerprof.records import Phase

if TYPE_CHECKING:
    from torch import nn

PhaseReader = Callable[[tuple[Any, ...], dict[str, Any]], Phase]
"""Tells the phase of a call from its arguments."""

CACHES = ("past_key_values", "past_key_value", "layer_past", "cache")


class Handle(Protocol):
    """What takes one hook off a module again."""

    def remove(self) -> None:
        """Take it off."""


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
        self._handles: list[Handle] = []
        self._stepper = _stepper(self.layers)

    def __enter__(self) -> Self:
        modules = self._modules()
        try:
            for slot, (layer, module) in enumerate(zip(self.layers, modules, strict=True)):
                self._attach(slot, layer, module)
        except BaseException:
            self.detach()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()

    def detach(self) -> None:
        """Remove every hook; the model is as before."""
        while self._handles:
            self._handles.pop().remove()

    def _modules(self) -> list[nn.Module]:
        """Return each layer's live module. Raises RequestError for a layer that the model does not have."""
        found = dict(self.model.named_modules(remove_duplicate=False))
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
        tracker = self.tracker
        # torch's own transformer layers put positions first unless told otherwise.
        axis = 0 if getattr(getattr(module, "self_attn", None), "batch_first", True) is False else 1
        if slot == self._stepper:
            return lambda args, kwargs: tracker.step_begins(args, kwargs, axis)
        if layer.kind == "embed_tokens":
            return tracker.language
        return None

    @contextmanager
    def batch(self, index: int) -> Iterator[None]:
        """Wrap one batch's `generate()`; phases start afresh."""
        self.tracker.reset()
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
