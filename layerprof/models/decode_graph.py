"""`--optimization graph`: a decode step of the decoder captured once into a CUDA graph, and replayed for every token.

What is captured is the forward of the module that holds the decoder layers. Vision, prefill, token embedding and head
stay as they are: vision and prefill have a shape of their own for each prompt, and around the decoder a model decides
by what stands in tensors (positions of image tokens), which no capture outlives. Cache and inputs stay where they were
captured: one static cache for each number of rows, made once and emptied between answers, and one copy of the inputs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from layerprof.errors import RunFailedError, out_of_memory
from layerprof.models.call_form import changed, put_together, remembered, taken_apart
from layerprof.models.cuda_capture import Card, TorchCard
from layerprof.models.patch import Forward, Laid, Replaced
from layerprof.readings import Layer

if TYPE_CHECKING:
    from torch import Tensor, nn

MOST = 64
"""Graphs of one set: a decoder whose calls differ each time would be captured without end."""
INSTEAD = "Use --optimization sdpa or compile."


class Follower(Protocol):
    """Is told of what runs without a call of any layer."""

    def captured(self) -> AbstractContextManager[Any]:
        """Return a context around the capture of a step: layers are called, and nothing that they launch runs."""

    def replayed(self, captured: Any) -> AbstractContextManager[None]:
        """Return a context around one replay of a step; `captured` is what the context of its capture gave."""


@dataclass
class Step:
    """A captured decode step: it reads `inputs` and the cache, and leaves `output`, always in the same places."""

    replay: Callable[[], None]
    inputs: list[Tensor]
    output: Any
    told: Any
    kept: Any


@dataclass
class Steps:
    """Steps that were captured under one follower, by the form of the decoder's call."""

    follower: Follower | None = None
    steps: dict[Hashable, Step] = field(default_factory=dict)


