"""Spans: how long each call of each layer takes on its device, by hooks that add next to nothing.

A hook only marks a boundary and appends four small things to a list; everything else happens between batches and in
`reading()`. It stands around the layer's `forward`: torch's own pair of forward hooks costs about twice as much
(experiments/peers/overhead.py), which in small layers is more than the 2 % that measuring may cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from layerprof.hooks.base import LayerHook
from layerprof.hooks.events import EventTimeline, HostTimeline, Mark, Timeline
from layerprof.hooks.phases import PhaseReader, PhaseTracker

from layerprof.books import spans
from layerprof.errors import RequestError
from layerprof.models.patch import Forward, Laid, Replaced, inside_compiled
from layerprof.readings import Layer, SpanReading
from layerprof.records import Phase

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass
class Captured:
    """A decode step in a CUDA graph: the events of its boundaries, and the log of the calls between them."""

    events: list[Any] = field(default_factory=list)
    log: spans.Log = field(default_factory=list)


Note = Callable[[int, Phase, tuple[Any, ...], dict[str, Any]], None]
"""Called with (slot, phase, args, kwargs) of a layer's call."""


class LatencyHook(LayerHook):
    """Times every call of the located layers.

    ::

        hook = LatencyHook(model, layers, device="cuda:0")
        with hook:
            for number, inputs in enumerate(batches):
                with hook.batch(number):
                    model.generate(**inputs)
        reading = hook.reading()

    On a CPU the clock is `perf_counter_ns` (or the given `clock`, a function that returns nanoseconds); on CUDA it is
    events from a pool (`clock` may be an EventTimeline), with one synchronise at the end of each batch. A batch that
    raises, or is interrupted, leaves no trace in the reading. Hooks outside `batch()` do nothing. Layers inside a
    region that is compiled already are left as they are, and have no spans.

    `note` is told of each call before it is timed. In a decode step that is replayed from a CUDA graph no layer is
    called: where the graph was captured inside `captured()`, it holds the boundaries' events, and each replay inside
    `replayed()` gives their times.

    Raises RequestError for a device that is neither, and on entering for a layer that the model does not have.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[Layer],
        device: str | torch.device = "cpu",
        clock: Callable[[], int] | Timeline | None = None,
        note: Note | None = None,
    ) -> None:
        super().__init__(model, layers)
        self._note = note
        self._timeline = _timeline(str(device), clock)
        self._starts: list[Mark] = []
        self._ends: list[Mark] = []
        self._windows: list[spans.BatchLog] = []
        self._log: spans.Log = []
        self._append = self._log.extend
        self._open = False
        self._compiled: set[str] = set()
        self._vision = PhaseTracker()
        self._vision.phase = Phase.VISION

    def __enter__(self) -> Self:
        devices = [_device_of(module) for module in self._modules()]
        self._compiled = inside_compiled(self.model)
        self._starts, self._ends = self._timeline.attach(self.layers, devices)
        return super().__enter__()

    def _attach(self, slot: int, layer: Layer, module: nn.Module) -> None:
        if layer.name in self._compiled:
            return
        reader = self._phase_reader(slot, layer, module)
        told = self._vision if layer.tower == "vision" and reader is None else self.tracker
        self._handles.append(Replaced(module, self._timing(slot, reader, told)))

    def _timing(self, slot: int, reader: PhaseReader | None, told: PhaseTracker) -> Callable[[Forward], Forward]:
        """Return what makes a timed `forward` out of the layer's own.

        It runs on every call of every layer: each name in it is looked up once, here, and the phase is an attribute of
        `told`, which `reader` brings up to date where the layer can tell.
        """
        import torch

        append, start, end, over = self._append, self._starts[slot], self._ends[slot], ~slot
        compiling, note = torch.compiler.is_dynamo_compiling, self._note

        def make(forward: Forward) -> Forward:
            def timed(_laid: Laid, *args: Any, **kwargs: Any) -> Any:
                # A clock inside a graph would break it; what the compiler takes over is not called, and so not timed.
                if not self._open or compiling():
                    return forward(*args, **kwargs)
                if reader is not None:
                    reader(args, kwargs)
                if note is not None:
                    note(slot, told.phase, args, kwargs)
                append((slot, told.phase, told.step, start()))
                try:
                    return forward(*args, **kwargs)
                finally:
                    append((over, None, 0, end()))

            return timed

        return make

    @contextmanager
    def batch(self, index: int, prompt: int | None = None) -> Iterator[None]:
        """Wrap one batch's `generate()`. The device is idle when the window opens and when it closes."""
        if self._open:
            raise RuntimeError("a batch is open already; batches do not nest")
        with super().batch(index, prompt):
            self._log.clear()
            self._timeline.open()
            self._open = True
            try:
                yield
                window = self._timeline.close(self._log)
            except BaseException:
                self._timeline.cancel()
                raise
            finally:
                self._open = False
                self._log.clear()
            self._windows.append(replace(window, mixed=dict(self.tracker.mixed)))

    @contextmanager
    def captured(self) -> Iterator[Captured]:
        """Wrap the capture of a decode step: boundaries become events of the graph, and nothing of it is a call."""
        begin = len(self._log)
        step = Captured()
        with super().captured(), self._timeline.capturing() as step.events:
            try:
                yield step
            finally:
                step.log = self._log[begin:]
                del self._log[begin:]

    @contextmanager
    def replayed(self, captured: Captured) -> Iterator[None]:
        """Wrap a replay: the calls of its capture, made anew."""
        with super().replayed(captured):
            if not self._open or not captured.events:
                yield
                return
            with self._timeline.replaying(captured.events) as first:
                yield
            for slot, phase, _, mark in zip(*(captured.log[part::4] for part in range(4)), strict=True):
                step = self.tracker.step if slot >= 0 else 0
                self._append((slot, phase, step, mark if mark == spans.NOT_RECORDED else mark - first))

    def forget(self, after: int = 0) -> None:
        """Forget the batches after the first so many; by default all of them."""
        del self._windows[after:]

    def started(self, slot: int, phase: Phase) -> None:
        """Mark the start of a call."""
        if self._open:
            self._append((slot, phase, self.tracker.step, self._starts[slot]()))

    def ended(self, slot: int) -> None:
        """Mark the end of a call."""
        if self._open:
            self._append((~slot, None, 0, self._ends[slot]()))

    def reading(self, batches: int | None = None) -> SpanReading:
        """Return the spans, windows and gaps of all finished batches, or of the first so many."""
        return spans.read(self._windows[:batches], self.layers, self._timeline.name)


def _timeline(device: str, clock: Callable[[], int] | Timeline | None) -> Timeline:
    if clock is not None and not callable(clock):
        return clock
    kind, _, index = device.partition(":")
    if kind == "cpu":
        return HostTimeline(clock)
    if kind == "cuda":
        return EventTimeline(int(index) if index else _current_device())
    raise RequestError(
        f"Layers cannot be timed on the device '{device}': no clock for its boundaries is known.",
        "Use --device cpu or --device cuda.",
    )


def _current_device() -> int:
    import torch

    return torch.cuda.current_device()


def _device_of(module: nn.Module) -> torch.device | None:
    """Where the layer's weights lie; None for a layer without any."""
    for tensor in (*module.parameters(), *module.buffers()):
        return tensor.device
    return None
