"""What all hooks share: finding the live modules, telling the phase, and removing themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from layerprof.records import Layer, Phase

if TYPE_CHECKING:
    from torch import nn
    from torch.utils.hooks import RemovableHandle


class Hook(Protocol):
    """An instrument: attach with `with hook:`, wrap each `generate()` in `with hook.batch(b):`, then read it."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def batch(self, index: int) -> Any:
        """Return a context manager around one batch's `generate()`."""

    def reading(self) -> Any:
        """Return what was read, as a frozen record. Valid after `__exit__`."""


class PhaseTracker:
    """Tells vision, prefill and decode apart by module and query length, never by call count.

    A language layer with more than one query position is prefill, with one it is decode; one position with an empty
    KV cache is the prefill of a one-token prompt. Modules that cannot tell from their own input (norm, lm_head)
    take the phase of the decoder layer that ran last.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin a new batch."""
        self.phase = Phase.PREFILL
        self.step = 0
        self.started = False

    def language(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Phase:
        """Phase of a decoder layer's (or token embedding's) call, from its first input's query length."""
        query = _query_length(args, kwargs)
        if query is None:
            return self.phase
        if query > 1 or _cache_is_empty(kwargs, self.started):
            self.phase, self.step = Phase.PREFILL, 0
        else:
            self.phase = Phase.DECODE
        return self.phase


def _query_length(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
    """Sequence length of the first tensor given: dimension 1 of (rows, positions[, features]); None when there is none."""
    hidden = args[0] if args else kwargs.get("hidden_states", kwargs.get("input"))
    shape = getattr(hidden, "shape", None)
    return int(shape[1]) if shape is not None and len(shape) >= 2 else None


def _cache_is_empty(kwargs: dict[str, Any], started: bool) -> bool:
    cache = kwargs.get("past_key_values", kwargs.get("past_key_value"))
    length = getattr(cache, "get_seq_length", None)
    if started or length is None:
        return not started
    return int(length()) == 0


class LayerHook:
    """Attaches `started` and `ended` to located layers and removes itself, on an exception too.

    Subclasses override `started(slot, phase)` and `ended(slot)`; `slot` is the layer's position in `layers`. Both
    are called on every call of the layer, `ended` also when the layer raised. Within a batch, `tracker.phase` and
    `tracker.step` are current.
    """

    def __init__(self, model: nn.Module, layers: Sequence[Layer]) -> None:
        self.model = model
        self.layers = tuple(layers)
        self.tracker = PhaseTracker()
        self._handles: list[RemovableHandle] = []
        self._stepper = next((i for i, x in enumerate(self.layers) if x.kind == "decoder_layer"), None)

    def __enter__(self) -> Self:
        modules = dict(self.model.named_modules(remove_duplicate=False))
        try:
            for slot, layer in enumerate(self.layers):
                self._attach(slot, layer, modules[layer.name])
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

    def _attach(self, slot: int, layer: Layer, module: nn.Module) -> None:
        read_phase = self._phase_reader(slot, layer)

        def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.started(slot, read_phase(args, kwargs))

        def after(_module: nn.Module, _args: tuple[Any, ...], _output: Any) -> None:
            self.ended(slot)

        # always_call: a layer that raises must not leave an open entry behind.
        self._handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        self._handles.append(module.register_forward_hook(after, always_call=True))

    def _phase_reader(self, slot: int, layer: Layer) -> Any:
        tracker = self.tracker
        if layer.tower == "vision":
            return lambda args, kwargs: Phase.VISION
        if slot == self._stepper:

            def first_block(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Phase:
                phase = tracker.language(args, kwargs)
                tracker.step = tracker.step + 1 if phase is Phase.DECODE else 0
                tracker.started = True
                return phase

            return first_block
        if layer.kind == "embed_tokens":
            return tracker.language
        return lambda args, kwargs: tracker.phase

    @contextmanager
    def batch(self, index: int) -> Iterator[None]:
        """Wrap one batch's `generate()`; phases start afresh."""
        self.tracker.reset()
        yield

    def started(self, slot: int, phase: Phase) -> None:
        """Handle the start of a call of `layers[slot]`."""

    def ended(self, slot: int) -> None:
        """Handle the end of a call of `layers[slot]`."""