class DecodeGraphs:
    """Stands in a decoder's forward, and hands out the caches that its steps are captured with.

    `positions` is how many a cache holds: a prompt and the answer to it. `captures` counts what was captured, in
    `seconds`, and `replays` the steps that ran from it.
    """

    def __init__(self, model: nn.Module, decoder: nn.Module, positions: int, card: Card) -> None:
        self.captures = 0
        self.replays = 0
        self.seconds = 0.0
        self._model, self._name = model, type(decoder).__name__
        self._positions, self._card = positions, card
        self._device = next((weight.device for weight in decoder.parameters()), None)
        self._caches: dict[int, Any] = {}
        self._cache: Any = None
        self._filled = 0
        self._inputs: dict[Hashable, list[Tensor]] = {}
        self._plain = self._current = Steps()
        self._idle = False

    def cache(self, rows: int) -> Any:
        """Return the cache for so many rows, emptied; hand it to the next answer."""
        cache = self._caches.get(rows)
        if cache is None:
            cache = self._caches[rows] = _static_cache(self._model, self._positions)
        cache.reset()
        self._cache, self._filled = cache, 0
        return cache

    @contextmanager
    def under(self, steps: Steps) -> Iterator[None]:
        """Capture and replay the given steps for the length of the block; others are left as they are."""
        before, self._current = self._current, steps
        try:
            yield
        finally:
            self._current = before

    @contextmanager
    def eager(self) -> Iterator[None]:
        """Run the decoder as it is for the length of the block, call by call."""
        before, self._idle = self._idle, True
        try:
            yield
        finally:
            self._idle = before

    def make(self, forward: Forward) -> Forward:
        """Return what stands in the decoder's forward."""

        def call(_laid: Laid, *args: Any, **kwargs: Any) -> Any:
            decodes = self._decodes(args, kwargs)
            return forward(*args, **kwargs) if self._idle or not decodes else self._step(forward, args, kwargs)

        return call

    def _decodes(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Whether a call adds one position to our cache, which holds some. Counts what it adds."""
        new = _new_positions(args, kwargs)
        if self._cache is None or new is None or not any(value is self._cache for value in (*args, *kwargs.values())):
            return False
        before, self._filled = self._filled, self._filled + new
        if self._filled > self._positions:
            raise RunFailedError(
                f"The static cache holds {self._positions} positions, and {self._name} was given more: this model "
                "makes its prompt longer than the token ids are.",
                INSTEAD,
            )
        return new == 1 and before > 0

    def _step(self, forward: Forward, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one decode step: the first of its form as it is, all others from a graph."""
        given, form = taken_apart((args, kwargs), self._device)
        step = self._current.steps.get(form)
        if step is None:
            inputs = self._inputs.get(form) or [tensor.clone() for tensor in given]
            fixed = put_together((args, kwargs), iter(inputs))
            first = form not in self._inputs
            output = self._warmed(forward, args, kwargs) if first else None
            self._inputs[form] = inputs  # not before: one that was refused, or broken off, is to be warmed again
            step = self._current.steps[form] = self._captured(forward, fixed, inputs)
            if first:
                return output
        for place, tensor in zip(step.inputs, given, strict=True):
            place.copy_(tensor)
        follower = self._current.follower
        with follower.replayed(step.told) if follower else nullcontext():
            step.replay()
        self.replays += 1
        return step.output

    def _warmed(self, forward: Forward, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a step as it is, which loads its kernels; refuse one that leaves something where no replay reaches it."""
        before = remembered(self._cache)
        output = self._card.warmed(lambda: forward(*args, **kwargs))
        if place := changed(before, remembered(self._cache)):
            raise RunFailedError(
                f"A decode step of {self._name} cannot be replayed: it counts in Python (`{place}` of its cache, as "
                "layers with a sliding window do), and a replay runs none.",
                INSTEAD,
            )
        return output

    def _captured(self, forward: Forward, fixed: tuple[Any, Any], inputs: list[Tensor]) -> Step:
        args, kwargs = fixed
        follower = self._current.follower
        start = time.perf_counter()
        if len(self._current.steps) >= MOST:
            raise RunFailedError(
                f"{self._name} was captured {MOST} times over: its decode steps differ in more than their tensors.",
                INSTEAD,
            )
        try:
            with follower.captured() if follower else nullcontext() as told:
                replay, output = self._card.captured(lambda: forward(*args, **kwargs))
        except Exception as error:
            if out_of_memory(error):
                raise
            why = (str(error).splitlines() or [""])[0]
            raise RunFailedError(
                f"The decode step of {self._name} cannot be captured into a CUDA graph: {type(error).__name__}: {why}",
                f"A step that waits for what stands in its tensors cannot (experts by token, say). {INSTEAD}",
            ) from error
        self.captures += 1
        self.seconds += time.perf_counter() - start
        return Step(replay, inputs, output, told, fixed)


@contextmanager
def graphed_decoder(
    model: nn.Module, layers: Sequence[Layer], positions: int, card: Card | None = None
) -> Iterator[DecodeGraphs]:
    """Replay the decoder's steps for the length of the block; afterwards the model is as before.

    `positions` is the longest prompt with its answer. Raises RunFailedError where the model has no decoder to capture,
    or one that is spread over several devices.
    """
    decoder = decoder_of(model, layers)
    devices = {weight.device for weight in decoder.parameters()}
    if len(devices) > 1:
        raise RunFailedError(f"The decoder lies on {len(devices)} devices, and a graph is of one.", INSTEAD)
    graphs = DecodeGraphs(model, decoder, positions, card or TorchCard(next(iter(devices))))
    replaced = Replaced(decoder, graphs.make)
    try:
        yield graphs
    finally:
        replaced.remove()


def decoder_of(model: nn.Module, layers: Sequence[Layer]) -> nn.Module:
    """Return the innermost module that holds all decoder layers, and calls them. Raises RunFailedError without one."""
    from torch import nn

    modules = dict(model.named_modules())
    paths = [layer.name.split(".")[:-1] for layer in layers if layer.kind == "decoder_layer"]
    common = next(iter(paths), [])
    while any(path[: len(common)] != common for path in paths):
        common = common[:-1]
    while paths and isinstance(modules[".".join(common)], nn.ModuleList | nn.ModuleDict):
        common = common[:-1]
    if not paths:
        raise RunFailedError(f"{type(model).__name__} has no decoder layers whose step could be captured.", INSTEAD)
    found: nn.Module = modules[".".join(common)]
    return found


def _new_positions(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int | None:
    """Return how many positions a decoder's call brings: (rows, positions) of ids, or (rows, positions, features)."""
    import torch

    for value in (kwargs.get("inputs_embeds"), kwargs.get("input_ids"), *args[:1]):
        if isinstance(value, torch.Tensor) and value.ndim >= 2:
            return int(value.shape[1])
    return None


def _static_cache(model: Any, positions: int) -> Any:
    import transformers

    kind: Any = transformers.StaticCache  # untyped there
    return kind(config=model.config, max_cache_len=positions)
